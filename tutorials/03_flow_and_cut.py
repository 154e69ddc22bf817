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
# # 03 · Flow and cut: how wide is the way?
#
# **You will be able to** find the largest flow in a small network by hand, prove with a cut that it is the largest, and ask the
# same of the attention of a real video and check the answer.
#
# **Time** 15 minutes to read, 15 seconds to run. **Before this** [02](02_rollout.ipynb): rollout multiplies along paths.
#
# ## Another rule for paths
#
# Rollout multiplies the weights along a path. Think of a pipe instead: what comes through is limited by the *narrowest* piece.
# And pipes that run side by side add up. This is [flow](../docs/glossary.md#max-flow), and each edge's limit is its *capacity*.
# The largest flow from a source to a sink is the second classic way to follow attention (Abnar and Zuidema, [arXiv
# 2005.00928](https://arxiv.org/abs/2005.00928)).
#
# The rules: no edge carries more than its capacity. At every node between, what comes in goes out. We want as much as possible
# from source `s` to sink `t`.
#
# ## Six nodes by hand

# %%
import itertools

import networkx as nx
import numpy as np
import torch

import vico_lens as vl
from vico_lens.kernels.stages import Stage

network = nx.DiGraph()
for name, layer in {"s": 0, "a": 1, "b": 1, "c": 2, "d": 2, "t": 3}.items():
    kind = {"s": "source", "t": "sink"}.get(name, "video")
    network.add_node(name, layer=layer, kind=kind, label=name)
for tail, head, capacity in [
    ("s", "a", 0.4), ("s", "b", 0.3), ("a", "c", 0.2), ("a", "d", 0.3), ("b", "d", 0.3), ("c", "t", 0.5), ("d", "t", 0.3),
]:  # fmt: skip
    network.add_edge(tail, head, capacity=capacity)

# %% [markdown]
# Seven edges: `s` feeds `a` (0.4) and `b` (0.3). `a` feeds `c` (0.2) and `d` (0.3), `b` feeds only `d` (0.3). `c` gives 0.5 to
# `t`, `d` gives 0.3.
#
# **Predict.** 0.7 can leave `s`. 0.8 can enter `t`. How much gets through?
#
# Try to push. A natural first path is `s → a → d → t`: its narrowest edge is 0.3, so push 0.3. Now `s → a` has 0.1 left: push
# it along `s → a → c → t`. That makes 0.4. Is there more? `s → b → d` has room, but `d → t` is full. Stuck at 0.4.
#
# But the first step was greedy. It filled `d → t` from `a`, though `a` had another way out and `b` has none. So *take back*:
# send 0.1 along `s → b → d`, and let `a` send 0.1 less to `d` and 0.1 more to `c`. That is a path too, if we may walk an edge
# backwards as far as it carries flow: `s → b → d ← a → c → t`. Now 0.5.
#
# Each of the three pushes, as flow on edges:

# %%
pushes = [
    (0.3, [("s", "a", 1), ("a", "d", 1), ("d", "t", 1)]),
    (0.1, [("s", "a", 1), ("a", "c", 1), ("c", "t", 1)]),
    (0.1, [("s", "b", 1), ("b", "d", 1), ("a", "d", -1), ("a", "c", 1), ("c", "t", 1)]),
]
flow = dict.fromkeys(network.edges, 0.0)
for amount, path in pushes:
    for tail, head, sign in path:
        flow[tail, head] += sign * amount
    assert all(-1e-9 <= flow[edge] <= network.edges[edge]["capacity"] + 1e-9 for edge in flow), "no edge above its capacity"
for node in "abcd":
    entering = sum(value for (_, head), value in flow.items() if head == node)
    leaving = sum(value for (tail, _), value in flow.items() if tail == node)
    assert np.isclose(entering, leaving), "what comes in goes out"
arrives = flow["c", "t"] + flow["d", "t"]
print("arrives at t:", round(arrives, 2))
assert np.isclose(arrives, 0.5)

# %% [markdown]
# Could someone cleverer get 0.6? We need a proof that 0.5 is the end, and it is short.
#
# ## The cut
#
# Split the nodes into two camps, one with `s`, one with `t`. All flow must cross from the first camp to the second. So *no flow
# can be larger than the capacity of the edges that cross*, whatever camps we choose. Such a split is a
# [cut](../docs/glossary.md#min-cut).
#
# There are 16 ways to split four nodes. Try them all:

# %%
cuts = {}
for size in range(5):
    for chosen in itertools.combinations("abcd", size):
        camp = {"s", *chosen}
        crossing = [(tail, head) for tail, head in network.edges if tail in camp and head not in camp]
        cuts["".join(sorted(camp))] = (sum(network.edges[edge]["capacity"] for edge in crossing), crossing)
