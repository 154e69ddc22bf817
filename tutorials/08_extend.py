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
# # 08 · Your own method, your own model
#
# **You will be able to** add an attribution method in fewer than fifteen lines, use it wherever a built-in one can be used,
# ship it in a package of yours, and teach the tracer a pipeline that it has never seen, with a proof that the maps are right.
#
# **Time** 15 minutes to read, 20 seconds to run. **Before this** [00](00_first_look.ipynb), and [02](02_rollout.ipynb) for what a
# stage is.
#
# Methods, objectives and model [families](../docs/glossary.md#family) are entries in tables, not branches in code. You add a
# row; nothing is forked and nothing is patched.
#
# ## A method
#
# A method gets the attention of one step as a list of *stages*, one for each [site](../docs/glossary.md#attention-site),
# averaged over heads, and the token numbers of each [concept](../docs/glossary.md#concept). It returns one map for each
# concept. That is all.
#
# The built-in `cross_attention` averages over layers. But a word that *one* layer reads strongly may matter more than one that
# all read weakly. So let us take the largest layer instead of the mean:

# %%
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from textwrap import fill

import numpy as np
import torch
from torch import nn

import vico_lens as vl
from vico_lens.attribution import influence_of_stages
from vico_lens.intervention.balancing import Schedule
from vico_lens.kernels.stages import Stage
from vico_lens.testing import check_family
from vico_lens.testing.pipelines.tokenizers import clip_tokenizer
from vico_lens.tracing.families import FAMILIES, Family, Rule


@vl.register_method("loudest_layer", differentiable=True, cost="O(L N K)", reads=("cross",), needs=("cross",))
def loudest_layer(problem):
    """Cross-attention of the layer that reads the concept most."""
    maps = [[stage.weights[..., list(span)].sum(-1) for stage in problem.stages] for span in problem.tokens]
    return torch.stack([torch.stack(one).amax(0) for one in maps]).reshape(-1, *problem.grid)


# %% [markdown]
# Five lines. The decorator declares what is true of it: gradients can flow through it, what it costs, and which kinds of
# attention it reads. Before any model sees it, check it by hand. Two layers, one cell, three tokens:
#
# | | token 0 | token 1 | token 2 |
# |---|---|---|---|
# | layer A | 0.2 | 0.3 | 0.5 |
# | layer B | 0.6 | 0.3 | 0.1 |
#
# **Predict** both methods for a concept made of token 0, and for one made of tokens 1 and 2.

# %%
rows = {"A": [0.2, 0.3, 0.5], "B": [0.6, 0.3, 0.1]}
stages = [Stage("cross", name, order, (1, 1, 1), torch.tensor([[row]])) for order, (name, row) in enumerate(rows.items())]
tokens = [[0], [1, 2]]
for method in ("cross_attention", "loudest_layer"):
    print(f"{method:16}", [round(value, 3) for value in influence_of_stages(stages, tokens, method).flatten().tolist()])

assert np.allclose(influence_of_stages(stages, tokens, "cross_attention").flatten(), [0.4, 0.6])
assert np.allclose(influence_of_stages(stages, tokens, "loudest_layer").flatten(), [0.6, 0.8])

# %% [markdown]
# 0.4 and 0.6 are the means of (0.2, 0.6) and (0.8, 0.4); 0.6 and 0.8 are their maxima. The maxima no longer add up to 1. That
# is a property a reader should know; say such things in the docstring of a method that you publish.
#
# The method is in the list now, and can be used by name everywhere: in attribution, comparison, and, as it is differentiable,
# [balancing](../docs/glossary.md#balancing).

# %%
assert "loudest_layer" in vl.methods()
print(vl.methods()["loudest_layer"].summary)

pipe = vl.load_pipeline()
pipe.set_progress_bar_config(disable=True)
prompt = "a blue cross moving right and a purple circle staying still"
names = ["blue cross", "purple circle"]


def sample(steps=8):
    return pipe(prompt, num_inference_steps=steps, generator=torch.Generator().manual_seed(50017)).frames[0]


with vl.trace(pipe, capture=vl.Capture(kinds="cross")) as run:
    sample()

