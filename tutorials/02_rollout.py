# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 02 · Rollout: following influence through the layers
#
# **You will be able to** compute attention rollout by hand on three tokens, say what the residual share does to it, write it
# yourself for a real video, and know what it leaves out.
#
# **Time** 15 minutes to read, 10 seconds to run. **Before this** [01](01_attention_maps.ipynb): a row of a map is a budget of
# 1.
#
# ## Why one layer is not enough
#
# A map tells what *one* layer reads. But layers read from each other. If the last layer reads frame 3, and frame 3 read the
# word "cross" two layers earlier, then "cross" has reached the end, though the last layer never looked at it.
# [Rollout](../docs/glossary.md#rollout) (Abnar and Zuidema, [arXiv 2005.00928](https://arxiv.org/abs/2005.00928)) follows such
# paths. Its rule has two lines:
#
# - along a path, *multiply* the weights;
# - over all paths that end in the same place, *add*.
#
# ## By hand: three tokens, two layers
#
# Tokens a, b, c. Each row says what a token reads, so rows sum to 1.

# %%
import numpy as np
import torch

import vico_lens as vl
from vico_lens.kernels.subgraph import subgraph_flow

first = np.array([[0.8, 0.2, 0.0], [0.1, 0.6, 0.3], [0.5, 0.0, 0.5]])
second = np.array([[0.6, 0.4, 0.0], [0.0, 0.7, 0.3], [0.2, 0.2, 0.6]])
assert np.allclose(first.sum(1), 1) and np.allclose(second.sum(1), 1)

# %% [markdown]
# Question: after both layers, how much of the original **a** is in **c**? The second layer's c reads a, b and c with 0.2, 0.2,
# 0.6 (last row of `second`). Those had read the original a with 0.8, 0.1, 0.5 (first column of `first`). Three paths:
#
# | path | product |
# |---|---|
# | a → a → c | 0.8 x 0.2 = 0.16 |
# | a → b → c | 0.1 x 0.2 = 0.02 |
# | a → c → c | 0.5 x 0.6 = 0.30 |
# | together | 0.48 |
#
# Nearly half of c comes from a. **Predict**: multiply-and-add over all pairs is an operation you know. Which one gives all nine
# answers at once?

# %%
rolled = second @ first
print(rolled)
assert np.isclose(rolled[2, 0], 0.16 + 0.02 + 0.30)
assert np.allclose(rolled.sum(1), 1)

# %% [markdown]
# The matrix product. And its rows sum to 1 again: rollout shares out the whole of each token among the originals, nothing is
# lost.
#
# ## The skip connection
#
# Real layers do not replace a token by what it read. They *add* what was read to what was there. So part of a token passes each
# layer unread. Rollout models this with a [residual share](../docs/glossary.md#residual-share) ρ: a layer keeps ρ of each token
# and takes 1 - ρ from attention. With the usual ρ = 1/2 the matrix of a layer becomes the mean of its attention and the
# identity.
#
# How much is ρ really? That depends on the model, the layer and the token, and rollout just assumes one number. Keep that in
# mind.

# %%
keep = np.eye(3)
with_skip = (second + keep) / 2 @ (first + keep) / 2
print(with_skip)
assert np.allclose(with_skip[2], [0.295, 0.09, 0.615])

# %% [markdown]
# With skips, c is mostly still c (0.615). One more check by hand, the path view of "a in c": c keeps half of what it was, 1/2,
# and reads a with 0.2/2 = 0.1, b with 0.1, itself with 0.3, so 0.1, 0.1, 0.8 in all. Original a in those: 0.9, 0.05, 0.25. So
# 0.09 + 0.005 + 0.2 = 0.295. It fits.
#
# ## By hand: words into frames
#
# In a video model words come in from the side. At a `cross` layer each frame reads the words; at a `temporal` layer frames read
# each other. Three frames, three words, one cross layer and two temporal layers after it. As in the paper on which this package
# builds (Vico, [arXiv 2407.06182](https://arxiv.org/abs/2407.06182)), the cross layer counts whole here and the temporal ones
# have a skip of one half.
#
# **Predict**: frame 0 reads word 0 with 0.90, frame 2 with 0.70. After two temporal layers, will the frames be more alike or
# less?

