"""Every family of the contract is traced right: `check_family` on each tiny pipeline; and `check_family` sees what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from vico_lens.errors import TracingError
from vico_lens.testing import FamilyReport, check_family, tiny_pipeline, tiny_pipelines
from vico_lens.tracing.branches import BranchReader, Labels
from vico_lens.tracing.families import FAMILIES, Rule, family_of
from vico_lens.tracing.recording import Recording, trace
from vico_lens.tracing.tracer import observe

UNGUIDED = {"hunyuan-t2v"}  # guidance is an embedding: there is no unconditional half
SWAPS = [("red", "blue"), ("up", "down")]

KINDS = {
    "allegro-t2v": {"cross", "spacetime"},
    "animatediff-t2v": {"cross", "spatial", "temporal"},
    "animatediff-v2v": {"cross", "spatial", "temporal"},
    "anyflow-t2v": {"cross", "spacetime"},
    "cogvideox-i2v": {"joint"},
    "cogvideox-t2v": {"joint"},
    "cogvideox-v2v": {"joint"},
    "consisid-i2v": {"joint"},
    "cosmos-t2w": {"cross", "spacetime"},
    "easyanimate-t2v": {"joint"},
    "helios-t2v": {"cross"},
    "hunyuan-t2v": {"joint"},
    "hunyuan15-t2v": {"joint"},
    "kandinsky5-t2v": {"cross", "spacetime"},
    "latte-t2v": {"cross", "spatial", "temporal"},
    "ltx-i2v": {"cross", "spacetime"},
    "ltx-t2v": {"cross", "spacetime"},
    "ltx2-t2v": {"cross", "spacetime"},
    "mochi-t2v": {"joint"},
    "motif-t2v": {"joint"},
    "sana-t2v": {"cross"},
    "skyreels-v2-df": {"cross", "spacetime"},
    "skyreels-v2-t2v": {"cross", "spacetime"},
    "wan21-i2v": {"cross", "spacetime"},
    "wan21-t2v": {"cross", "spacetime"},
    "wan21-v2v": {"cross", "spacetime"},
    "wan21-vace": {"cross", "spacetime"},
    "wan22-5b-t2v": {"cross", "spacetime"},
    "wan22-t2v": {"cross", "spacetime"},
    "zeroscope-t2v": {"cross", "spatial", "temporal"},
    "zeroscope-v2v": {"cross", "spatial", "temporal"},
}


def proven(name: str, **changes: Any) -> FamilyReport:
    tiny = tiny_pipeline(name)
    options = {"swaps": SWAPS, "negative": None if name in UNGUIDED else "the green star"} | changes
    with tiny.context():
        return check_family(tiny.pipe, tiny.run, tiny.prompt, **options)


@pytest.mark.parametrize("name", tiny_pipelines())
def test_family_is_traced_right(name: str) -> None:
    report = proven(name)
    assert report.error <= 1e-6
    assert {group.strip("/").partition("/")[0] for group in report.sites} == KINDS.get(name, set()) or name not in KINDS


def test_contract_is_covered() -> None:
    assert set(KINDS) <= set(tiny_pipelines()) and len(KINDS) >= 26


@contextmanager
def row(name: str, **changes: Any) -> Iterator[None]:
    """A wrong row in the table, for the time of a test."""
    right = FAMILIES[name]
    FAMILIES.add(name, replace(right, **changes), replace=True)
    try:
        yield
    finally:
        FAMILIES.add(name, right, replace=True)


def rules(name: str, change: Callable[[Rule], Rule]) -> tuple[Rule, ...]:
    return tuple(change(rule) for rule in FAMILIES[name].rules)


def test_wrong_order_of_latent_axes_is_seen() -> None:
    with row("latte", latents="BFCHW"), pytest.raises((AssertionError, TracingError)):
        proven("latte-t2v")  # four frames, four channels: no size gives the mistake away


def test_text_on_the_wrong_side_is_seen() -> None:
    with row("cogvideox", text="last"), pytest.raises(AssertionError, match=r"place of the text|changed the key most"):
        proven("cogvideox-t2v")


@pytest.mark.filterwarnings("ignore:a part of the prompt has no token")
def test_a_template_cut_at_the_wrong_end_is_seen() -> None:
    family = family_of(tiny_pipeline("hunyuan-t2v").pipe)
    other = "start" if family.crop != "start" else "end"
    with row(family.name, crop=other), pytest.raises(AssertionError, match=r"text tokens should be|changed the key most"):
        proven("hunyuan-t2v")


def test_a_site_left_out_without_a_reason_is_seen() -> None:
    silenced = rules("latte", lambda rule: replace(rule, kind=None, reason="") if rule.kind == "temporal" else rule)
    with row("latte", rules=silenced), pytest.raises(AssertionError, match="left out without a reason"):
        proven("latte-t2v")


@pytest.mark.parametrize("name", ["latte-t2v", "wan21-t2v"])
def test_swapped_guidance_branches_are_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = BranchReader.labels
    other = {"cond": "uncond", "uncond": "cond"}

    def swapped(self: BranchReader, *args: Any) -> Labels:
        labels = right(self, *args)
        rows = tuple(None if label is None else (other[label[0]], label[1]) for label in labels.rows)
        return labels if self.rows else Labels(rows, labels.reason)

    monkeypatch.setattr(BranchReader, "labels", swapped)
    with pytest.raises(AssertionError, match="another negative prompt"):
        proven(name, swaps=())


def test_a_changed_output_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = tiny_pipeline("latte-t2v")
    right = Recording.__enter__

    def nudged(self: Recording) -> Recording:
        with torch.no_grad():
            tiny.pipe.transformer.proj_out.weight.mul_(1 + 1e-6)
        return right(self)

    monkeypatch.setattr(Recording, "__enter__", nudged)
    with pytest.raises(AssertionError, match="with tracing on differs"):
        check_family(tiny.pipe, tiny.run, tiny.prompt)


def test_a_hook_left_behind_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = tiny_pipeline("latte-t2v")
    right = Recording.__exit__

    def untidy(self: Recording, *exc: Any) -> None:
        tiny.pipe.transformer.register_forward_hook(lambda *_: None)
        right(self, *exc)

    monkeypatch.setattr(Recording, "__exit__", untidy)
    with pytest.raises(AssertionError, match="something of the tracer is left: transformer"):
        check_family(tiny.pipe, tiny.run, tiny.prompt)


def test_a_run_that_is_not_repeatable_is_refused() -> None:
    tiny = tiny_pipeline("latte-t2v")
    seeds = iter(range(100))
    with pytest.raises(AssertionError, match="fresh generator"):
        check_family(tiny.pipe, lambda **changes: tiny.run(seed=next(seeds), **changes), tiny.prompt)


def test_tracing_twice_at_once_records_the_same() -> None:
    tiny = tiny_pipeline("latte-t2v")
    with trace(tiny.pipe) as outer, trace(tiny.pipe) as inner:
        tiny.run()
    for group in ("cross/4x4x6", "spatial/4x4x6", "temporal/4x4x6"):
        assert outer.tree[group]["weights"].identical(inner.tree[group]["weights"])


@pytest.mark.parametrize("name", ["animatediff-t2v", "cogvideox-t2v", "wan21-t2v", "mochi-t2v"])
def test_prompts_of_a_batch_keep_their_rows(name: str) -> None:
    """Two prompts of one call give the calls that each gives alone, up to the rounding of another batch size."""
    tiny = tiny_pipeline(name)
    other = "a blue star still and a green triangle moving left"
    seeds = [torch.Generator().manual_seed(seed) for seed in (0, 1)]

    def first_keys(**overrides: Any) -> dict[int, torch.Tensor]:
        found: dict[int, torch.Tensor] = {}
        with tiny.context(), observe(tiny.pipe, kinds=("cross", "joint")) as calls:
            tiny.run(**overrides)
            for call in calls:
                if call.key is not None:
                    found.setdefault(call.prompt, call.key)
        return found

    both = first_keys(prompt=[tiny.prompt, other], **two_negatives(tiny.kwargs), generator=seeds)
    for row_number, prompt in enumerate((tiny.prompt, other)):
        alone = first_keys(prompt=prompt, seed=row_number)[0]
        torch.testing.assert_close(both[row_number], alone, rtol=1e-4, atol=1e-4)


def two_negatives(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"negative_prompt": [kwargs["negative_prompt"]] * 2} if "negative_prompt" in kwargs else {}
