"""From flat calls back to named axes, over random grids, heads, guidance, and masks of every kind."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from vico_lens.errors import TracingError
from vico_lens.kernels.softmax import attention
from vico_lens.kernels.stages import stages_from_calls
from vico_lens.store.forms import Former
from vico_lens.tracing.families import FAMILIES, Family, Forward, Rule, family_of, rule_for
from vico_lens.tracing.families.forwards import forward_of
from vico_lens.tracing.families.reader import MASKED, read
from vico_lens.tracing.raw_calls import Attended, RawCall
from vico_lens.vocabulary.schema import AttentionCall, AttentionSite

sizes = st.integers(1, 4)
FAMILY = Family("x", "X", ("X",), ("X",), ())


def attended(call: RawCall) -> Attended:
    return Attended("unet", "attn", nn.Identity(), False, [call])


def forward(batch: int, grid: tuple[int, int, int], text: int = 0) -> Forward:
    return Forward(nn.Identity(), {}, batch, (grid,), (text,))


@given(sizes, sizes, sizes, sizes, sizes, st.sampled_from(["spatial", "temporal", "temporal, columns outermost", "spacetime"]))
def test_self_attention_comes_back_on_its_axes(batch: int, heads: int, frames: int, rows: int, columns: int, kind: str) -> None:
    cells = torch.randn(batch, heads, frames, rows, columns, 2)
    rule = {
        "spatial": Rule("", "spatial", ("frame",)),
        "temporal": Rule("", "temporal", ("y", "x")),
        "temporal, columns outermost": Rule("", "temporal", ("x", "y")),
        "spacetime": Rule("", "spacetime"),
    }[kind]
    flat = {
        "spatial": cells.permute(0, 2, 1, 3, 4, 5).reshape(batch * frames, heads, rows * columns, 2),
        "temporal": cells.permute(0, 3, 4, 1, 2, 5).reshape(batch * rows * columns, heads, frames, 2),
        "temporal, columns outermost": cells.permute(0, 4, 3, 1, 2, 5).reshape(batch * rows * columns, heads, frames, 2),
        "spacetime": cells.reshape(batch, heads, frames * rows * columns, 2),
    }[kind]
    expected = cells.permute(0, 1, 3, 4, 2, 5) if kind.startswith("temporal") else cells
    call = RawCall(flat, 2 * flat, None, False, 0.5)
    wanted = list(range(batch))[::-1]
    parts = list(read(attended(call), rule, FAMILY, forward(batch, (frames, rows, columns)), wanted))
    assert [part.row for part in parts] == wanted
    for part in parts:
        assert part.query is not None and part.key is not None
        assert torch.equal(part.query, expected[part.row]) and torch.equal(part.key, 2 * expected[part.row])
        assert (part.grid, part.heads, part.head_size, part.tokens) == ((frames, rows, columns), heads, 2, 0)


@given(
    sizes, sizes, sizes, sizes, sizes, st.booleans(), st.sampled_from(["none", "bool", "additive", "causal"]), st.integers(0, 9)
)
def test_cross_attention_with_masks_gives_the_softmax_of_the_kernel(
    batch: int, heads: int, frames: int, cells: int, tokens: int, folded: bool, form: str, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    repeat = frames if folded else 1
    queries = cells if folded else frames * cells
    query = torch.randn(batch * repeat, heads, queries, 3, generator=generator)
    key = torch.randn(batch, heads, tokens, 3, generator=generator).repeat_interleave(repeat, 0)
    mask = None
    if form == "bool":
        mask = (torch.rand(batch, 1, 1, tokens, generator=generator) < 0.6).repeat_interleave(repeat, 0)
    elif form == "additive":
        mask = torch.randn(batch, heads, 1, tokens, generator=generator).repeat_interleave(repeat, 0)
        mask[..., :1] = -torch.inf
    call = RawCall(query, key, mask, form == "causal", 0.7)
    rule = Rule("", "cross", ("frame",) if folded else ())
    logits = query @ key.transpose(-1, -2) * 0.7
    if form == "causal":
        logits = logits.masked_fill(torch.ones(queries, tokens).triu(1).bool(), -torch.inf)
    elif mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf) if form == "bool" else logits + mask
    expected = logits.softmax(-1).nan_to_num(0)  # a row that sees nothing has no weights
    expected = expected.unflatten(0, (batch, repeat)).transpose(1, 2).reshape(batch, heads, frames, 1, cells, tokens)
    for part in read(attended(call), rule, FAMILY, forward(batch, (frames, 1, cells), tokens), range(batch)):
        assert part.query is not None and part.key is not None
        bias = torch.zeros(()) if part.bias is None else part.bias
        assert torch.isfinite(bias).all()
        weights = (torch.einsum("hfyxc,htc->hfyxt", part.query, part.key) * part.scale + bias).softmax(-1)
        hidden = (bias <= MASKED / 2).expand(weights.shape).all(-1, keepdim=True)
        torch.testing.assert_close(weights.masked_fill(hidden, 0), expected[part.row], atol=1e-6, rtol=0)


@given(st.sampled_from(["float64", "float32", "bfloat16", "float16", "bool"]), sizes, st.integers(1, 5), st.integers(0, 99))
def test_rows_that_a_mask_hides_altogether_are_as_in_torch(form: str, queries: int, keys: int, seed: int) -> None:
    """The lowest finite number leaves a uniform row, minus infinity and False leave none: kernel and definition say the same."""
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.float32 if form == "bool" else getattr(torch, form)
    query, key = (torch.randn(2, 2, size, 3, generator=generator, dtype=torch.float64).to(dtype) for size in (queries, keys))
    entry = torch.randint(3, (2, 1, queries, keys), generator=generator)
    entry[:, :, 0] = torch.randint(1, 3, (1,), generator=generator)  # a row of which nothing is left
    lowest = -torch.inf if form == "bool" else torch.finfo(dtype).min
    values = torch.tensor([0.0, lowest, -torch.inf], dtype=torch.float64)[entry]
    mask = values == 0 if form == "bool" else values.to(dtype)
    identity = torch.eye(keys, dtype=dtype).expand(2, 2, keys, keys)
    kernel = nn.functional.scaled_dot_product_attention(query, key, identity, mask, scale=0.7)
    definition = (query.double() @ key.double().mT * 0.7 + values).softmax(-1).nan_to_num(0)
    rounding = {"bfloat16": 8e-3, "float16": 4e-3}.get(form, 1e-6)  # sums beside the lowest float16 round logits to 1 / 256
    torch.testing.assert_close(kernel.double(), definition, atol=rounding, rtol=0)
    call = RawCall(query, key, mask, False, 0.7)
    for part in read(attended(call), Rule("", "cross"), FAMILY, forward(2, (1, 1, queries), keys), range(2)):
        assert part.query is not None and part.key is not None and part.bias is not None
        assert torch.isfinite(part.bias).all()
        weights = attention(part.query[:, 0, 0], part.key, part.scale, part.bias[:, 0, 0])
        torch.testing.assert_close(weights.double(), definition[part.row], atol=min(rounding, 4e-3), rtol=0)


def test_such_rows_are_kept_by_what_reads_and_stores_calls() -> None:
    query, key = torch.randn(1, 2, 4, 3), torch.randn(1, 2, 5, 3)
    mask = torch.zeros(4, 5)
    mask[0], mask[1, :2], mask[2, :4], mask[2, 4], mask[3] = 3 * (torch.finfo(torch.float32).min,) + 2 * (-torch.inf,)
    expected = (query[0].double() @ key[0].double().mT * 0.7 + mask.double()).softmax(-1).nan_to_num(0)
    assert expected[0, 0].tolist() == [0.2] * 5 and expected[0, 2].tolist() == [0.25] * 4 + [0] and not expected[:, 3].any()
    call = RawCall(query, key, mask, False, 0.7)
    (part,) = read(attended(call), Rule("", "cross"), FAMILY, forward(1, (1, 1, 4), 5), [0])
    site = AttentionSite("unet.attn", "cross", part.grid, 2, 3, 5, 0)
    live = AttentionCall(site, 0, 0.0, "cond", 0, part.query, part.key, part.scale, part.bias)
    (stage,) = stages_from_calls([live])
    dense, factored = (Former(form, "model", 5).take(live) for form in ("weights", "factors"))
    arrays = {name: torch.from_numpy(array) for name, (_, array) in factored.arrays().items()}
    found = {
        "live": (stage.weights[0], expected.mean(0)),
        "weights": (torch.from_numpy(dense.arrays()["weights"][1])[:, 0, 0], expected),
        "factors": (attention(arrays["query"][:, 0, 0], arrays["key"], factored.scale, arrays["bias"]), expected),
    }
    for name, (got, wanted) in found.items():
        torch.testing.assert_close(got.double(), wanted, atol=1e-6, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


@given(sizes, sizes, sizes, sizes, st.integers(1, 5), st.booleans(), st.booleans())
def test_a_joint_softmax_has_its_text_first(
    batch: int, heads: int, frames: int, cells: int, text: int, last: bool, masked: bool
) -> None:
    video = frames * cells
    first = torch.randn(batch, heads, text + video, 2)
    order = torch.arange(text + video).roll(video if last else 0)  # text behind the video where `last`
    order = torch.cat([torch.arange(text, text + video), torch.arange(text)]) if last else order
    keep = torch.ones(batch, 1, 1, text + video, dtype=torch.bool)
    keep[..., 0] = False
    call = RawCall(first[:, :, order], first[:, :, order], keep[..., order] if masked else None, False, 1.0)
    family = replace(FAMILY, text="last" if last else "first")
    for part in read(attended(call), Rule("", "joint"), family, forward(batch, (frames, 1, cells), text), range(batch)):
        assert part.query is not None and part.tokens == text
        assert torch.equal(part.query, first[part.row])
        if masked:
            assert part.bias is not None and (part.bias.flatten() == MASKED).tolist() == [True] + [False] * (text + video - 1)


@given(sizes, sizes, sizes, sizes)
def test_probabilities_unfold_like_operands(batch: int, heads: int, frames: int, cells: int) -> None:
    weights = torch.rand(batch, frames, heads, cells, cells)
    call = RawCall(None, None, None, False, 1.0, weights.reshape(batch * frames, heads, cells, cells))
    for part in read(attended(call), Rule("", "spatial", ("frame",)), FAMILY, forward(batch, (frames, 1, cells)), range(batch)):
        assert part.probabilities is not None and part.query is None
        assert part.probabilities.shape == (heads, frames, 1, cells, 1, cells)
        assert torch.equal(part.probabilities[:, :, 0, :, 0], weights[part.row].transpose(0, 1))


def test_sizes_that_do_not_fit_are_an_error_with_the_site_and_the_sizes() -> None:
    call = RawCall(torch.randn(2, 1, 16, 2), torch.randn(2, 1, 16, 2), None, False, 1.0)
    with pytest.raises(TracingError, match=r"unet\.attn \(spatial\).*grid 4x2x2.*batch 2 and 16 queries"):
        list(read(attended(call), Rule("", "spatial", ("frame",)), FAMILY, forward(1, (4, 2, 2)), [0]))
    call = RawCall(torch.randn(1, 1, 16, 2), torch.randn(1, 1, 7, 2), None, False, 1.0)
    with pytest.raises(TracingError, match="the 5 text tokens that the denoiser was given"):
        list(read(attended(call), Rule("", "cross"), FAMILY, forward(1, (4, 2, 2), 5), [0]))


def test_a_unet_halves_its_grid_rounding_up_and_offers_every_level() -> None:
    class UNet(nn.Module):
        config = {"block_out_channels": (8, 16, 32)}  # noqa: RUF012

        def forward(self, sample: Tensor, timestep: int, encoder_hidden_states: Tensor) -> None: ...

    args = (torch.zeros(2, 4, 5, 9, 6), 3, torch.zeros(10, 7, 8))
    seen = forward_of(FAMILIES["animatediff"], UNet(), args, {})
    assert seen.grids == ((5, 9, 6), (5, 5, 3), (5, 3, 2))
    assert (seen.batch, seen.texts) == (2, (7,))


def test_temporal_attention_is_not_taken_for_cross_attention_by_its_name() -> None:
    path = "down_blocks.0.motion_modules.0.transformer_blocks.0.attn2"
    rule = rule_for(FAMILIES["animatediff"], path)
    assert rule is not None and rule.kind == "temporal"
    rule = rule_for(FAMILIES["text-to-video-sd"], "down_blocks.0.temp_attentions.0.transformer_blocks.0.attn2")
    assert rule is not None and rule.kind == "temporal"


def test_a_pipeline_of_ones_own_around_a_known_denoiser_is_known() -> None:
    class LatteTransformer3DModel(nn.Module): ...

    class Mine:
        transformer = LatteTransformer3DModel()

    assert family_of(Mine()).name == "latte"
    with pytest.raises(TracingError, match=r"vico_lens\.families"):
        family_of(object())