# %%
words = np.array([[0.90, 0.06, 0.04], [0.80, 0.15, 0.05], [0.70, 0.10, 0.20]])  # frame x word
time_1 = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7]])  # frame x frame it reads
time_2 = np.array([[0.4, 0.4, 0.2], [0.3, 0.4, 0.3], [0.25, 0.25, 0.5]])
by_hand = (time_2 + keep) / 2 @ (time_1 + keep) / 2 @ words
print(by_hand.round(5))
assert np.allclose(by_hand[0], [0.8435, 0.08985, 0.06665]) and np.allclose(by_hand[2], [0.74875, 0.103375, 0.147875])

# %% [markdown]
# More alike: 0.90 and 0.70 have become 0.84 and 0.75. Time layers smooth. The engine of the package gives the same numbers:

# %%
as_one_cell = torch.tensor(words)[:, None]  # frame, position, word: here a single position
engine = subgraph_flow(as_one_cell, [torch.tensor(time_1)[None], torch.tensor(time_2)[None]], kind="rollout", residual="parity")
assert np.allclose(engine[:, 0].numpy(), by_hand)

# %% [markdown]
# ## On the video
#
# The clip of tutorial 00 again. The [attention graph](../docs/glossary.md#attention-graph) of one step is the list of its
# attention sites in the order in which the network runs them, on one grid. We take the coarse grid, 8 frames of 4 x 4 cells,
# 128 cells in all.

# %%
pipe = vl.load_pipeline()
pipe.set_progress_bar_config(disable=True)
prompt = "a blue cross moving right and a purple circle staying still"
with vl.trace(pipe, capture=vl.Capture(steps=[0, 6, 12, 18])) as run:
    video = pipe(prompt, generator=torch.Generator().manual_seed(50017)).frames[0]
tree = run.tree
graph = vl.AttentionGraph.from_trace(tree, step=12, grid="coarsest")
kinds = [stage.kind for stage in graph.stages]
print(graph.grid, len(kinds), "sites:", {kind: kinds.count(kind) for kind in ("cross", "spatial", "temporal")})
assert kinds[:4] == ["spatial", "cross", "temporal", "temporal"]

# %% [markdown]
# Now write rollout yourself. `got[cell, word]` is how much of each word is in each cell. At the start: nothing, the video is
# noise. Each site then mixes, and keeps ρ. Three cases, a line each.


# %%
def rollout(graph, rho=0.5):
    frames, rows, columns = graph.grid
    cells = rows * columns
    got, noise = np.zeros((frames, cells, 32)), 1.0
    for stage in graph.stages:
        weights = stage.weights.numpy()
        if stage.kind == "cross":  # frame, cell, word: words come in, and what was there shrinks
            new, noise = weights, rho * noise
        elif stage.kind == "spatial":  # frame, cell, cell: cells of one frame read each other
            new = np.einsum("fqk,fkw->fqw", weights, got)
        else:  # cell, frame, frame: one cell reads itself in other frames
            new = np.einsum("cqk,kcw->qcw", weights, got)
        got = (1 - rho) * new + rho * got
    return got, noise


got, noise = rollout(graph)
concepts = vl.find_concepts(tree)
ours = np.stack([got[..., list(concept.tokens)].sum(-1) for concept in concepts])
theirs = vl.attribute(tree, "rollout", concepts, steps=12, grid="coarsest")
print("largest difference", f"{abs(ours.reshape(theirs.shape) - theirs.values).max():.0e}")
assert np.allclose(ours.reshape(theirs.shape), theirs, atol=1e-6)

# %% [markdown]
# Fifteen lines, and the same as `vl.attribute`. (The package does it for any model, any grid and on a GPU, but there is no
# other secret.)
#
# What about the sum rule? In each cell, all words together hold less than 1, because something of the noise we started from is
# left. Every cross site keeps ρ of what was there; there are 7. **Predict** the rest: 0.5 to the power of 7.

# %%
left = 1 - got.sum(-1)
print(f"left of the noise: {left.min():.5f} to {left.max():.5f}, predicted {0.5**7:.5f}")
assert np.allclose(left, 0.5**7, atol=1e-6) and noise == 0.5**7

# %% [markdown]
# ## What the residual share decides
#
# The same arithmetic says how much each cross site *can* count. What comes in at the last one is worth 1 - ρ = 0.5. At the one
# before, half of that, and so on. The first of seven counts 1/128. Beside it, what the two concepts get from each site:

