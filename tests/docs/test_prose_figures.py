"""Figures that the pages and a tutorial quote in sentences and hand-written tables are those of the results that were kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks.study_table import compare_pairs

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def read(page: str) -> str:
    return " ".join((ROOT / page).read_text(encoding="utf-8").replace("\n# ", "\n").split())


@pytest.fixture(scope="module")
def study() -> dict[str, dict[str, Any]]:
    return {row["condition"]: row for row in json.loads((RESULTS / "study.json").read_text(encoding="utf-8"))["2"]}


def right(row: dict[str, Any]) -> int:
    return round(row["all_correct"] * row["pairs"])


def test_the_study(study: dict[str, dict[str, Any]]) -> None:
    page, plain, default, best = read("docs/explanation/study.md"), study["plain"], study["default"], study["best of 3 at step 4"]
    failures, lifted = plain["failures"], study["weakest, sum flow"]["failures"]
    assert {row["pairs"] for row in study.values()} == {200}
    assert f"makes {100 * default['all_correct']:.0f} % of two-object clips right" in page
    assert f"where {100 * plain['all_correct']:.0f} % are right plainly" in page
    assert f"for {default['cost']:.2f} times the denoiser calls" in page
    assert f"Of 200 plain two-object clips {200 - right(plain)} are wrong: {failures['motion']} have their motions" in page
    assert f"{failures['missing']} miss an object, {failures['extra']} show one too many" in page
    assert f"{failures['attributes']} have a wrong shape" in page
    assert f"missing objects ({failures['missing']} of 200 to {lifted['missing']})" in page
    assert f"motion failures rise from {failures['motion']} to {lifted['motion']}" in page
    honest = read("docs/explanation/reading-results.md")
    points = 100 * default["difference"]
    assert f"from {100 * plain['all_correct']:.0f} to {100 * default['all_correct']:.1f} %: +{points:.1f} points" in honest
    assert f"{default['gained']} clips mended, {default['lost']} broken" in honest
    assert f"+{100 * study['weakest, sum flow']['difference']:.0f} points" in honest
    assert f"Attend-and-Excite: +{100 * study['attend and excite']['difference']:.1f}" in honest
    # "Random moves do nothing": as many mended as broken, within chance, in either size.
    nulls = [study["random direction"], study["random direction, 0.03"]]
    assert all(null["low"] < 0 < null["high"] for null in nulls) and "Random moves do nothing" in page
    assert best["difference"] > default["difference"] and best["behind_default"]["low"] < 0 < best["behind_default"]["high"]
    both = study["best of 3, then default"]
    assert f"{100 * both['all_correct']:.1f} % right, {both['gained']} clips mended and {both['lost']} broken" in page
    assert f"for {both['cost']:.2f} times the calls" in page
    behind = both["behind_default"]
    assert f"by {-100 * behind['difference']:.0f} points ({-100 * behind['high']:.1f} to {-100 * behind['low']:.1f})" in page
    whole = f"+{100 * both['difference']:.1f} points (+{100 * both['low']:.1f} to +{100 * both['high']:.1f})"
    assert whole in honest and whole.replace("points (", "points, ").rstrip(")") in read("README.md")


def test_the_best_of_the_study_against_its_null() -> None:
    clips = pd.read_csv(RESULTS / "study.csv").query("objects == 2").set_index(["prompt", "seed"]).sort_index()
    both, null = (clips[clips.condition == name].all_correct for name in ("best of 3, then default", "best of 5 at step 4"))
    found = compare_pairs(both.to_numpy(), null.loc[both.index].to_numpy())
    quoted = f"ahead by {100 * found['difference']:.0f} points (−{-100 * found['low']:.0f} to {100 * found['high']:.1f})"
    assert quoted in read("docs/explanation/study.md")


def test_the_tutorial_on_balancing(study: dict[str, dict[str, Any]]) -> None:
    page = read("tutorials/06_balancing.py")
    plain, default, lifted = study["plain"], study["default"], study["weakest, sum flow"]
    nudge, small, best = study["random direction"], study["random direction, 0.03"], study["best of 3 at step 4"]
    missing = [str(row["failures"]["missing"]) for row in (plain, lifted, small)]
    assert f"| an object is missing | {' | '.join(missing)} |" in page
    assert f"| **everything right** | {' | '.join(f'**{right(row)}**' for row in (plain, lifted, small))} |" in page
    assert f"| **everything right** | {' | '.join(f'**{right(row)}**' for row in (plain, default, nudge, best))} |" in page
    changed = [f"{row['gained']} / {row['lost']}" for row in (default, nudge, best)]
    assert f"| mended / broken | | {' | '.join(changed)} |" in page
    for name, row in (("default", default), ("random nudge", nudge), ("best of 3 seeds", best)):
        assert f'("{name}", {row["gained"]}, {row["lost"]}, {right(row)})' in page


def test_which_method() -> None:
    page, found = (
        read("docs/explanation/which-method.md"),
        json.loads((RESULTS / "faithfulness.json").read_text(encoding="utf-8")),
    )
    prompts, methods = found["prompts"], found["methods"]
    share, maps = ({name: scores[score][0] for name, scores in methods.items() if score in scores} for score in ("share", "maps"))
    traced = [name for name in methods if name.split(",")[0] in ("cross_attention", "subgraph_flow", "widest_path")]
    assert f"nearest to leave-one-out**: {share['rollout']:.2f} for shares" in page
    assert f"have {share['max_flow, frame']:.2f} (exact flow to frames)" in page
    assert f"and {max(share[name] for name in traced if 'subgraph' in name):.2f} (subgraph flow)" in page
    assert f"{maps['rollout']:.2f} for maps, where the next have {max(maps[name] for name in traced):.2f}" in page
    weaker = {name: f"{100 * methods[name]['weaker'][0]:.0f} %" for name in ("cross_attention", "rollout")}
    assert f"in {weaker['cross_attention']} of cases, where chance is 50 % and rollout {weaker['rollout']}" in page
    taken = [share[name] for name in ("integrated_gradients", "feature_ablation", "shapley_values")]
    assert f"they reach {min(taken):.2f} to {max(taken):.2f} for shares" in page
    assert f"(rank correlation {methods['max_flow, video']['shuffled_weights'][0]:.2f})" in page
    assert "overlap with the objects is lower" in page and all(
        methods["leave_one_out"]["rendered iou"][0] < methods[name]["rendered iou"][0] for name in ("rollout", "cross_attention")
    )
    assert f"shuffled weights ({prompts['checks']} prompts)" in page
    assert f"infidelity and single tokens ({prompts['tokens']})" in page