shares = {}
for method in ("cross_attention", "loudest_layer"):
    share = vl.dominance(vl.attribute(run.tree, method, concepts=names))["share"]
    shares[method] = [round(float(value), 2) for value in share]
    print(f"{method:16}", dict(zip(names, shares[method], strict=True)))
assert all(first > second for first, second in shares.values())

# %%
with vl.balance(pipe, names, objective="equal", flow="loudest_layer", schedule=Schedule(stop=0.4)) as balance:
    sample()

losses = balance.log.loss.values
print("updates", len(losses), " loss down:", bool(losses[-1] < losses[0]))
assert (balance.log.gradient_norm > 0).all() and losses[-1] < losses[0]

# %% [markdown]
# Gradients flow through *your* function, back through attention into the latents, with no more work than declaring that they
# may. If the declaration is wrong, the first update says so: a gradient that is zero or not finite raises an error.
#
# Is the method any *good*? Running is not a proof. `vl.compare(tree, [...], pipe=pipe)` puts it beside the others, with the
# tests of [tutorial 05](05_causes.ipynb).
#
# ## Ship it
#
# A method in a notebook can be used only there. In a package, one line of its `pyproject.toml` registers it:
#
# ```toml
# [project.entry-points."vico_lens.methods"]
# loudest_layer = "my_methods:loudest_layer"
# ```
#
# Whoever installs your package has the method in `vl.methods()`, at the command line, and in the dashboard's list, without
# importing anything. We imitate an installation here by writing what `pip` would write, and ask the command line in a new
# process:

# %%
site = Path("site")
(site / "my_methods-0.1.dist-info").mkdir(parents=True)
(site / "my_methods-0.1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: my-methods\nVersion: 0.1\n")
(site / "my_methods-0.1.dist-info" / "entry_points.txt").write_text(
    "[vico_lens.methods]\nloudest_layer = my_methods:loudest_layer\n"
)
(site / "my_methods.py").write_text("""
import torch
import vico_lens as vl

@vl.register_method("loudest_layer", differentiable=True, cost="O(L N K)", reads=("cross",), needs=("cross",))
def loudest_layer(problem):
    maps = [[stage.weights[..., list(span)].sum(-1) for stage in problem.stages] for span in problem.tokens]
    return torch.stack([torch.stack(one).amax(0) for one in maps]).reshape(-1, *problem.grid)
""")

environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])}
command = [sys.executable, "-c", "from vico_lens.cli import main; main()", "methods", "--json"]  # `vico-lens methods --json`
told = json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
print(fill(", ".join(told), 88))
assert told["loudest_layer"]["differentiable"] is True

# %% [markdown]
# Objectives for balancing go into the group `vico_lens.objectives` in the same way; see
# [write an objective](../docs/how-to/write-an-objective.md).
#
# ## A pipeline of your own
#
# Now the other side: a model that the tracer does not know. Here is one, small enough to read. The denoiser looks at
# all video cells ([self-attention](../docs/glossary.md#self-attention)) and then listens to the text
# ([cross-attention](../docs/glossary.md#cross-attention)). Its weights are random, so the videos are noise: we test the *layout*
# here, not quality.

# %%


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x, context):
        parts = ((self.query, x), (self.key, context), (self.value, context))
        q, k, v = (part(source).unflatten(2, (self.heads, -1)).transpose(1, 2) for part, source in parts)
        return self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class SketchDenoiser(nn.Module):
    def __init__(self, channels=4, width=16, heads=2):
        super().__init__()
        self.read, self.write = nn.Linear(channels, width), nn.Linear(width, channels)
        self.look, self.listen = Attention(width, heads), Attention(width, heads)

    def forward(self, hidden_states, timestep, encoder_hidden_states):
        sizes = hidden_states.shape[2:]  # (batch, channel, frame, row, column)
        x = self.read(hidden_states.movedim(1, -1).flatten(1, 3)) * (1 + timestep / 1000)
        x = x + self.look(x, x)
        x = x + self.listen(x, encoder_hidden_states)
        return self.write(x).unflatten(1, sizes).movedim(-1, 1)


