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
# # 09 · Real models
#
# **You will be able to** say before a run what tracing Wan, CogVideoX or AnimateDiff will take, choose a capture that fits, be
# refused in time when it does not, and read a large trace on a laptop.
#
# **Time** 15 minutes to read, 25 seconds to run. **Before this** [00](00_first_look.ipynb).
#
# Nothing is downloaded here. Sizes come from configurations, which need no weights. Where weights would be needed, the same
# code runs on small pipelines of the same classes with *random* weights: they make noise, but their attention sites, shapes and
# text are the real ones. The cell at the end takes real weights if you have them.
#
# ## What does one map weigh? By hand
#
# CogVideoX-2b makes 49 frames of 480 x 720. Its transformer sees 13 x 30 x 45 video tokens and 226 text tokens in one
# [joint softmax](../docs/glossary.md#joint-attention), with 30 heads of 64 numbers, in half precision (2 bytes).
#
# - tokens: 13 · 30 · 45 + 226 = 17 776
# - one map: 17 776² · 30 · 2 bytes = **18.96 GB**
# - its query and key: 2 · 17 776 · 64 · 30 · 2 bytes = **136.5 MB**
# - 30 layers, 50 steps: 28.4 TB of maps, or 205 GB of queries and keys
#
# A map is N · N numbers, but it is made from 2 · N · d. So the ratio is N / 2d = 17 776 / 128 = **139**, and nothing is lost:
# any row, column or block can be computed again. This form is called [factors](../docs/glossary.md#factors).

# %%
import subprocess
import sys
from dataclasses import replace
from textwrap import fill

import numpy as np
import torch
from diffusers import WanTransformer3DModel

import vico_lens as vl
from vico_lens.testing import tiny_pipeline
from vico_lens.tracing.cost.budget import site_bytes
from vico_lens.tracing.cost.published_models import native_sizes
from vico_lens.vocabulary.schema import AttentionSite

cog = AttentionSite("transformer.transformer_blocks.0.attn1", "joint", (13, 30, 45), 30, 64, 226, 0)
weights, factors = site_bytes(cog, 2)
assert weights == 17776**2 * 30 * 2 and factors == 2 * 17776 * 64 * 30 * 2
assert round(weights / 1e9, 2) == 18.96 and round(factors / 1e6, 1) == 136.5
assert round(weights / factors) == 139 and round(50 * 30 * weights / 1e12, 1) == 28.4

# %% [markdown]
# For well-known models this arithmetic is ready. **Predict**: for which model is the ratio smallest?

# %%


def show(capture=None):
    sizes = native_sizes(capture)
    for model in sizes.model.values:
        row = sizes.sel(model=model)
        print(
            f"{model:22} {float(row.weights_bytes) / 1e12:8.2f} TB as maps   {float(row.stored_bytes) / 1e9:8.1f} GB stored   "
            f"ratio {float(row.ratio):6.1f}"
        )
    return sizes


sizes = show()
assert str(sizes.model[int(np.argmin(sizes.ratio.values))].values).startswith(("AnimateDiff", "ZeroScope"))

# %% [markdown]
# The UNets: their [temporal](../docs/glossary.md#kind) maps are 16 x 16 or 24 x 24, smaller than query and key, so
# `store="auto"` keeps those as maps. The wider the attention, the more factors save.
#
# But hundreds of gigabytes are still too much. What do you *need*? Most questions about words want
# [cross-attention](../docs/glossary.md#cross-attention) or joint sites, a few steps, not fifty. A
# [capture](../docs/glossary.md#capture) says so:

# %%
few = vl.Capture(steps=slice(0, None, 10))
sizes_few = show(few)
assert np.allclose(sizes_few.stored_bytes / sizes.stored_bytes, 0.1, atol=0.02)

# %% [markdown]
# ## A model that is not there
#
# Your own configuration is not in that table. Build the transformer on torch's device `meta`: all shapes, no numbers, no
# memory. Here is the Wan 2.1 that is called 1.3B, from its published configuration. The text encoder and the video
# autoencoder are small stand-ins; for attention only the number of text tokens counts.

