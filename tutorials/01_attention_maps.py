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
# # 01 · What an attention map is, and is not
#
# **You will be able to** compute one row of an attention map by hand, find any map of a traced video by its site, head and
# step, see where attention goes when it has nothing to say, and give a counter-example to "attention explains".
#
# **Time** 12 minutes to read, 15 seconds to run. **Before this** [00](00_first_look.ipynb) helps, but is not needed.
#
# ## One row by hand
#
# A video model works on *tokens*: small pieces of the prompt, and small cells of the frames. In an
# [attention](../docs/glossary.md#attention) layer each token asks a question (its *query*), each token offers a label (its
# *key*), and a score says how well they fit. The scores of one query are turned into weights by the *softmax*: take e to the
# power of each score, divide by their sum. So the weights of one query are positive and sum to 1.
#
# Say one cell of the video looks at three words, with scores 2, 1 and 0.
#
# **Predict** before you read on: the first score is twice the second. Is the first weight about twice, three times or ten times
# the second?

# %%
import numpy as np
import torch
from PIL import Image

import vico_lens as vl

scores = np.array([2.0, 1.0, 0.0])
weights = np.exp(scores) / np.exp(scores).sum()
print(weights.round(3))
assert np.allclose(weights.round(3), [0.665, 0.245, 0.090])
assert np.isclose(weights[0] / weights[1], np.e)

# %% [markdown]
# It is e = 2.718 times: only *differences* of scores matter. Add 5 to all three and nothing changes. Two lessons are in this
# row already:
#
# - A weight is a share of a fixed budget. If one word gains, another must lose, even if nothing about it changed.
# - There is no "none of you". A cell that needs nothing from the text must still spend the whole 1 somewhere.
#
# The output of the layer for this cell is the weighted sum of what the tokens *carry* (their *values*). The matrix of all rows
# is the [attention map](../docs/glossary.md#attention-map). Remember the values; they come back at the end.

# %%
assert np.allclose(np.exp(scores + 5) / np.exp(scores + 5).sum(), weights)

# %% [markdown]
# ## Thousands of maps
#
# Now a real run: the clip of tutorial 00. Four of its 25 steps are enough.

# %%
pipe = vl.load_pipeline()
pipe.set_progress_bar_config(disable=True)
prompt = "a blue cross moving right and a purple circle staying still"
with vl.trace(pipe, capture=vl.Capture(steps=[0, 6, 12, 18])) as run:
    video = pipe(prompt, generator=torch.Generator().manual_seed(50017)).frames[0]
tree = run.tree
count = 0
for path in tree.groups:
    if "weights" in tree[path]:
        sizes = tree[path]["weights"].sizes
        maps = sizes["step"] * sizes["layer"] * sizes["head"]
        count += maps
        print(f"{path:18} {sizes['layer']} sites x {sizes['head']} heads x {sizes['step']} steps = {maps} maps")
print(count, "maps")
assert count == 448

# %% [markdown]
# So there is no such thing as *the* attention map of a video. A map has an address of three parts:
#
# - the [attention site](../docs/glossary.md#attention-site): which layer of the network, and of what
#   [kind](../docs/glossary.md#kind). `cross` looks from video cells at words, `spatial` within a frame, `temporal` along time
#   at one place;
# - the *head*: each site has several (here four) attentions side by side, with their own questions and labels;
# - the *step*: the network runs once a sampling step, from pure noise (0) to the clean video.
#
# Whatever the address, each row sums to 1. Check a whole group at once:

# %%
cross = tree["cross/8x8x8"]["weights"]
print(dict(cross.sizes))
assert np.allclose(cross.sum("token"), 1, atol=1e-4)
for place, module in enumerate(tree["cross/8x8x8"]["module"].values):
    print(place, module)

# %% [markdown]
# Take the [concept](../docs/glossary.md#concept) "blue cross" at the second of these sites, step 12, and look at all four heads
# (rows), frame by frame (columns). Each row has its own brightness, so compare shapes, not shades.

# %%
(concept,) = vl.find_concepts(tree, ["blue cross"])
read = cross.isel(layer=1, token=list(concept.tokens)).sum("token")
per_head = read.sel(step=12).values  # head, frame, y, x
scaled = per_head / per_head.max(axis=(1, 2, 3), keepdims=True)
tiles = np.kron(np.concatenate(scaled), np.ones((8, 8)))
Image.fromarray(vl.plot.filmstrip(np.repeat((255 * tiles[..., None]).astype(np.uint8), 3, axis=-1), columns=8))

# %% [markdown]
# Heads 0, 1 and 3 light up on the cross as it moves right, each in its own way. Head 2 (third row) does the opposite: it reads
# these words everywhere *but* on the cross. As a number, the correlation of the heads' maps:

# %%
alike = np.corrcoef(per_head.reshape(4, -1))
print(alike.round(2))
assert alike[0, 3] > 0.8 and alike[0, 2] < -0.5

# %% [markdown]
# Heads 0 and 3 nearly agree, head 2 is their negative. Who shows you "the attention to a word" from one head, or from an
# average, has made a choice for you. In this package an average over heads is the default, it is written into the result, and
# `heads=` changes it.
#
# What about steps? **Predict**: is the map of step 0 (pure noise) like that of step 18? And step 12 like step 18?

# %%
over_time = np.corrcoef(read.mean("head").values.reshape(4, -1))
print(dict(zip([0, 6, 12], over_time[:3, 3].round(2).tolist(), strict=True)))
assert over_time[0, 3] < 0.8 and over_time[2, 3] > 0.95

# %% [markdown]
# Early maps differ, late ones are settled. That is why a figure of attention must say its step.
#
# ## Sinks and special tokens
#
# The prompt has eleven words, but the text encoder gives the video model 32 tokens: a start token, the pieces of the words, an
# end token, and padding up to the fixed length. How is the attention shared among them?