class SketchPipeline:
    def __init__(self, denoiser):
        self.tokenizer = clip_tokenizer(16)
        self.words = nn.Embedding(len(self.tokenizer), 16)
        self.denoiser = denoiser

    def prepare_latents(self, generator):
        return torch.randn(1, 4, 4, 4, 6, generator=generator)

    @torch.no_grad()
    def __call__(self, prompt, negative_prompt="", num_inference_steps=3, guidance_scale=3.0, generator=None):
        pieces = self.tokenizer([negative_prompt, prompt], padding="max_length", return_tensors="pt")
        text = self.words(pieces.input_ids)
        latents = self.prepare_latents(generator)
        timesteps = torch.linspace(999, 333, num_inference_steps)
        for i, t in enumerate(timesteps):  # noqa: B007 (the tracer reads i)
            without, given = self.denoiser(torch.cat([latents, latents]), t, text).chunk(2)
            latents = latents - (without + guidance_scale * (given - without)) / num_inference_steps
        return latents[0, :3].movedim(0, -1).sigmoid().numpy()


torch.manual_seed(0)
sketch = SketchPipeline(SketchDenoiser())
words = "a red circle moving right and a blue square moving up"


def call(pipeline, **changes):
    return pipeline(**{"prompt": words, "generator": torch.Generator().manual_seed(0)} | changes)


print(call(sketch).shape)

# %% [markdown]
# It follows the habits of diffusers pipelines in a few names, because the tracer reads them where they are: `prompt`, `latents`,
# `timesteps`, `i` and `t` in `__call__`, and `prepare_latents` if it is to be balanced.
#
# **Predict**: what happens if we trace it without telling anything?

# %%
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    with vl.trace(sketch) as guessed:
        call(sketch)

print(fill(str(caught[0].message), 88))
print([group for group in guessed.tree.groups if group.count("/") == 2])
assert "not in the table of families" in str(caught[0].message)

# %% [markdown]
# It guesses, and says that it guesses. The sizes gave it away: 96 queries and 96 keys are 4 x 4 x 6 cells looking at each
# other; 16 keys are the text. Another model may have two readings that fit; then nothing is guessed and the error says what to
# register. Guesses are for a first look. To be sure, write the row:

# %%
FAMILIES.add(
    "sketch",
    Family(
        name="sketch",
        title="Sketch",
        pipelines=("SketchPipeline",),
        models=("SketchDenoiser",),
        denoisers=("denoiser",),
        latents="BCFHW",
        patch=(1, 1, 1),
        rules=(Rule(r"^look$", "spacetime"), Rule(r"^listen$", "cross")),
    ),
)
with vl.trace(sketch) as run:
    video = call(sketch)

assert run.tree["spacetime/4x4x6"]["weights"].sizes["key_x"] == 6
print({name: round(float(share), 2) for name, share in vl.dominance(vl.attribute(run.tree))["share"].to_series().items()})

# %% [markdown]
# The row names the component that denoises, the order of the latents' axes, how many latent cells make a token, and which
# module is which [kind](../docs/glossary.md#kind). No code.
#
# ## Prove it
#
# Is it right? Maps with rows and columns exchanged look like maps, too. `check_family` compares the trace with computations
# that do not use the tracer: an eager softmax in double precision; *disturbing one cell* of the latents, and seeing where
# the recorded queries change; *exchanging one word*, and seeing under which token the keys change; runs that fail in the
# middle; and the video with and without tracing, bit for bit.

# %%
proof = check_family(sketch, lambda **changes: call(sketch, **changes), words, swaps=[("red", "blue")], negative="a star")
print(proof.family, proof.sites, f"largest error below 1e-6: {proof.error < 1e-6}")
assert proof.sites == {"cross/4x4x6": 1, "spacetime/4x4x6": 1} and not proof.left_out

# %% [markdown]
# Now break it. This denoiser reads the rows of a frame as columns. It runs, it makes videos, every map sums to one and equals
# the eager softmax. **Predict**: which check can find it?

# %%


class CrookedDenoiser(SketchDenoiser):
    def forward(self, hidden_states, timestep, encoder_hidden_states):
        return super().forward(hidden_states.transpose(3, 4), timestep, encoder_hidden_states).transpose(3, 4)


crooked = SketchPipeline(CrookedDenoiser())
try:
    check_family(crooked, lambda **changes: call(crooked, **changes), words)
except AssertionError as error:
    found = str(error)
print(fill(found, 88))
assert "denoiser.look" in found and "should show in the query there" in found