smallest = min(cuts, key=lambda camp: cuts[camp][0])
print("camp of s:", *smallest, " crossing:", cuts[smallest][1], " capacity:", round(cuts[smallest][0], 2))
assert len(cuts) == 16 and np.isclose(cuts[smallest][0], 0.5)
assert all(arrives <= capacity + 1e-9 for capacity, _ in cuts.values())

# %% [markdown]
# The smallest cut is `a → c` (0.2) and `d → t` (0.3): together 0.5. Our flow is 0.5. A flow can never beat a cut, and here they
# meet, so the flow is the largest and the cut is the smallest. That they *always* meet is the max-flow min-cut theorem (Ford
# and Fulkerson, 1956).
#
# The cut is more than a number. It is a **certificate**: if you doubt 0.5, you can check the flow (edge by edge) and the
# cut (add two numbers), and need not trust any program. And it tells *where* the way is narrow. Widen `c → t` or `s → b`:
# nothing happens. Only edges in the cut matter.
#
# `networkx` finds the same:

# %%
value, found = nx.maximum_flow(network, "s", "t")
cut_value, (camp, _) = nx.minimum_cut(network, "s", "t")
print(value, cut_value, sorted(camp))
assert np.isclose(value, 0.5) and np.isclose(cut_value, 0.5)
vl.plot.layered_graph(network)

# %% [markdown]
# Widths are capacities, dark cores are flow, red dashes are the smallest cut.
#
# ## Attention as pipes
#
# Now make the pipes out of attention. Two words, "sun" and "sea", and a video of two frames of one cell each. One `cross`
# layer: frame 0 reads sun with 0.9, sea with 0.1; frame 1 reads 0.2 and 0.8. Then one `temporal` layer: frame 0 reads itself
# with 0.6 and frame 1 with 0.4; frame 1 reads both with 0.5.
#
# Attention says who *reads* whom. Influence runs the other way, so an edge goes from what is read to who reads it. With a
# [residual share](../docs/glossary.md#residual-share) ρ = 0.5:
#
# - words enter with (1 - ρ) times their weight: sun enters frame 0 with 0.45 and frame 1 with 0.10;
# - along time, the capacity is the mean of attention and "stay": frame 0 keeps 0.8 and takes 0.2 from frame 1; frame 1 takes
#   0.25 from frame 0 and keeps 0.75.
#
# **Predict, on paper**: how much can flow from sun into the *last* frame 0? And into the last frame 1?

# %%
cross = Stage("cross", "words", 0, (2, 1, 1), torch.tensor([[[0.9, 0.1]], [[0.2, 0.8]]]).double())
time = Stage("temporal", "time", 1, (2, 1, 1), torch.tensor([[[0.6, 0.4], [0.5, 0.5]]]).double())
toy = vl.AttentionGraph.from_stages([cross, time], ["sun", "sea"])
exact = toy.max_flow({"sun": [0], "sea": [1]}, sink="frame")
print(exact["value"].values.round(4))
into_0 = min(0.45, 0.8) + min(0.10, 0.2)
into_1 = min(0.45, 0.25) + min(0.10, 0.75)
assert np.allclose(exact["value"].sel(concept="sun"), [into_0, into_1]) and np.allclose([into_0, into_1], [0.55, 0.35])

# %% [markdown]
# Two paths lead to each frame, one through each frame of the layer before. Frame 0: min(0.45, 0.8) + min(0.10, 0.2) = 0.55.
# Frame 1: min(0.45, 0.25) + min(0.10, 0.75) = 0.35. (One layer of frames is so simple that minimum and sum suffice. With more
# layers paths share edges, and one must push and take back as above.)
#
# Our engine gives the certificate along. Where are the cuts?

# %%
for frame in range(2):
    one = exact.sel(concept="sun").isel(frame=frame)
    places = one["cut_by_place"].round(2).to_series().to_dict()
    print(f"sun into frame {frame}: value {float(one['value']):.2f}, gap {float(one['gap']):.0e}, cut at {places}")
assert float(abs(exact["gap"]).max()) < 1e-9
assert exact["saturated"].sel(concept="sun").values.tolist() == ["source", "no"]

# %% [markdown]
# Into frame 0 the cut is right at the source: *everything* that sun sends comes through. The number 0.55 is just 0.45 + 0.10,
# the attention that the word gets. Into frame 1 the cut is 0.10 at the source and 0.25 in the time layer: there the network was
# the limit.
#
# That difference will matter a lot: tutorial [04](04_saturation.ipynb) is about it.
#
# ## On the video

