"""The table of set-ups in which a pipeline may run: traced, balanced or refused, and by which test.

A line names tests of this repository, and `table` raises if one of them does not exist, so that no promise outlives its test.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SETUPS", "Setup", "table"]

_TESTS = Path(__file__).parents[1] / "tests"
_T, _B = "tracing", "intervention/balancing"


@dataclass(frozen=True, slots=True)
class Setup:
    """One line: what is set up, what tracing and balancing do with it, and the tests that hold it.

    Attributes
    ----------
    name : str
        What is set up.
    traced, balanced : str
        ``yes``, ``refused``, or a sentence; empty if no test says.
    tests : tuple of str
        ``path::function`` below ``tests/``, without ``.py``.
    """

    name: str
    traced: str
    balanced: str
    tests: tuple[str, ...]


SETUPS = (
    Setup(
        "Weights offloaded, module by module or in groups",
        "yes",
        "",
        (f"{_T}/test_conditions::test_a_pipeline_with_hooks_of_its_own",),
    ),
    Setup("Layerwise casting to float8", "yes", "", (f"{_T}/test_conditions::test_a_pipeline_with_hooks_of_its_own",)),
    Setup(
        "float16, bfloat16",
        "yes",
        "yes",
        (f"{_T}/test_variants::test_half_precision", f"{_B}/test_injection::test_half_precision_pipelines"),
    ),
    Setup(
        "Autocast",
        "yes",
        "",
        (f"{_T}/test_tracing_runs::test_under_autocast_the_video_is_the_same_and_the_maps_are_those_of_the_kernel",),
    ),
    Setup(
        "Dynamic quantisation of torch",
        "yes",
        "",
        (f"{_T}/test_provenance::test_a_dynamically_quantised_denoiser_is_traced",),
    ),
    Setup("Fused projections", "yes", "", (f"{_T}/test_variants::test_fused_projections_give_the_same_maps",)),
    Setup(
        "`torch.compile`: the denoiser, its blocks, or `module.forward`",
        "yes, eagerly while traced",
        "",
        (
            f"{_T}/test_conditions::test_a_compiled_denoiser_runs_eagerly_while_traced_and_compiled_afterwards",
            f"{_T}/test_setups::test_a_forward_compiled_by_hand_runs_eagerly_while_traced",
        ),
    ),
    Setup(
        "Another attention backend of diffusers",
        "yes, with the kernel of torch while traced: the video may differ in its last bits, and `forced` says so",
        "",
        (f"{_T}/test_tracing_runs::test_a_backend_set_to_something_else_is_native_while_traced_and_then_put_back",),
    ),
    Setup(
        "A processor that bypasses torch",
        "refused",
        "",
        (f"{_T}/test_tracing_runs::test_attention_that_bypasses_torch_is_an_error_that_names_the_sites",),
    ),
    Setup(
        "Eager and sliced processors",
        "yes",
        "",
        (f"{_T}/test_tracing_runs::test_eager_and_sliced_processors_give_the_same_maps",),
    ),
    Setup("A processor that loops over heads", "yes", "", (f"{_T}/test_odd_calls::test_a_loop_over_heads_is_recorded_whole",)),
    Setup(
        "A processor that attends to two texts (NAG)",
        "refused",
        "",
        (f"{_T}/test_odd_calls::test_a_part_of_the_heads_and_two_texts_are_refused",),
    ),
    Setup("`nn.MultiheadAttention`", "yes", "", (f"{_T}/test_odd_calls::test_the_attention_module_of_torch_is_seen",)),
    Setup(
        "A cache of diffusers",
        "refused where it skips layers",
        "yes",
        (
            f"{_T}/test_setups::test_a_cache_is_refused_by_the_method_that_switches_it_off",
            f"{_B}/test_caches::test_watching_changes_no_bit_of_a_cached_run",
        ),
    ),
    Setup(
        "Skip-layer guidance",
        "yes",
        "",
        (f"{_T}/test_misuse::test_a_further_pass_of_a_step_does_not_replace_the_conditional_one",),
    ),
    Setup(
        "Guidance that ends early",
        "yes, `missing` names the steps without it",
        "",
        (f"{_T}/test_own_loops::test_guidance_that_ends_early_leaves_a_hole_that_is_named",),
    ),
    Setup(
        "A prompt by frame number",
        "refused for cross-attention",
        "",
        (f"{_T}/test_odd_calls::test_a_prompt_that_travels_through_the_frames_is_refused",),
    ),
    Setup(
        "FreeInit",
        "yes, the iteration that is kept",
        "",
        (f"{_T}/test_odd_calls::test_of_freeinit_the_iteration_that_is_kept_is_recorded",),
    ),
    Setup(
        "A long video in segments",
        "yes, with a `segment` coordinate",
        "",
        (f"{_T}/test_odd_calls::test_segments_are_a_coordinate_and_no_step_is_more_than_planned",),
    ),
    Setup("Modular Diffusers (Wan)", "yes", "", (f"{_T}/test_setups::test_a_modular_pipeline_is_traced_like_the_stock_one",)),
    Setup(
        "A class with a loop of its own",
        "yes",
        "",
        (f"{_T}/test_own_loops::test_a_class_with_a_loop_of_its_own_is_read_by_its_text",),
    ),
    Setup(
        "A loop without a pipeline call",
        "yes, if the prompts are encoded inside the trace or `passes=` is given",
        "",
        (
            f"{_T}/test_own_loops::test_a_loop_is_read_by_the_text_that_was_encoded_inside_the_trace",
            f"{_T}/test_own_loops::test_passes_name_the_branches_of_a_loop",
            f"{_T}/test_own_loops::test_two_passes_of_unknown_text_are_refused_and_both_are_named",
        ),
    ),
    Setup(
        "Another pipeline that shares the denoiser",
        "refused",
        "",
        (f"{_T}/test_own_loops::test_a_second_pipeline_that_shares_the_denoiser_is_refused",),
    ),
    Setup(
        "Image to video",
        "yes",
        "yes, the given image stays",
        (f"{_B}/test_given_cells::test_the_given_image_stays_and_the_rest_moves",),
    ),
)
"""All lines of the table."""


def table() -> str:
    """Return the table in Markdown.

    Raises
    ------
    LookupError
        If a line names a test that does not exist.
    """
    lines = ["| Set-up | Traced | Balanced | Tests |", "|---|---|---|---|"]
    for setup in SETUPS:
        for test in setup.tests:
            path, _, name = test.partition("::")
            if not re.search(rf"^def {name}\(", (_TESTS / f"{path}.py").read_text(encoding="utf-8"), re.MULTILINE):
                raise LookupError(f"expected the test {test} that the set-up {setup.name!r} names; there is none.")
        tests = "<br>".join(f"`{test.partition('::')[2]}`" for test in setup.tests)
        lines.append(f"| {setup.name} | {setup.traced} | {setup.balanced or 'not tested'} | {tests} |")
    return "\n".join(lines)
