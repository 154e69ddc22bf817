"""Balancing around stock pipeline calls: what moves, what is logged, what is left alone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from vico_lens.attribution import attribute
from vico_lens.errors import BalanceError, ConceptError, InputError
from vico_lens.intervention.balancing import (
    Balance,
    Equal,
    FixedRms,
    Influences,
    Objective,
    RandomDirection,
    Schedule,
    Verdict,
    Weakest,
    balance,
    presets,
)
from vico_lens.testing.pipelines import TinyPipeline, tiny_pipeline
from vico_lens.tracing.capture import Capture
from vico_lens.tracing.recording import trace
from vico_lens.vocabulary.concepts import Concept

NAMES = ["red circle", "blue square"]
ALWAYS = Schedule(stop=1.0, iterations=2)


@pytest.fixture(scope="module")
def tiny() -> TinyPipeline:
    return tiny_pipeline("animatediff-t2v")


@pytest.fixture(scope="module")
def plain(tiny: TinyPipeline) -> np.ndarray:
    return tiny.run()


def balanced(tiny: TinyPipeline, concepts: Any = NAMES, **settings: Any) -> tuple[Balance, np.ndarray]:
    with balance(tiny.pipe, concepts, **{"step": FixedRms(0.02), "schedule": ALWAYS, **settings}) as session:
        frames = tiny.run()
    return session, frames


@pytest.mark.parametrize("objective", ["equal", "weakest", "variance", "attend_and_excite", "directed"])
def test_objective_goes_down_on_the_moved_latents(tiny: TinyPipeline, plain: np.ndarray, objective: str) -> None:
    session, frames = balanced(tiny, objective=objective, step=FixedRms(0.001))
    log = session.log
    assert log.loss.dtype == float and log.sizes == {"update": 6, "concept": 2}
    first, second = log.where(log.iteration == 0, drop=True), log.where(log.iteration == 1, drop=True)
    assert (second.loss.values < first.loss.values).all()
    assert np.isfinite(log.gradient_norm).all() and (log.gradient_norm > 0).all()
    np.testing.assert_allclose(log.latent_change, 0.001, rtol=1e-4)
    assert log.stop.values.tolist() == ["", "iterations"] * 3
    assert not np.array_equal(frames, plain)
    np.testing.assert_array_equal(tiny.run(), plain)


def test_log_says_what_the_latents_did(tiny: TinyPipeline) -> None:
    session, frames = balanced(tiny)
    log = session.log
    assert log.step.values.tolist() == [0, 0, 1, 1, 2, 2]
    assert log.timestep.values.tolist() == [666, 666, 333, 333, 0, 0]
    np.testing.assert_allclose(log.share.sum("concept"), 1)
    assert log.concept.values.tolist() == NAMES
    last = log.applied_change.values[1::2]
    assert ((last > 0.02) & (last <= 0.0401)).all() and np.isnan(log.applied_change.values[::2]).all()
    assert log.attrs["objective"].startswith("Directed(") and log.attrs["extra_forwards"] == log.attrs["backwards"] == 6
    assert (log.attrs["forwards"], log.attrs["rows"], log.attrs["extra_rows"]) == (3, 6, 6)
    np.testing.assert_array_equal(session.video, (np.clip(frames[0], 0, 1) * 255).round().astype(np.uint8))


def test_what_is_balanced_is_what_attribution_reports(tiny: TinyPipeline, plain: np.ndarray) -> None:
    """One kernel, two faces: influences of the running call equal those of its trace; and the trace sees the stock calls
    alone."""
    with (
        trace(tiny.pipe, capture=Capture(dtype="float32")) as run,
        balance(tiny.pipe, NAMES, preset="observe", flow="subgraph_flow", kind="sum") as session,
    ):
        frames = tiny.run()
    np.testing.assert_array_equal(frames, plain)
    stored = attribute(run.tree, "subgraph_flow", concepts=NAMES, kind="sum", steps=[0, 1, 2]).mean(("frame", "y", "x"))
    live = session.log.influence.swap_dims(update="step")
    np.testing.assert_allclose(live, stored.transpose("step", "concept"), rtol=1e-4)
    assert (session.log.stop == "observed").all() and session.cost.backwards == 0


@pytest.mark.parametrize("outer", ["trace", "balance"])
def test_a_trace_around_or_inside_records_the_balanced_run(tiny: TinyPipeline, outer: str) -> None:
    session, frames = balanced(tiny)
    recorder = trace(tiny.pipe, capture=Capture(kinds="cross", dtype="float32"))
    balancer = balance(tiny.pipe, NAMES, step=FixedRms(0.02), schedule=ALWAYS)
    first, second = (recorder, balancer) if outer == "trace" else (balancer, recorder)
    with first, second:
        again = tiny.run()
    np.testing.assert_array_equal(again, frames)
    assert recorder.tree.step.values.tolist() == [0, 1, 2]
    np.testing.assert_allclose(balancer.log.loss, session.log.loss, rtol=1e-6)


def test_balancers_nest(tiny: TinyPipeline, plain: np.ndarray) -> None:
    with balance(tiny.pipe, NAMES, preset="observe") as outside:
        _, frames = balanced(tiny)
        with balance(tiny.pipe, NAMES, preset="observe") as inside:
            tiny.run()
    assert outside.log.sizes["update"] == 6 and inside.log.sizes["update"] == 3
    np.testing.assert_allclose(outside.log.loss[0], inside.log.loss[0], rtol=1e-6)
    np.testing.assert_array_equal(balanced(tiny)[1], frames)


def test_forward_ends_after_the_last_site_that_is_read(tiny: TinyPipeline) -> None:
    ends: list[int] = []
    handle = tiny.pipe.unet.conv_out.register_forward_hook(lambda *ignored: ends.append(1))
    session, _ = balanced(tiny, layers="*down_blocks*")
    handle.remove()
    # The pipeline's own three forwards, and the first of the update's six, which counts the sites.
    assert len(ends) == 4 and session.cost.extra_forwards == 6


def test_early_end_changes_no_number(tiny: TinyPipeline) -> None:
    cut = balanced(tiny, layers="*down_blocks*")[0].log
    session = balance(tiny.pipe, NAMES, step=FixedRms(0.02), schedule=ALWAYS, layers="*down_blocks*", checkpointing=True)
    with session:
        tiny.run()
    np.testing.assert_allclose(session.log.loss, cut.loss, rtol=1e-5)
    np.testing.assert_allclose(session.log.gradient_norm, cut.gradient_norm, rtol=1e-3)


def test_weights_and_blocks_are_as_before(tiny: TinyPipeline) -> None:
    unet = tiny.pipe.unet
    unet.requires_grad_(True)
    try:
        balanced(tiny, checkpointing=True)
        assert all(weight.requires_grad and weight.grad is None for weight in unet.parameters())
        assert not unet.is_gradient_checkpointing
    finally:
        unet.requires_grad_(False)


def test_checkpointing_is_refused_where_there_is_none() -> None:
    with pytest.raises(BalanceError, match="no gradient checkpointing"):
        balance(tiny_pipeline("zeroscope-t2v").pipe, NAMES, checkpointing=True)


def test_random_direction_is_a_null_of_the_same_size(tiny: TinyPipeline) -> None:
    log = balanced(tiny, step=RandomDirection(FixedRms(0.02), seed=1))[0].log
    np.testing.assert_allclose(log.latent_change, 0.02, rtol=1e-4)
    again = balanced(tiny, step=RandomDirection(FixedRms(0.02), seed=1))[0].log
    np.testing.assert_array_equal(again.loss, log.loss)
    aimed = balanced(tiny)[0].log
    assert aimed.loss[-1] < log.loss[-1]


@pytest.mark.parametrize(
    ("schedule", "reason", "moves"),
    [
        (Schedule(stop=1.0, iterations=5, threshold=10.0), "threshold", 0),
        (Schedule(stop=1.0, iterations=5, plateau=10.0), "plateau", 3),
        (Schedule(stop=1.0, iterations=5, cost_cap=1.67), "cost cap", 2),
        (Schedule(steps=[1], iterations=1), "iterations", 1),
    ],
)
def test_every_stop_has_its_reason(tiny: TinyPipeline, schedule: Schedule, reason: str, moves: int) -> None:
    log = balanced(tiny, schedule=schedule)[0].log
    assert reason in log.stop.values
    assert int((log.latent_change > 0).sum()) == moves


def test_a_loss_that_still_falls_is_on_no_plateau(tiny: TinyPipeline) -> None:
    log = balanced(tiny, objective="equal", step=FixedRms(0.001), schedule=Schedule(stop=1.0, iterations=3, plateau=0.0))[0].log
    assert log.iteration.values.tolist() == [0, 1, 2] * 3
    assert (np.diff(log.loss.values.reshape(3, 3)) < 0).all() and "plateau" not in log.stop.values


def test_a_cost_cap_is_kept(tiny: TinyPipeline) -> None:
    """Nothing is spent past it, not even on evaluations; a cap of the plain cost leaves the call alone, and says so."""
    for cap, forwards in ((1.67, 2), (1.0, 0)):
        with nullcontext() if forwards else pytest.warns(UserWarning, match="moved nothing"):
            session, _ = balanced(tiny, schedule=Schedule(stop=1.0, iterations=1, cost_cap=cap))
        assert session.cost.extra_forwards == session.cost.backwards == forwards
        assert session.cost.row_forwards <= cap * session.cost.rows


def test_a_call_of_one_step_says_that_nothing_moved(tiny: TinyPipeline) -> None:
    with pytest.warns(UserWarning, match=r"moved nothing.*covers none of the denoising steps"), balance(tiny.pipe, NAMES) as one:
        frames = tiny.run(num_inference_steps=1)
    np.testing.assert_array_equal(frames, tiny.run(num_inference_steps=1))
    assert one.log.sizes["update"] == 0


def test_a_session_says_what_it_is(tiny: TinyPipeline) -> None:
    session, _ = balanced(tiny)
    expected = "<Balance of AnimateDiffPipeline: Directed over cross_attention, 6 updates in 1 sampling passes>"
    assert repr(session) == expected


def test_one_concept_is_left_alone(tiny: TinyPipeline, plain: np.ndarray) -> None:
    session, frames = balanced(tiny, ["red circle"])
    np.testing.assert_array_equal(frames, plain)
    assert session.log.stop.values.tolist() == ["one concept"] and session.cost.backwards == 0


@pytest.mark.parametrize("prompt", ["moving", ""])
def test_a_prompt_without_concepts_is_left_alone_unless_they_are_named(tiny: TinyPipeline, prompt: str) -> None:
    with balance(tiny.pipe) as session:
        frames = tiny.run(prompt=prompt)
    np.testing.assert_array_equal(frames, tiny.run(prompt=prompt))
    assert session.log.stop.values.tolist() == ["no concept"] and session.log.sizes["concept"] == session.cost.backwards == 0
    for settings in ({"concepts": NAMES}, {"preset": "observe"}):
        with pytest.raises(ConceptError), balance(tiny.pipe, **settings):
            tiny.run(prompt=prompt)


def test_words_that_neither_balance_nor_its_flow_knows_are_refused_at_once(tiny: TinyPipeline) -> None:
    with pytest.raises(
        InputError, match=r"arguments of balance \(objective, .*flow cross_attention \(rho.*got strength.*FixedRms"
    ):
        balance(tiny.pipe, NAMES, strength=3)
    with pytest.raises(InputError, match=r"flow subgraph_flow \(kind, .*got temperature"):
        balance(tiny.pipe, NAMES, flow="subgraph_flow", temperature=1.0)
    assert balance(tiny.pipe, NAMES, flow="rollout", rho=0.3, residual="add").settings["flow"].options["rho"] == 0.3


@pytest.mark.parametrize(("size", "iterations"), [(1e20, 1), (1e20, 2), (1e30, 1), (1e30, 2)])
def test_a_step_that_is_too_large_is_named(tiny: TinyPipeline, size: float, iterations: int) -> None:
    with pytest.raises(BalanceError, match=r"updates were too large: .*ower the size of the step rule"):
        balanced(tiny, step=FixedRms(size), schedule=Schedule(stop=1.0, iterations=iterations))


def test_random_directions_belong_to_clips_and_not_to_batches(tiny: TinyPipeline) -> None:
    """Two seeds in one call are moved as each on its own, at every step, and differently from each other."""

    class Kept:
        def __init__(self) -> None:
            self.moves: list[torch.Tensor] = []

        def start(self, step: int, steps: int, clips: Sequence[int] = ()) -> Any:
            move = RandomDirection(FixedRms(0.02)).start(step, steps, clips)
            return lambda gradient: self.moves.append(move(gradient)) or self.moves[-1]

    def moves(prompts: list[str], seeds: list[int]) -> torch.Tensor:
        kept = Kept()
        with balance(tiny.pipe, NAMES if len(prompts) == 1 else [NAMES], step=kept, schedule=ALWAYS):
            tiny.run(prompt=prompts, generator=[torch.Generator().manual_seed(seed) for seed in seeds])
        return torch.stack(kept.moves)

    both = moves([tiny.prompt] * 2, [0, 1])
    for row, seed in enumerate((0, 1)):
        torch.testing.assert_close(both[:, row : row + 1], moves([tiny.prompt], [seed]))
    likeness = torch.nn.functional.cosine_similarity(both[:, 0].flatten(1), both[:, 1].flatten(1))
    assert float(likeness.abs().max()) < 0.2


def test_concepts_are_found_where_none_are_named(tiny: TinyPipeline) -> None:
    session, _ = balanced(tiny, None)
    assert session.log.concept.values.tolist() == NAMES


def test_concepts_not_in_the_prompt_are_an_error(tiny: TinyPipeline, plain: np.ndarray) -> None:
    with pytest.raises(ConceptError, match="green triangle"):
        balanced(tiny, ["red circle", "green triangle"])
    np.testing.assert_array_equal(tiny.run(), plain)


def test_embeddings_need_concepts_with_tokens(tiny: TinyPipeline) -> None:
    embeddings, negative = tiny.pipe.encode_prompt(tiny.prompt, "cpu", 1, True)
    given = {"prompt": None, "prompt_embeds": embeddings, "negative_prompt_embeds": negative}
    with pytest.raises(ConceptError, match="expected a prompt"), balance(tiny.pipe, NAMES):
        tiny.run(**given)
    named = balanced(tiny)[0].log
    concepts = [Concept("red circle", (2, 3), (2, 12)), Concept("blue square", (8, 9), (0, 0))]
    with balance(tiny.pipe, concepts, step=FixedRms(0.02), schedule=ALWAYS) as session:
        tiny.run(**given)
    assert session.log.concept.values.tolist() == NAMES
    assert session.log.sizes == named.sizes


def test_prompts_of_a_batch_have_their_own_concepts() -> None:
    tiny = tiny_pipeline("ltx-t2v")
    prompts = ["a red circle moving right and a blue square moving up", "a blue square"]
    with balance(tiny.pipe, [NAMES, ["blue square"]], flow="cross_attention", step=FixedRms(0.02), schedule=ALWAYS) as session:
        tiny.run(prompt=prompts, num_inference_steps=2)
    log = session.log
    assert log.stop.where(log.video == 1, drop=True).values.tolist() == ["one concept"]
    assert (log.latent_change.values > 0).tolist() == (log.video == 0).values.tolist()
    with balance(tiny.pipe, [NAMES, ["blue", "square"]], flow="cross_attention", step=FixedRms(0.02), schedule=ALWAYS) as session:
        tiny.run(prompt=prompts, num_inference_steps=2)
    second = session.log.where(session.log.video == 1, drop=True)
    assert second.influence.sel(concept="red circle").isnull().all() and second.influence.sel(concept="square").notnull().all()
    with pytest.raises(InputError, match="each of 2 different prompts"), balance(tiny.pipe, [NAMES]):
        tiny.run(prompt=prompts)


class _Constant:
    """An objective without a gradient: zero everywhere, or none at all."""

    per_token: ClassVar[bool] = False
    flow: ClassVar[str | None] = None

    def __init__(self, factor: float | None) -> None:
        self.factor = factor

    def __call__(self, influences: Influences) -> Verdict:
        total = influences.concepts.sum()
        return Verdict(
            torch.tensor(1.0) if self.factor is None else 1 + self.factor * total, influences.concepts.flatten(1).sum(1)
        )


@pytest.mark.parametrize(
    ("factor", "message"),
    [(0.0, "is zero"), (None, "does not depend on the latents"), (float("nan"), "got NaN"), (1e38, "not finite")],
)
def test_useless_gradients_are_errors(tiny: TinyPipeline, plain: np.ndarray, factor: float | None, message: str) -> None:
    objective: Objective = _Constant(factor)
    with pytest.raises(BalanceError, match=message):
        balanced(tiny, objective=objective)
    np.testing.assert_array_equal(tiny.run(), plain)


def test_a_loss_of_zero_is_left_alone(tiny: TinyPipeline, plain: np.ndarray) -> None:
    """The published loss is cut off at zero, where its gradient is zero too: that is success and no error."""

    class Satisfied(_Constant):
        def __call__(self, influences: Influences) -> Verdict:
            return Verdict(0 * influences.concepts.sum(), influences.concepts.flatten(1).sum(1))

    session, frames = balanced(tiny, objective=Satisfied(0.0))
    assert session.log.stop.values.tolist() == ["reached"] * 3 and session.cost.backwards == 0
    np.testing.assert_array_equal(frames, plain)


def test_settings_that_do_not_fit_are_refused(tiny: TinyPipeline) -> None:
    with pytest.raises(InputError, match="defined on it alone"):
        balance(tiny.pipe, NAMES, objective="attend_and_excite", flow="subgraph_flow")
    with pytest.raises(InputError, match="unknown balancing objective 'weekest': did you mean 'weakest'"):
        balance(tiny.pipe, NAMES, objective="weekest")
    with pytest.raises(InputError, match="expected a flow with a gradient"):
        balance(tiny.pipe, NAMES, flow="leave_one_out")


def test_target_shares_pull_apart(tiny: TinyPipeline) -> None:
    """The same start, pulled towards nine to one and towards one to nine."""
    one_step = Schedule(steps=[0], iterations=5)
    towards = [
        balanced(tiny, objective=Equal(targets=target), schedule=one_step)[0].log.share[-1, 0] for target in ((9, 1), (1, 9))
    ]
    assert towards[0] > towards[1]


def test_vico_preset_is_parity_where_there_is_temporal_attention(tiny: TinyPipeline) -> None:
    with balance(tiny.pipe, NAMES, preset="vico") as session:
        tiny.run(num_inference_steps=4)
    log = session.log
    assert isinstance(presets["vico"].step.rate, float)  # type: ignore[attr-defined]
    assert set(log.step.values.tolist()) == {0, 1}
    np.testing.assert_allclose(log.latent_change[0], 1e-4 if log.latent_change[0] > 0 else 0, rtol=0.05)
    assert "'parity': True" in log.attrs["flow"] and "Weakest" in log.attrs["objective"]
    np.testing.assert_allclose(log.loss, 1 - log.strength.min("concept"), rtol=1e-6)
    assert isinstance(Weakest(), Weakest)


def test_a_session_entered_again_looks_each_prompt_up_anew(tiny: TinyPipeline) -> None:
    session = balance(tiny.pipe, preset="observe")
    prompts = ("a red circle and a blue square", "a small green triangle moving up, then a yellow circle")
    for prompt in prompts:
        with session:
            tiny.run(prompt=prompt)
    fresh = balance(tiny.pipe, preset="observe")
    with fresh:
        tiny.run(prompt=prompts[1])
    second = session.log.where(session.log.run == 1, drop=True)
    np.testing.assert_allclose(second.loss, fresh.log.loss, rtol=1e-6)
    found = second.influence.dropna("concept", how="all").concept.values.tolist()
    assert found == fresh.log.concept.values.tolist() != session.log.concept.values.tolist()


def test_a_session_inside_itself_is_refused_and_leaves_nothing_behind(tiny: TinyPipeline) -> None:
    session = balance(tiny.pipe, NAMES)
    with pytest.raises(BalanceError, match="not entered already"), session, session:
        pass
    assert "prepare_latents" not in tiny.pipe.__dict__ and not tiny.pipe.unet._forward_pre_hooks


def test_one_name_is_one_concept(tiny: TinyPipeline) -> None:
    with balance(tiny.pipe, "red circle", preset="observe") as session:
        tiny.run()
    assert session.log.concept.values.tolist() == ["red circle"]


def test_steps_that_no_pass_reaches_are_refused(tiny: TinyPipeline) -> None:
    with pytest.raises(InputError, match=r"expected steps of the sampling pass, 0 to 2; got \[99\], none of them"):
        balanced(tiny, schedule=Schedule(steps=(99,)))


@pytest.mark.parametrize(
    ("verdict", "found"),
    [
        (lambda maps: Verdict(maps.flatten(1).sum(1), maps.flatten(1).sum(1)), r"Verdict with \(2,\) and \(2,\)"),
        (lambda maps: Verdict(1.0, maps.flatten(1).sum(1)), r"Verdict with float and \(2,\)"),
        (lambda maps: Verdict(maps.sum(), torch.ones(5)), r"Verdict with \(\) and \(5,\)"),
        (lambda maps: maps.sum(), "Tensor with NoneType and NoneType"),
    ],
)
def test_what_is_no_verdict_is_told_apart(tiny: TinyPipeline, verdict: Any, found: str) -> None:
    class Own:
        per_token: ClassVar[bool] = False
        flow: ClassVar[str | None] = None

        def __call__(self, influences: Influences) -> Verdict:
            return verdict(influences.concepts)

    with pytest.raises(BalanceError, match=f"expected Own to return a Verdict of a scalar loss and 2 strengths.*{found}"):
        balanced(tiny, objective=Own())


def test_a_session_whose_pipeline_was_never_called_is_an_error_and_not_an_unbalanced_video(tiny: TinyPipeline) -> None:
    another = tiny_pipeline("animatediff-t2v")
    with pytest.raises(BalanceError, match=r"denoiser \(unet\) never ran: call the same pipe object"), balance(tiny.pipe, NAMES):
        another.run()
    with pytest.raises(KeyError), balance(tiny.pipe, NAMES):  # the caller's own error is not hidden
        raise KeyError
