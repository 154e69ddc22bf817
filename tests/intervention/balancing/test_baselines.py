"""Baselines under the interface of balancing: what they change is what they say, and nothing remains."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from vico_lens.errors import BalanceError, ConceptError, InputError
from vico_lens.intervention.balancing import balance, balance_report, best_of, compose, reweight
from vico_lens.testing.pipelines import TinyPipeline, tiny_pipeline

NAMES = ["red circle", "blue square"]
MODELS = ["animatediff-t2v", "wan21-t2v", "ltx-t2v"]


@pytest.fixture(scope="module", params=MODELS)
def tiny(request: pytest.FixtureRequest) -> Iterator[TinyPipeline]:
    made = tiny_pipeline(request.param)
    plain = made.run()
    yield made
    np.testing.assert_array_equal(made.run(), plain)
    assert "encode_prompt" not in vars(made.pipe)


def latents(tiny: TinyPipeline, **call: object) -> torch.Tensor:
    return tiny.call(output_type="latent", num_inference_steps=2, **call).frames


def test_weight_one_changes_nothing_and_more_changes_the_concepts_tokens(tiny: TinyPipeline) -> None:
    plain = latents(tiny)
    with reweight(tiny.pipe, NAMES, weight=1.0):
        torch.testing.assert_close(latents(tiny), plain)
    seen: list[torch.Tensor] = []
    module = next(iter(tiny.denoisers.values()))
    keep = lambda module, args, kwargs: seen.append(kwargs["encoder_hidden_states"])  # noqa: E731
    handle = module.register_forward_pre_hook(keep, with_kwargs=True)
    latents(tiny)
    with reweight(tiny.pipe, ["red circle"], weight=1.5) as session:
        moved = latents(tiny)
    handle.remove()
    assert not torch.equal(moved, plain)
    before, after = seen[0], seen[len(seen) // 2]
    changed = (before != after).any(-1).any(0).nonzero().flatten().tolist()
    assert 1 <= len(changed) < 10 and changed == list(range(changed[0], changed[-1] + 1))
    assert session.cost.extra_forwards == 0 and session.log.sizes["update"] == 0


def test_composing_the_prompt_itself_changes_nothing(tiny: TinyPipeline) -> None:
    plain = latents(tiny)
    with compose(tiny.pipe, [tiny.prompt]) as session:
        torch.testing.assert_close(latents(tiny), plain, rtol=1e-4, atol=1e-5)
    guided = session.cost.rows // 2
    assert session.cost.extra_rows == guided * (2 if session.cost.forwards == 4 else 1)


def test_composition_is_a_sum_of_directions(tiny: TinyPipeline) -> None:
    """Composing twice the same prompt doubles the direction away from the empty one, as twice the guidance does."""
    if tiny.name == "ltx-t2v":
        pytest.skip("LTX has no negative prompt by default but an empty one of its own length")
    doubled = latents(tiny, guidance_scale=10.0)
    with compose(tiny.pipe, [tiny.prompt] * 2):
        composed = latents(tiny, guidance_scale=5.0)
    torch.testing.assert_close(composed, doubled, rtol=1e-3, atol=1e-3)


def test_best_of_keeps_the_lowest_objective() -> None:
    tiny = tiny_pipeline("animatediff-t2v")
    call = {name: value for name, value in tiny.kwargs.items() if name != "generator"}
    best = best_of(tiny.pipe, NAMES, [3, 4], call=call)
    assert best.losses[best.seed] == min(best.losses.values()) and set(best.losses) == {3, 4}
    with balance(tiny.pipe, NAMES, preset="observe") as session:
        tiny.pipe(**call, generator=torch.Generator().manual_seed(best.seed))
    np.testing.assert_array_equal(session.video, best.video)
    assert best.cost.rows == 2 * session.cost.rows and best.cost.row_forwards == best.cost.rows + best.cost.extra_rows
    with pytest.raises(InputError, match="at least one seed"):
        best_of(tiny.pipe, NAMES, [], call=call)


def test_best_of_can_judge_seeds_early_and_finish_only_one() -> None:
    tiny = tiny_pipeline("animatediff-t2v")
    call = {name: value for name, value in tiny.kwargs.items() if name != "generator"}
    steps = call["num_inference_steps"]
    best = best_of(tiny.pipe, NAMES, [3, 4], call=call, look=1)
    with balance(tiny.pipe, NAMES, preset="observe") as session:
        tiny.pipe(**call, generator=torch.Generator().manual_seed(best.seed))
    np.testing.assert_array_equal(session.video, best.video)
    at_look = session.log.loss.where(session.log.step == 1, drop=True).item()
    assert best.losses[best.seed] == pytest.approx(at_look, rel=1e-6) == min(best.losses.values())
    assert best.cost.forwards == 2 * 1 + steps and best.cost.extra_forwards == 2
    with pytest.raises(InputError, match=r"expected steps of the sampling pass, 0 to \d+; got \[99\]"):
        best_of(tiny.pipe, NAMES, [3], call=call, look=99)


@pytest.mark.parametrize("look", [None, 1])
def test_best_of_can_balance_the_seed_it_chose(look: int | None) -> None:
    tiny = tiny_pipeline("animatediff-t2v")
    call = {name: value for name, value in tiny.kwargs.items() if name != "generator"}
    plain = best_of(tiny.pipe, NAMES, [3, 4], call=call, look=look)
    best = best_of(tiny.pipe, NAMES, [3, 4], call=call, look=look, then="default")
    assert best.losses == plain.losses and best.seed == plain.seed
    with balance(tiny.pipe, NAMES) as session:
        tiny.pipe(**call, generator=torch.Generator().manual_seed(best.seed))
    assert session.log.latent_change.max() > 0
    np.testing.assert_array_equal(session.video, best.video)
    assert best.cost.row_forwards > plain.cost.row_forwards


def test_baselines_have_a_report() -> None:
    tiny = tiny_pipeline("animatediff-t2v")
    with balance(tiny.pipe, NAMES, preset="observe") as plain:
        tiny.run()
    with compose(tiny.pipe, NAMES) as composed:
        tiny.run()
    report = balance_report(plain, composed)
    assert report.forwards.values.tolist() == [6, 12] and report.distance > 0
    assert report.attrs["baseline"] == "compose"


def test_what_cannot_be_done_is_an_error() -> None:
    tiny = tiny_pipeline("animatediff-t2v")
    with pytest.raises(InputError, match="list of at least one prompt"):
        compose(tiny.pipe, [])
    with pytest.raises(BalanceError, match="encode_prompt"):
        reweight(object(), NAMES)
    with pytest.raises(ConceptError, match="green"), reweight(tiny.pipe, ["green"]):
        tiny.run()