# %%
sites = [stage for stage in graph.stages if stage.kind == "cross"]
gets = [[float(stage.weights[..., list(concept.tokens)].sum(-1).mean()) for concept in concepts] for stage in sites]
print("weight   cross   circle   site")
for place, (stage, (cross, circle)) in enumerate(zip(sites, gets, strict=True)):
    print(f"{0.5 ** (7 - place):.4f}  {cross:6.3f} {circle:8.3f}   {stage.module.removeprefix('unet.').split('.transformer')[0]}")
assert gets[1][1] > gets[1][0] and all(cross > circle for cross, circle in gets[:1] + gets[2:])

# %% [markdown]
# Look at the second row. At that site the circle, which never appears in the video, is read *more* than the cross. It loses in
# every later site. But with ρ = 1/2, rollout hardly hears the second site: its weight is 1/64.
#
# So rollout answers the question with a strong opinion: late sites matter most. A larger ρ spreads the weight over all sites.

# %%
shares = {}
for rho in (0.1, 0.5, 0.9):
    share = vl.dominance(vl.attribute(tree, "rollout", concepts, rho=rho))["share"].sel(concept="purple circle")
    shares[rho] = float(share)
    print(f"rho {rho}: share of the circle {shares[rho]:.2f}")
assert shares[0.1] < 0.23 and 0.25 < shares[0.5] < 0.27 and 0.32 < shares[0.9] < 0.34

# %% [markdown]
# From 0.22 to 0.33 by turning one knob that no one has measured for this model. Who is weaker does not change; how much weaker
# does. When you report a rollout share, report ρ; here it is in `influence.attrs["settings"]`.
#
# ## What rollout sees that one map does not
#
# Compare with the plain mean of the cross maps, step 12, in the middle frame:

# %%
maps = {name: vl.attribute(tree, name, concepts, steps=12) for name in ("cross_attention", "rollout")}
vl.plot.method_maps(maps, video=video)

# %% [markdown]
# ## What it leaves out
#
# - **Values.** A token that is read with 0.9 may carry nothing (tutorial 01). Rollout multiplies weights only.
# - **Signs.** What is read can push the picture *away* from something. Rollout has no minus.
# - **Everything between attentions**: convolutions, feed-forward layers. They move and change what attention brought.
# - **The residual share**, which is a guess.
#
# In spite of all this, it is the default here, for one reason: on the bundled model it predicts best what happens when a word
# is taken away. Tutorial [05](05_causes.ipynb) shows the evidence. There is another way to join layers, in which a path is as
# wide as its *narrowest* edge: flow, in tutorial [03](03_flow_and_cut.ipynb).
#
# ## Exercises
#
# **1.** In the first example (no skip), how much of the original **b** is in **a** after both layers? On paper, by its three
# paths.


# %% tags=["exercise"]
def check_1(answer):
    if answer is ...:
        return "your turn"
    assert abs(answer - 0.22) > 1e-6, "that is a in b; rows read, columns are read"
    assert abs(answer - 0.36) < 1e-6, "first row of `second` times second column of `first`"
    return "right"


check_1(...)

# %% [markdown] tags=["answer"]
# <details><summary>Answer to 1</summary>
#
# b → a → a: 0.2 x 0.6 = 0.12. b → b → a: 0.6 x 0.4 = 0.24. b → c → a: 0. Together 0.36.
#
# ```python
# paths = [first[k, 1] * second[0, k] for k in range(3)]
# assert np.allclose(paths, [0.12, 0.24, 0])
# check_1(sum(paths))
# ```
#
# </details>

# %% [markdown]
# **2.** With ρ = 0.8, what part of each cell do all words together make up at the end? Predict it without running anything,
# then check with your own `rollout`.


# %% tags=["exercise"]
def check_2(answer):
    if answer is ...:
        return "your turn"
    assert abs(answer - 0.8**7) > 1e-3, "that is what is left of the noise"
    assert abs(answer - (1 - 0.8**7)) < 1e-3, "each of the 7 cross sites keeps rho of what was there"
    return "right"


check_2(...)

# %% [markdown] tags=["answer"]
# <details><summary>Answer to 2</summary>
#
# Of the noise, 0.8 to the power of 7, 0.21, is left, so words make up 0.79. Spatial and temporal sites only move things about:
# their rows sum to 1.
#
# ```python
# got_8, noise_8 = rollout(graph, rho=0.8)
# assert np.allclose(got_8.sum(-1), 1 - noise_8, atol=1e-6)
# check_2(1 - 0.8**7)
# ```
#
# </details>