# %% [markdown]
# The disturbed cell shows at the wrong place: the cells are numbered in another order than the row says. Nothing else would
# have shown it, and every heat map would have been scrambled without a warning.
#
# A proven family can do all that the built-in ones can. Balancing our sketch moves its latents, too:

# %%
with vl.balance(sketch, ["red circle", "blue square"]) as balance:
    call(sketch)
print("updates", int((balance.log.latent_change > 0).sum()))
assert int((balance.log.latent_change > 0).sum()) > 0

# %% [markdown]
# A family for others goes into the entry-point group `vico_lens.families`, and its `check_family` call into your test suite.
#
# ## What you did
#
# You wrote a method in five lines, checked it by hand, used it for attribution and for balancing, and shipped it. Then you
# taught the tracer a new model by one row, proved the row, and saw the proof catch a mistake that no picture shows. Next: [real
# models](09_real_models.ipynb).
#
# ## Exercises
#
# **1.** Write and register `"quietest_layer"`, which takes the smallest layer instead of the largest. Give its two
# influences on the two layers by hand above.

# %% tags=["exercise"]


def check_1(answer):
    if answer is ...:
        return "your turn"
    assert "quietest_layer" in vl.methods(), "register it first, with @vl.register_method"
    assert np.allclose(answer, [0.2, 0.4]), "the smaller of (0.2, 0.6), and of (0.8, 0.4)"
    assert np.allclose(influence_of_stages(stages, tokens, "quietest_layer").flatten(), answer), "your method says something else"
    return "right"


check_1(...)

# %% [markdown] tags=["answer"]
# <details><summary>Answer to 1</summary>
#
# Sum over a concept's tokens first, then take the minimum over layers: min(0.2, 0.6) and min(0.8, 0.4).
#
# ```python
# @vl.register_method("quietest_layer", differentiable=True, cost="O(L N K)", reads=("cross",), needs=("cross",))
# def quietest_layer(problem):
#     """Cross-attention of the layer that reads the concept least."""
#     maps = [[stage.weights[..., list(span)].sum(-1) for stage in problem.stages] for span in problem.tokens]
#     return torch.stack([torch.stack(one).amin(0) for one in maps]).reshape(-1, *problem.grid)
#
#
# check_1([0.2, 0.4])
# ```
#
# </details>

# %% [markdown]
# **2.** In this denoiser the cells look at each other *within their frame* only: the frames are folded into the batch. Give the
# `Rule` for `look`. (`Rule` takes the path, the kind, and the axes that were folded into the batch.)

# %% tags=["exercise"]


class FramewiseDenoiser(SketchDenoiser):
    def forward(self, hidden_states, timestep, encoder_hidden_states):
        frames, rows, columns = hidden_states.shape[2:]
        x = self.read(hidden_states.movedim(1, -1).flatten(1, 3)) * (1 + timestep / 1000)
        folded = x.unflatten(1, (frames, rows * columns)).flatten(0, 1)  # (batch * frame, cell, width)
        x = x + self.look(folded, folded).unflatten(0, (-1, frames)).flatten(1, 2)
        x = x + self.listen(x, encoder_hidden_states)
        return self.write(x).unflatten(1, (frames, rows, columns)).movedim(-1, 1)


class FramewisePipeline(SketchPipeline):
    pass


def check_2(answer):
    if answer is ...:
        return "your turn"
    row = Family(
        name="framewise",
        title="Framewise",
        pipelines=("FramewisePipeline",),
        models=("FramewiseDenoiser",),
        denoisers=("denoiser",),
        patch=(1, 1, 1),
        rules=(answer, Rule(r"^listen$", "cross")),
    )
    FAMILIES.add("framewise", row, replace=True)
    # The look-up goes through the classes of a pipeline, its own first.
    framewise = FramewisePipeline(FramewiseDenoiser())
    assert check_family(framewise, lambda **changes: call(framewise, **changes), words).sites["spatial/4x4x6"] == 1
    return "right"


check_2(...)

# %% [markdown] tags=["answer"]
# <details><summary>Answer to 2</summary>
#
# Attention within a frame is of kind `spatial`, and the frame was folded into the batch.
#
# ```python
# check_2(Rule(r"^look", "spatial", ("frame",)))
# ```
#
# </details>