# %%
wan = tiny_pipeline("wan21-t2v")
config = {name: value for name, value in wan.pipe.transformer.config.items() if not name.startswith("_")}
config |= {"num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960, "num_layers": 30, "freq_dim": 256}
config |= {"rope_max_seq_len": 1024}
with torch.device("meta"):
    wan.pipe.transformer = WanTransformer3DModel(**config).eval().to(torch.bfloat16)

parameters = sum(parameter.numel() for parameter in wan.pipe.transformer.parameters())
prompt = "a red circle moving right and a blue square moving up"
size = {"height": 480, "width": 832, "num_frames": 81, "num_inference_steps": 50}
table = vl.estimate(wan.pipe, prompt, **size)
print(f"{parameters / 1e9:.2f} billion parameters, {table.sizes['site']} attention sites, {table.attrs['forward']} forward")
print(f"grid {tuple(int(table[name][0]) for name in ('frames', 'rows', 'columns'))}, {float(table.total_bytes) / 1e9:.0f} GB")
assert table.sizes["site"] == 60 and table.attrs["forward"] == "fake"
assert [int(table[name][0]) for name in ("frames", "rows", "columns")] == [21, 30, 52]
ready = float(sizes.stored_bytes.sel(model="Wan 2.1 1.3B"))
assert abs(float(table.total_bytes) / ready - 1) < 0.02  # the ready table says the same

# %% [markdown]
# `vl.estimate` lets the stock pipeline prepare a call, stops it at the denoiser, and runs the denoiser on *fake* tensors that
# have shapes only. So the estimate knows everything your call says: frames, size, guidance, number of steps. The same line
# works with real weights loaded, and costs seconds.
#
# ## Trace a Wan
#
# To *run* it we need numbers. Two of the thirty layers, random, on a small clip:

# %%
torch.manual_seed(0)
wan.pipe.transformer = WanTransformer3DModel(**config | {"num_layers": 2}).eval()
wan.pipe.set_progress_bar_config(disable=True)
small = {"height": 64, "width": 64, "num_frames": 9, "num_inference_steps": 2, "output_type": "np"}


def sample(**changes):
    return wan.pipe(prompt, generator=torch.Generator().manual_seed(0), **small | changes).frames[0]


plain = sample()
with vl.trace(wan.pipe, to="wan.zarr") as run:
    traced = sample()

assert np.array_equal(plain, traced)  # watching changes nothing, for this model too
print(run.coverage)
print([group for group in run.tree.groups if group.count("/") == 2])
assert run.coverage["seen"] == run.coverage["recorded"] == 4 and not run.coverage["left_out"]

# %% [markdown]
# [Coverage](../docs/glossary.md#coverage) is worth a look at every new model: four sites seen, four recorded. A site that
# cannot be recorded is listed with its reason, and a known site that records nothing is an error. An empty trace never passes
# for a result.
#
# ## Be refused in time
#
# A capture has a budget. A run that would go over it is refused *before* the first step, and told what would fit:

# %%
try:
    with vl.trace(wan.pipe, capture=vl.Capture(budget="1 MB")):
        sample()
except vl.VicoLensError as error:
    refusal = str(error)
print(fill(refusal, 88))
assert "What would fit" in refusal and "heads=[0]" in refusal

# %% [markdown]
# Take one of the offers:

# %%
with vl.trace(wan.pipe, capture=vl.Capture(budget="1 MB", heads=[0])) as one_head:
    sample()
assert one_head.tree["cross/3x4x4"]["weights"].sizes["head"] == 1

# %% [markdown]
# ## Read it on a laptop
#
# The machine with the GPU writes a folder; you copy it. Opening it reads no array. `weights` is there under its name as if all
# maps were stored, and computes only what you ask for. Nothing of the model libraries is needed, which a new process can prove:

# %%
code = """
import sys
import vico_lens as vl
tree = vl.open_trace("wan.zarr")
maps = tree["spacetime/3x4x4"]["weights"]
row = maps.isel(step=0, layer=1, head=3, frame=0, y=2, x=1)
print("all maps", maps.size, "numbers; this row", row.size, "numbers, which sum to", round(float(row.sum()), 4))
print("model libraries loaded:", [name for name in ("diffusers", "transformers") if name in sys.modules])
"""
told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
print(told)
assert "sum to 1.0" in told and "loaded: []" in told

# %% [markdown]
# Attribution works on the stored trace as well, step by step, so that only one step's attention is in memory. The weights of
# this Wan are random, so its shares mean nothing. That there *are* shares, with every word found, is what we check.

# %%
tree = vl.open_trace("wan.zarr")
influence = vl.attribute(tree, "cross_attention")
print(influence.concept.values.tolist(), dict(influence.sizes))
assert influence.concept.values.tolist() == ["red circle", "blue square"] and np.isfinite(influence).all()

# %% [markdown]
# ## The same three lines, for every family
#
# CogVideoX has one joint softmax, Wan has separate self- and cross-attention, AnimateDiff is a UNet. What you write is the
# same. This function is what you would run on real weights:

# %%


def diagnose(pipe, call, capture):
    """Trace one call, and say which concept has which share of cross-attention."""
    with vl.trace(pipe, capture=capture) as run:
        call()
    return vl.dominance(vl.attribute(run.tree, "cross_attention"))["share"], run


capture = vl.Capture(steps=[0, -1], kinds=("cross", "joint"), budget="500 MB")
for name in ("cogvideox-t2v", "wan21-t2v", "animatediff-t2v"):
    tiny = tiny_pipeline(name)
    tiny.pipe.set_progress_bar_config(disable=True)
    share, run = diagnose(tiny.pipe, tiny.call, capture)
    groups = [group.strip("/") for group in run.tree.groups if group.count("/") == 2]
    print(f"{type(tiny.pipe).__name__:20} {groups}  {share.concept.values.tolist()}")
    assert share.sizes["concept"] == 2 and abs(float(share.sum()) - 1) < 1e-5

# %% [markdown]
# With weights on your machine, name their folder and run the next cell. **It is skipped here**: this page was made without any.

# %%
WEIGHTS = None  # for example "/models/CogVideoX-2b", a folder written by save_pretrained
PROMPT = "a crab DJing at a beach party"

if WEIGHTS is not None:
    real = vl.load_pipeline(WEIGHTS, dtype="bfloat16", device="cuda")
    print(vl.estimate(real, PROMPT, capture=capture).total_bytes)
    share, run = diagnose(
        real, lambda: real(PROMPT, generator=torch.Generator().manual_seed(0)), replace(capture, budget="40 GB")
    )
    print(share)

# %% [markdown]
# A checklist for the first real run: `vl.estimate` first; `steps=[0, -1]` before all steps; look at the coverage; keep the
# seed; write to a disk that is fast and local, and copy later. If memory is short on the GPU, diffusers' own CPU offloading
# works under the tracer.
#
# ## What you did
#
# You computed the size of a map by hand, estimated a model that was not there, traced a Wan with random weights bit for bit,
# met a refusal, and read a trace without a model. Which families are proven, and on what, is in [the table of
# pipelines](../docs/reference/pipelines.md); [fit memory](../docs/how-to/fit-memory.md) is the short version. Next: [many
# runs](10_many_runs.ipynb).
#
# ## Exercises
#
# **1.** By hand: Wan 2.1 at 81 frames of 480 x 832 sees 21 x 30 x 52 tokens, with heads of 128 numbers. By which factor are its
# self-attention maps larger than query and key?

# %% tags=["exercise"]


def check_1(answer):
    if answer is ...:
        return "your turn"
    assert answer > 100, "N / 2d, where N is the number of video tokens"
    assert abs(answer - 127.97) < 0.1, "N = 21 · 30 · 52 and d = 128"
    return "right"


check_1(...)

# %% [markdown] tags=["answer"]
# <details><summary>Answer to 1</summary>
#
# N = 32 760, and 32 760 / 256 = 128. The number of heads and of bytes cancels.
#
# ```python
# row = table.sel(site="transformer.blocks.0.attn1")
# check_1(float(row.weights_bytes / row.factors_bytes))
# ```
#
# </details>

# %% [markdown]
# **2.** Find a capture that keeps some cross-attention of Wan 2.1 1.3B in less than 2 GB. `native_sizes(capture)` tells you.

# %% tags=["exercise"]


def check_2(answer):
    if answer is ...:
        return "your turn"
    assert answer.wants(AttentionSite("x", "cross", (21, 30, 52), 12, 128, 512, 0)), "cross-attention is not in it"
    stored = float(native_sizes(answer).stored_bytes.sel(model="Wan 2.1 1.3B"))
    assert 0 < stored < 2e9, f"that takes {stored / 1e9:.1f} GB: fewer steps, kinds or heads"
    return "right"


check_2(...)

# %% [markdown] tags=["answer"]
# <details><summary>Answer to 2</summary>
#
# One step of cross-attention takes 3.1 GB with all twelve heads, and 1.0 GB with four of them.
#
# ```python
# check_2(vl.Capture(steps=-1, kinds="cross", heads=[0, 1, 2, 3]))
# ```
#
# </details>