# %%
kinds = tree.coords["token_kind"].values
for path in ("cross/8x8x8", "cross/8x4x4"):
    mean = tree[path]["weights"].mean(["step", "layer", "head", "frame", "y", "x"])
    spent = {
        "start token": float(mean[0]),
        "words": float(mean[kinds == "text"].sum()),
        "end token": float(mean[15]),
        "padding": float(mean[kinds == "padding"].sum()),
    }
    print(path, {name: round(value, 2) for name, value in spent.items()})
    assert np.isclose(sum(spent.values()), 1, atol=1e-4) and spent["words"] < 0.7

# %% [markdown]
# On the fine grid the words of the prompt get less than half of the attention. The start token alone takes 28 %, more than any
# word: it is a *sink*, the place where heads spend a budget that they need not spend. Padding takes another 23 %.
#
# A share "of all attention" would therefore mix how much a word counts with how busy the sinks are. The shares in this package
# are among the concepts that you ask about, and nothing else.
#
# Padding is not nothing, though. The text encoder lets every token read the ones before it, so the states of padding tokens
# carry some of the prompt. Whether that matters is a question about *effects*, and a map cannot answer it.
#
# ## Attention is not explanation
#
# First on paper. A cell looks at token A with weight 0.8 and at token B with weight 0.2. A carries the value 0, B carries 5.
# The output is the weighted sum. Which token explains it?

# %%
weight, value = np.array([0.8, 0.2]), np.array([0.0, 5.0])
output = weight @ value
print("output", output, " from A", weight[0] * value[0], " from B", weight[1] * value[1])
assert output == 1.0 and weight[0] * value[0] == 0

# %% [markdown]
# All of it comes from B, though A has four times its weight. A map shows *where a layer reads*, not *what it gets there*.
#
# Now on the model. We ask for each token: how much does the prediction of the video change if this token's state is replaced by
# what the *empty* prompt has at the same place? This is [leave-one-out](../docs/glossary.md#leave-one-out), the causal check;
# tutorial [05](05_causes.ipynb) is about it. Beside it, the attention.
#
# **Predict**: the start token has by far the most attention of all single tokens on the fine grid. Where will it stand by
# effect?

# %%
asked = {"start token": [0], "a": [1], "blue": [2], "cross": [3], "circle": [11], "end token": [15], "padding": range(16, 32)}
effect = vl.attribute(tree, "leave_one_out", asked, pipe=pipe, replacement="null", steps=6).mean(["frame", "y", "x"])
attention = cross.sel(step=6).mean(["layer", "head", "frame", "y", "x"])
print(f"{'':12} attention   effect")
for name, tokens in asked.items():
    print(f"{name:12} {float(attention[list(tokens)].sum()):9.3f} {float(effect.sel(concept=name)):8.3f}")
assert int(attention.argmax("token")) == 0 and float(effect.sel(concept="start token")) == 0
assert effect.idxmax("concept") == "cross"

# %% [markdown]
# The start token: most attention, effect exactly zero. Not small: zero. It comes first, the encoder reads from left to right,
# so its state is the same for every prompt on earth. It cannot tell the model anything about *this* prompt, however long the
# model stares at it.
#
# At the other end, "cross" changes the prediction several times more than "blue", though their attention is similar.
#
# This does not make maps useless. They say where a word is read, frame by frame, at no extra cost, and *for content words* they
# often point at the object. But "the model looked here" and "the model would do otherwise without it" are two statements. This
# package keeps two words for them: [influence](../docs/glossary.md#influence) for what a method computes from maps, *effect*
# for what a change does.
#
# ## Exercises
#
# **1.** Three words have scores 1, 1 and 1 + ln 2. Work out the largest weight, on paper.


# %% tags=["exercise"]
def check_1(answer):
    if answer is ...:
        return "your turn"
    assert abs(answer - 2 / 3) > 1e-3, "the three weights must sum to 1: the other two words are there as well"
    assert abs(answer - 0.5) < 1e-3, "e to the power of ln 2 is 2: the third word counts twice as much as each of the others"
    return "right"


check_1(...)

# %% [markdown] tags=["answer"]
# <details><summary>Answer to 1</summary>
#
# Only differences matter, so take the scores 0, 0, ln 2: the exponentials are 1, 1, 2, and the largest weight is 2 / 4.
#
# ```python
# exponentials = np.exp([1, 1, 1 + np.log(2)])
# check_1((exponentials / exponentials.sum()).max())
# ```
#
# </details>

# %% [markdown]
# **2.** Time, not text: at the temporal sites each cell looks at its own place in all eight frames. Averaged over steps, sites,
# heads and places, what share of its attention does *frame 0* pay to itself? Predict first: 1/8 would mean that frames do not
# care about distance.

# %% tags=["exercise"]
temporal = tree["temporal/8x8x8"]["weights"]


def check_2(answer):
    if answer is ...:
        return "your turn"
    assert answer > 0.125, "rows are `frame` (who looks), columns `key_frame` (who is looked at)"
    assert abs(answer - 0.208) < 0.01, "mean over every dimension but frame and key_frame, then [0, 0]"
    return "right"


check_2(...)

# %% [markdown] tags=["answer"]
# <details><summary>Answer to 2</summary>
#
# About 21 %, and it falls with distance to 8 % for the last frame: near frames look at each other more.
# `vl.plot.temporal_matrix` draws the whole matrix.
#
# ```python
# mean = temporal.mean(["step", "layer", "head", "y", "x"])
# assert np.allclose(mean.sum("key_frame"), 1, atol=1e-4)
# assert (mean[0].diff("key_frame") < 0).all()
# check_2(float(mean[0, 0]))
# ```
#
# </details>