# %%
pipe = vl.load_pipeline()
pipe.set_progress_bar_config(disable=True)
prompt = "a blue cross moving right and a purple circle staying still"
with vl.trace(pipe, capture=vl.Capture(steps=[12])) as run:
    pipe(prompt, generator=torch.Generator().manual_seed(50017))
block = vl.AttentionGraph.from_trace(run.tree, step=12).subgraph([1, 2, 3])
summary = block.summary()
print(summary["kind"].values, {name: summary.attrs[name] for name in ("grid", "nodes", "edges")})
assert summary["kind"].values.tolist() == ["cross", "temporal", "temporal"]

# %% [markdown]
# One cross site and the two temporal sites after it: thousands of edges. We ask for the flow from each concept into every
# single cell of the last level, 1,024 flows, each with its certificate.

# %%
flows = block.max_flow(sink="token")
names, counts = np.unique(flows["saturated"].values, return_counts=True)
print("saturated:", dict(zip(names.tolist(), counts.tolist(), strict=True)))
assert counts.sum() == 2 * 8 * 8 * 8 and float(abs(flows["gap"]).max()) < 1e-9

# %% [markdown]
# Each of the 1,024 flows equals its cut. Still, let us not take the engine's word: coarsen the block to 2 x 2 cells a frame,
# write it out edge by edge, and let `networkx` compute eight of the flows on its own.

# %%
small = block.subgraph(grid=(8, 2, 2))
edges = small.to_networkx(["blue cross"], sink="frame")
ours = small.max_flow(["blue cross"], sink="frame")["value"].isel(concept=0).values
theirs = [nx.maximum_flow_value(edges, ("source", "blue cross"), ("sink", frame)) for frame in range(8)]
print(edges.number_of_edges(), "edges; networkx:", np.round(theirs, 4), "ours:", ours.round(4))
assert np.allclose(ours, theirs, atol=1e-9)

# %% [markdown]
# ## Flow or rollout?
#
# | | rollout | flow |
# |---|---|---|
# | along a path | product | minimum |
# | side by side | sum | sum, but shared edges share their capacity |
# | asks | how much of it *is* there? | how much *could* get there? |
# | proof | none needed: it is a product | the cut |
# | all words together | share out the cell, sum at most 1 | each word is asked alone, as if the others were not there |
#
# The last row is the important one. Flow gives each word the whole network for itself, so flows of different words do not
# compete. Whether such a number says anything about dominance is not obvious, and the next tutorial finds out.
#
# ## Exercises
#
# **1.** In the six-node network, widen `a → c` from 0.2 to 0.5. How much flows now, and where is the cut? Do it by hand.


# %% tags=["exercise"]
def check_1(answer):
    if answer is ...:
        return "your turn"
    assert abs(answer - 0.8) > 1e-9, "that cut is no longer the smallest: look for another"
    assert abs(answer - 0.7) < 1e-9, "no more than 0.7 can leave the source"
    return "right"


check_1(...)

# %% [markdown] tags=["answer"]
# <details><summary>Answer to 1</summary>
#
# The old cut would now hold 0.5 + 0.3 = 0.8, but all that leaves the source is 0.4 + 0.3 = 0.7, and it gets through: 0.4 by `a
# → c → t`, 0.3 by `b → d → t`. The cut has moved to the source. From here on, nothing inside the network matters any more.
# (Widening it to 0.3 only would have given 0.6: an edge of the cut pays one for one, until another cut is smaller.)
#
# ```python
# wider = network.copy()
# wider.edges["a", "c"]["capacity"] = 0.5
# value, parts = nx.minimum_cut(wider, "s", "t")
# assert sum(network.edges["s", node]["capacity"] for node in "ab") == value
# check_1(value)
# ```
#
# </details>

# %% [markdown]
# **2.** In the toy with sun and sea: how much can flow from *sea* into the last frame 0, and how much of its cut lies in the
# time layer? Give both numbers.


# %% tags=["exercise"]
def check_2(value, in_time):
    if value is ... or in_time is ...:
        return "your turn"
    assert abs(value - 0.25) < 1e-6, "sea enters frame 0 with 0.05 and frame 1 with 0.40"
    assert abs(in_time - 0.2) < 1e-6, "which of the two paths is limited by the time layer?"
    return "right"


check_2(..., ...)

# %% [markdown] tags=["answer"]
# <details><summary>Answer to 2</summary>
#
# min(0.05, 0.8) + min(0.40, 0.2) = 0.25. The first path is limited where sea enters, the second in the time layer, with 0.2.
#
# ```python
# sea = exact.sel(concept="sea").isel(frame=0)
# check_2(float(sea["value"]), float(sea["cut_by_place"].sel(place="time")))
# ```
#
# </details>
