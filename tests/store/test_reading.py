"""Reading functions against plain arithmetic on eager weights, on lazy traces."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vico_lens.errors import ConceptError, InputError
from vico_lens.store.reading import concept_maps, coverage, region_sum, temporal_matrix
from vico_lens.store.writer import TraceWriter
from vico_lens.testing.traces import blobs, fake_calls, fake_sites, fake_tokens, fake_trace, record
from vico_lens.vocabulary.concepts import find_concepts

CONCEPTS = ["red circle", "blue square"]


@pytest.mark.parametrize("family", ["unet", "spacetime", "joint"])
def test_concept_maps_are_means_over_layers_and_heads(family: str) -> None:
    eager = fake_trace(family, coarse=None)  # type: ignore[arg-type]
    maps = concept_maps(fake_trace(family, coarse=None, form="factors"), CONCEPTS)  # type: ignore[arg-type]
    weights = eager["joint/4x4x4"].video_text if family == "joint" else eager["cross/4x4x4"].weights
    for number, concept in enumerate(find_concepts(eager, CONCEPTS)):
        expected = weights.values[..., list(concept.tokens)].sum(-1).mean((1, 2))
        np.testing.assert_allclose(maps.values[number], expected, atol=1e-6)
    assert maps.dims == ("concept", "step", "frame", "y", "x")


def test_other_grids_are_brought_to_one_by_area() -> None:
    tree = fake_trace()
    only_coarse = concept_maps(tree, CONCEPTS, step=1, layers="cross/4x2x2", size=(4, 4, 4))
    coarse = concept_maps(tree, CONCEPTS, step=1, layers="cross/4x2x2")
    np.testing.assert_allclose(only_coarse.values, coarse.values.repeat(2, 2).repeat(2, 3), atol=1e-6)
    fine = concept_maps(tree, CONCEPTS, step=1, layers="*blocks.0*")
    np.testing.assert_allclose(concept_maps(tree, CONCEPTS, step=1).values, (fine + only_coarse).values / 2, atol=1e-6)


def test_video_size_heads_branch_and_prompt() -> None:
    tree = fake_trace(prompt=["a red circle", "a dog"], branches=("cond", "uncond"), video=True, coarse=None, blocks=1)
    maps = concept_maps(tree, ["dog"], step=0, heads=[1], branch="uncond", prompt=1, size="video")
    assert maps.shape == (1, 4, 16, 16)
    token = find_concepts(tree, ["dog"], prompt=1)[0].tokens[0]
    expected = tree["cross/4x4x4"].weights.values[0, 1, 1, 0, 1, ..., token]
    np.testing.assert_allclose(maps.values[0, :, ::4, ::4], expected, atol=1e-6)


def test_maps_find_the_blobs() -> None:
    """Text tokens of the first half of the prompt name the first blob, those of the second the other."""
    maps = concept_maps(fake_trace(head_size=16), CONCEPTS, step=0)
    truth = blobs((4, 16, 16)) > 0.5
    inside = [[float(region_sum(maps[c], truth[..., blob], share=True).mean()) for blob in (0, 1)] for c in (0, 1)]
    assert inside[0][0] > inside[0][1]
    assert inside[1][1] > inside[1][0]


@pytest.mark.parametrize("family", ["unet", "spacetime", "joint"])
def test_temporal_matrix(family: str) -> None:
    eager = fake_trace(family, coarse=None)  # type: ignore[arg-type]
    lazy = fake_trace(family, coarse=None, form="factors")  # type: ignore[arg-type]
    matrix = temporal_matrix(lazy, (0.3, 0.8), step=1)
    if family == "unet":
        expected = eager["temporal/4x4x4"].weights.values[1, :, :, 1, 3].mean((0, 1))
    else:
        whole = eager["joint/4x4x4"].video_video if family == "joint" else eager["spacetime/4x4x4"].weights
        expected = whole.values[1, :, :, :, 1, 3].sum((-1, -2)).mean((0, 1))
    np.testing.assert_allclose(matrix.values, expected, atol=1e-6)
    assert temporal_matrix(lazy).dims == ("step", "frame", "key_frame")


def test_region_may_be_a_pixel_mask() -> None:
    maps = concept_maps(fake_trace(coarse=None), CONCEPTS, step=0)
    left = np.zeros((32, 32), bool)
    left[:, :16] = True
    np.testing.assert_allclose(region_sum(maps, left).values, maps.values[..., :2].sum((-1, -2)), rtol=1e-5)
    np.testing.assert_allclose(region_sum(maps, torch.ones(4, 7, 5), share=True).values, 1.0)


def test_coverage_lists_sites_and_reasons() -> None:
    tree = fake_trace("spacetime")
    tree.attrs["coverage"] = '{"seen": 5, "recorded": 4, "left_out": {"transformer.pooler": "pools text"}}'
    table = coverage(tree)
    assert table.module.values.tolist()[:2] == ["denoiser.blocks.0.attn1", "denoiser.blocks.0.attn2"]
    assert table.recorded.values.tolist() == [True] * 4 + [False]
    assert (table.reason.values[-1], table.group.values[-1]) == ("pools text", "")


def test_what_cannot_be_read_is_said() -> None:
    tree = fake_trace("spacetime")
    with pytest.raises(InputError, match=r"steps: expected one or more of \[0, 1\].*got 7"):
        concept_maps(tree, CONCEPTS, step=7)
    with pytest.raises(InputError, match=r"layers='\*up\*' selects none of the 2 usable sites"):
        concept_maps(tree, CONCEPTS, layers="*up*")
    with pytest.raises(ConceptError):
        concept_maps(tree, ["elephant"])
    with pytest.raises(InputError, match=r"heads: expected one or more of \[0, 1\].*got 5"):
        concept_maps(tree, CONCEPTS, heads=[5])
    with pytest.raises(InputError, match="fractions of the picture"):
        temporal_matrix(tree, (3, 4))
    with pytest.raises(InputError, match="'video' if the trace keeps it"):
        concept_maps(tree, CONCEPTS, size="video")


def test_concepts_may_be_named_with_their_tokens() -> None:
    tree = fake_trace()
    named = {concept.name: concept.tokens for concept in find_concepts(tree, CONCEPTS)}
    np.testing.assert_array_equal(concept_maps(tree, named), concept_maps(tree, CONCEPTS))
    assert [(concept.name, concept.tokens) for concept in find_concepts(tree, {"mine": [2, 5]})] == [("mine", (2, 5))]
    with pytest.raises(InputError, match=r"concept 'mine': expected one or more token indices in 0\.\.19; got \[20\]"):
        concept_maps(tree, {"mine": [20]})


def test_a_layer_that_a_step_lacks_is_not_left_out_in_silence() -> None:
    sites, tokens = fake_sites("unet"), [fake_tokens("a red circle")]
    gone = [site for site in sites if site.kind in ("cross", "temporal")][:2]
    calls = [*fake_calls(sites, *tokens, step=0), *fake_calls([site for site in sites if site not in gone], *tokens, step=1)]
    tree = record(TraceWriter(None), calls, tokens, {"prompt": "a red circle"}, steps=[0, 1])
    for read, site in zip((lambda: concept_maps(tree, ["red circle"]), lambda: temporal_matrix(tree)), gone, strict=True):
        with pytest.warns(UserWarning, match=f"leaves out 1 calls that were not recorded: {site.module} at step 1"):
            read()
    concept_maps(tree, ["red circle"], step=0)
