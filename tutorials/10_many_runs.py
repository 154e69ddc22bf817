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
# # 10 · Many runs
#
# **You will be able to** run a grid of prompts, seeds and conditions that survives being stopped, put an interval on what comes
# out, compare conditions in pairs, and spread the same grid over several processes.
#
# **Time** 12 minutes to read, 40 seconds to run. **Before this** [06](06_balancing.ipynb).
#
# One clip is an anecdote. This tutorial is about the step from "it worked on my clip" to "it works so often, and we are this
# sure".
#
# ## A grid
#
# A sweep is prompts × seeds × conditions. A *condition* is what is done to the pipeline: `None` for the plain call, or
# arguments of [balancing](../docs/glossary.md#balancing). A *score* is a function that looks at the frames and returns named
# numbers. Ours asks the judge of the small world; yours may be any detector.

# %%
import os
import subprocess
import sys
from math import sqrt
from pathlib import Path

import numpy as np
import torch

import vico_lens as vl
from vico_lens import tinyworld
from vico_lens.intervention.balancing import FixedRms, Schedule
from vico_lens.runs.sweeps import load_sweep

pipe = vl.load_pipeline()
pipe.set_progress_bar_config(disable=True)

prompts = tinyworld.sample_prompts(3, objects=2, seed=21)
conditions = {
    "plain": None,
    "balanced": {
        "objective": "weakest",
        "flow": "subgraph_flow",
        "kind": "sum",
        "step": FixedRms(0.03),
        "schedule": Schedule(stop=0.4),
    },
}


def score(frames, prompt):
    verdict = tinyworld.judge(frames, prompt)
    return {"present": all(verdict.present), "right": bool(verdict.all_correct)}


for prompt in prompts:
    print(prompt)

# %% [markdown]
# 3 prompts, 2 seeds, 2 conditions: 12 runs. To be quick we take 8 sampling steps in the place of 25.
#
# ## Stop it
#
# Long sweeps get stopped: a night ends, a machine restarts, somebody trips over a cable. So let us stop this one after 5 runs,
# in the rude way of Ctrl-C. **Predict** what is in the folder afterwards.

# %%
folder = Path("runs")
ask = {"call": {"num_inference_steps": 8}, "score": score}


def stop_at(number):
    def progress(done, of):
        if done == number:
            raise KeyboardInterrupt

    return progress


try:
    vl.sweep(pipe, prompts, [0, 1], conditions, folder, progress=stop_at(5), **ask)
except KeyboardInterrupt:
    print("stopped")

kept = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
print(len(kept), "files in the folder")
assert len(kept) == 5

# %% [markdown]
# Five whole files. A run is written beside its place and then moved there, so a file that exists is a run that is finished. Its
# name is a hash of everything that determines it: prompt, seed, condition with all its settings, and call. Now the same line
# again, without the interruption:

# %%
made = []
index = vl.sweep(pipe, prompts, [0, 1], conditions, folder, progress=lambda done, of: made.append(done), **ask)
print("made now:", len(made), "of", index.sizes["run"])
assert len(made) == 7 and index.sizes["run"] == 12
assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())  # nothing was run twice

# %% [markdown]
# The same holds for a process that is killed in the middle of a file. The tests of this library kill one twenty times and
# compare the end with a sweep that nobody disturbed, bit for bit.
#
# ## What came out
#
# The index is a labelled table with one row a run.

# %%
table = index.to_dataframe()[["prompt", "seed", "condition", "present", "right", "row_forwards"]]
print(table.to_string(index=False, max_colwidth=34))
by = index.to_dataframe().groupby("condition")["row_forwards"].mean()
assert by["plain"] == 16 and by["balanced"] == 22  # 8 steps of 2 rows; 3 updates of 2 more

# %% [markdown]
# ## How sure?
#
# Say that 3 of 4 clips are right. Is the method right in 75 % of all cases? With four clips we hardly know. The [Wilson
# interval](https://en.wikipedia.org/wiki/Binomial_proportion_confidence_interval#Wilson_score_interval) says what long-run
# rates are in keeping with the count. By hand, with p = 3/4, n = 4 and z = 1.96:
#
# - centre = (p + z²/2n) / (1 + z²/n) = (0.75 + 0.480) / (1 + 0.960) = 0.628
# - half = z √(p(1−p)/n + z²/4n²) / (1 + z²/n) = 1.96 · √(0.0469 + 0.0600) / 1.960 = 0.327
#
# So: between 0.30 and 0.95. Not much of a claim.

# %%


def wilson(successes, trials, z=1.96):
    p, spread = successes / trials, z * z / trials
    centre = (p + spread / 2) / (1 + spread)
    half = z * sqrt(p * (1 - p) / trials + spread / (4 * trials)) / (1 + spread)
    return centre - half, centre + half


low, high = wilson(3, 4)
print(f"3 of 4: {low:.2f} to {high:.2f}      75 of 100: {wilson(75, 100)[0]:.2f} to {wilson(75, 100)[1]:.2f}")
assert np.allclose([low, high], [0.301, 0.954], atol=0.001)
assert np.allclose(wilson(75, 100), [0.657, 0.825], atol=0.001)
vl.plot.sweep(index["right"], by="condition")

# %% [markdown]
# The figure draws these intervals for our twelve runs: so wide that they say nothing. That is the right thing for it to say.
# Four times as many runs make an interval about half as wide.
#
# ## Compare in pairs
#
# Every balanced clip has a plain twin: same prompt, same seed. Comparing twins takes out what both share, above all how hard
# the prompt is. An example with invented outcomes, 1 for right, ten prompts from easy to hard:

# %%
plain_like = np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0])
other_like = np.array([1, 1, 1, 1, 1, 1, 1, 0, 0, 0])  # two prompts mended, none broken


def bootstrap(values, draws=4000, seed=0):
    """95 % interval of the mean: draw the same number again, with replacement, many times."""
    drawn = np.random.default_rng(seed).integers(0, len(values), (draws, len(values)))
    return np.quantile(values[drawn].mean(1), [0.025, 0.975])


paired = bootstrap(other_like - plain_like)
apart = np.sqrt(np.var(plain_like) / 10 + np.var(other_like) / 10)
print(f"in pairs: +0.20 ({paired[0]:+.2f} to {paired[1]:+.2f});  apart: +0.20 plus or minus {1.96 * apart:.2f}")
assert (other_like - plain_like).mean() == 0.2
assert paired[0] >= 0 and paired[1] - paired[0] < 2 * 1.96 * apart

# %% [markdown]
# In pairs the interval is much narrower, for free. Apart, the same numbers would be in keeping with balancing doing harm.
# Two rules go with it: say *before* you look how many pairs you will run, and report mended and broken, not only their
# difference.
#
# ## Let it grow
#
# Add a seed. **Predict** how many new runs that takes.

# %%
made.clear()
grown = vl.sweep(pipe, prompts, [0, 1, 2], conditions, folder, progress=lambda done, of: made.append(done), **ask)
print("made now:", len(made), "of", grown.sizes["run"])
assert len(made) == 6 and grown.sizes["run"] == 18
assert load_sweep(folder).sizes["run"] == 18

# %% [markdown]
# Changing a setting, even of the preset behind a name, changes the hash: such runs are made anew, and the old ones stay.
#
# The command line does the same, with a prompt a line in a file:
#
# ```
# vico-lens sweep prompts.txt --seeds 0:3 --condition plain --condition default --out runs
# ```
#
# ## Several processes
#
# One pipeline can make one video at a time. To be faster, take more processes, each with its own pipeline, through
# [dask](https://distributed.dask.org) (`pip install "vico-lens[cluster]"`). The only change is that you hand over a *function*
# that loads the pipeline, and a client:

# %%
script = Path("cluster_sweep.py")
script.write_text("""
import sys
import vico_lens as vl
from distributed import Client, LocalCluster

if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        index = vl.sweep(
            vl.load_pipeline, sys.argv[2:], [0, 1], {"plain": None}, sys.argv[1],
            call={"num_inference_steps": 8}, keep_videos=True, client=client,
        )
        print(index.sizes["run"], "runs")
""")
command = [sys.executable, str(script), "apart", *map(str, prompts[:2])]
done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, capture_output=True, text=True)
print(done.stdout.strip().splitlines()[-1])

# %% [markdown]
# It is a script of its own, as it would be on a cluster, and the line under `if __name__ == "__main__"` is needed: every worker
# is a new process that reads the file. On a real cluster only the line that makes the cluster differs. Does it give the same
# videos?

# %%
videos = {path.stem: np.load(path)["rgb"] for path in Path("apart").glob("*.npz")}
elsewhere = load_sweep("apart")
for run in range(elsewhere.sizes["run"]):
    row = elsewhere.isel(run=run)
    generator = torch.Generator().manual_seed(int(row.seed))
    here = pipe(str(row.prompt.values), num_inference_steps=8, generator=generator).frames[0]
    there = videos[str(row.key.values)]
    assert np.abs(np.stack([np.asarray(frame) for frame in here]).astype(int) - there).max() <= 1
print(len(videos), "videos, the same as made here")
assert len(videos) == 4

# %% [markdown]
# A worker that dies is replaced, and its run is made again; runs that were finished are not. On a sweep as short as this,
# starting the workers takes longer than the runs. It pays when a run takes seconds and there are hundreds.
#
# ## What you did
#
# You stopped a sweep and went on, computed an interval by hand and saw how wide it is, compared in pairs, let the grid grow,
# and ran it on two processes. [How-to: run a sweep](../docs/how-to/run-a-sweep.md) is the short version, and the
# [study](../docs/explanation/study.md) is what comes of it with thousands of runs.
#
# ## Exercises
#
# **1.** A method is right in 108 of 200 clips. Give the two ends of the 95 % Wilson interval.

# %% tags=["exercise"]


def check_1(answer):
    if answer is ...:
        return "your turn"
    assert answer[0] < 0.54 < answer[1], "108 of 200 is 0.54; it lies inside"
    assert np.allclose(answer, [0.471, 0.608], atol=0.001), "use wilson(successes, trials)"
    return "right"


check_1(...)

# %% [markdown] tags=["answer"]
# <details><summary>Answer to 1</summary>
#
# From 47 to 61 %. Two hundred clips, and still fourteen points wide.
#
# ```python
# check_1(wilson(108, 200))
# ```
#
# </details>

# %% [markdown]
# **2.** About how many clips does it take until the interval of a method that is right half of the time is at most 10 points
# wide? Any even number that is right to within 5 % will do.

# %% tags=["exercise"]


def check_2(answer):
    if answer is ...:
        return "your turn"
    width = np.subtract(*wilson(answer // 2, answer)[::-1])
    assert width <= 0.1025, "not enough: the interval is still wider than 10 points"
    assert width >= 0.0975, "more than needed"
    return "right"


check_2(...)

# %% [markdown] tags=["answer"]
# <details><summary>Answer to 2</summary>
#
# The width is about 2 · 1.96 · √(0.25 / n). For 0.1 that gives n = (1.96 / 0.1)² = 384.
#
# ```python
# check_2(384)
# ```
#
# </details>
