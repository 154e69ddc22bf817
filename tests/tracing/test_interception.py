"""The mode and the hooks on small modules: what is seen, what is left unchanged, and what remains (nothing)."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.nn.functional import scaled_dot_product_attention as imported_under_another_name
from torch.utils.checkpoint import checkpoint

from vico_lens.errors import TracingError
from vico_lens.tracing.interception import intercept, suspended
from vico_lens.tracing.raw_calls import Attended


class Attention(nn.Module):
    """Attention with projections, fused, eager or sliced."""

    def __init__(self, form: str = "fused", heads: int = 2, width: int = 8) -> None:
        super().__init__()
        self.form, self.heads = form, heads
        self.to_q, self.to_k = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor, fail: type[BaseException] | None = None) -> Tensor:
        query, key = (layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.to_q, self.to_k))
        if self.form == "fused":
            out = imported_under_another_name(query, key, key)
        else:
            query, key = query.flatten(0, 1), key.flatten(0, 1)
            scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
            if self.form == "eager":
                probabilities = scores.softmax(dim=-1)
            elif self.form == "sliced":
                probabilities = torch.cat([torch.softmax(part, -1) for part in scores.split(3)])
            else:  # pieces that make up no whole
                probabilities = torch.stack([nn.functional.softmax(scores[:, :, :2], -1), scores[:, :, :2].softmax(-1)]).sum(0)
                key = key[:, :2]
            out = (probabilities @ key).unflatten(0, (len(x), self.heads))
        if fail is not None:
            raise fail("in the middle of a forward")
        return x + out.transpose(1, 2).flatten(2)


class Root(nn.Module):
    def __init__(self, *forms: str) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Attention(form) for form in forms or ("fused",))

    def forward(self, x: Tensor, **kwargs: Any) -> Tensor:
        for block in self.blocks:
            x = block(x, **kwargs)
        return x


class Notes:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.runs: list[Attended] = []
        self.events: list[str] = []

    def enter(self, denoiser: str, root: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.events.append(f"enter {denoiser}")

    def attended(self, run: Attended) -> None:
        run.join()
        self.runs.append(run)

    def leave(self, denoiser: str, *, failed: bool) -> None:
        self.events.append(f"{'fail' if failed else 'leave'} {denoiser}")


def hooks(root: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in root.modules())


def test_names_operands_and_result() -> None:
    root, notes, x = Root("fused", "fused"), Notes(), torch.randn(3, 5, 8)
    plain = root(x)
    with intercept({"unet": root}, notes):
        traced = root(x)
    assert torch.equal(plain, traced)
    assert [run.module for run in notes.runs] == ["blocks.0", "blocks.1"]
    assert notes.events == ["enter unet", "leave unet"]
    call = notes.runs[0].calls[0]
    assert call.query is not None and call.query.shape == (3, 2, 5, 4)
    assert call.scale == pytest.approx(0.5)
    assert call.query.requires_grad
    assert torch.equal(call.query, root.blocks[0].to_q(x).unflatten(-1, (2, -1)).transpose(1, 2))


@pytest.mark.parametrize("form", ["eager", "sliced"])
def test_a_softmax_of_the_module_is_put_together(form: str) -> None:
    fused, other, x = Root("fused"), Root(form), torch.randn(3, 5, 8)
    other.load_state_dict(fused.state_dict())
    operands, probabilities = Notes(), Notes()
    with intercept({"unet": fused}, operands):
        fused(x)
    with intercept({"unet": other}, probabilities):
        other(x)
    call, seen = operands.runs[0].calls[0], probabilities.runs[0].calls[0].probabilities
    assert call.query is not None and call.key is not None and seen is not None
    torch.testing.assert_close(seen, (call.query @ call.key.transpose(-1, -2) * call.scale).softmax(-1))


def test_pieces_that_make_no_whole_are_refused_by_name() -> None:
    root = Root("odd")
    with pytest.raises(TracingError, match=r"unet\.blocks\.0: expected softmax results"), intercept({"unet": root}, Notes()):
        root(torch.randn(3, 5, 8))


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
def test_nothing_remains_after_a_fault_and_a_rerun_is_seen_whole(fault: type[BaseException]) -> None:
    root, notes, x = Root("fused", "fused"), Notes(), torch.randn(1, 5, 8)
    plain = root(x)
    with intercept({"unet": root}, notes):
        with pytest.raises(fault):
            root(x, fail=fault)
        assert torch.equal(root(x), plain)
    assert [run.module for run in notes.runs[-2:]] == ["blocks.0", "blocks.1"]
    with pytest.raises(fault), intercept({"unet": root}, Notes()):
        root(x, fail=fault)
    assert hooks(root) == 0
    assert torch._C._len_torch_function_stack() == 0
    assert torch.equal(root(x), plain)


def test_nesting_both_see_unless_one_is_exclusive() -> None:
    root, outer, inner, x = Root(), Notes(), Notes(), torch.randn(1, 5, 8)
    with intercept({"unet": root}, outer):
        with intercept({"unet": root}, inner):
            root(x)
        assert (len(outer.runs), len(inner.runs)) == (1, 1)
        with intercept({"unet": root}, inner, exclusive=True):
            root(x)
        assert (len(outer.runs), len(inner.runs)) == (1, 2)
        with suspended():
            root(x)
            with intercept({"unet": root}, inner):
                root(x)
        assert (len(outer.runs), len(inner.runs)) == (1, 3)
        root(x)
    assert len(outer.runs) == 2
    assert outer.events == ["enter unet", "leave unet"] * 2


def test_an_exclusive_forward_inside_a_running_one_is_invisible_outside() -> None:
    root, outer, inner, x = Root(), Notes(), Notes(), torch.randn(1, 5, 8)
    guard: list[int] = []

    def again(module: nn.Module, args: tuple[Any, ...]) -> None:
        if not guard:
            guard.append(1)
            with intercept({"unet": root}, inner, exclusive=True):
                root(x)

    handle = root.register_forward_pre_hook(again)
    with intercept({"unet": root}, outer):
        root(x)
    handle.remove()
    assert outer.events == ["enter unet", "leave unet"]
    assert (len(outer.runs), len(inner.runs)) == (1, 1)


def test_checkpointed_blocks_are_seen_once() -> None:
    class Checkpointed(Root):
        def forward(self, x: Tensor, **kwargs: Any) -> Tensor:
            return checkpoint(self.blocks[0], x, use_reentrant=False)

    root, notes, x = Checkpointed(), Notes(), torch.randn(1, 5, 8, requires_grad=True)
    with intercept({"unet": root}, notes):
        root(x).sum().backward()
    assert len(notes.runs) == 1


def test_calls_outside_of_the_roots_are_not_seen() -> None:
    notes, q = Notes(), torch.randn(1, 2, 3, 4)
    with intercept({"unet": Root()}, notes):
        imported_under_another_name(q, q, q)
        Root()(torch.randn(1, 5, 8))
    assert notes.runs == []


def test_another_thread_is_counted_not_recorded() -> None:
    root, notes = Root(), Notes()
    with intercept({"unet": root}, notes) as interception:
        thread = threading.Thread(target=lambda: root(torch.randn(1, 5, 8)))
        thread.start()
        thread.join()
    assert notes.runs == [] and interception.elsewhere == 1


def test_grouped_keys_are_repeated() -> None:
    class Grouped(nn.Module):
        def forward(self, q: Tensor, k: Tensor) -> Tensor:
            return nn.functional.scaled_dot_product_attention(q, k, k, enable_gqa=True)

    root, notes = Grouped(), Notes()
    with intercept({"unet": root}, notes):
        root(torch.randn(1, 4, 3, 8), torch.randn(1, 2, 3, 8))
    key = notes.runs[0].calls[0].key
    assert key is not None and key.shape[1] == 4
    assert torch.equal(key[:, 0], key[:, 1]) and not torch.equal(key[:, 1], key[:, 2])


def test_compiled_modules_run_eagerly_while_traced_and_are_compiled_again() -> None:
    root, notes, x = Root(), Notes(), torch.randn(1, 5, 8)
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(root, backend=counter, dynamic=False)
    plain = compiled(x)
    before = counter.frame_count
    with intercept({"unet": compiled}, notes) as interception:
        traced = compiled(x)
        compiled(torch.randn(1, 6, 8))
    assert torch.equal(plain, traced)
    assert [run.module for run in notes.runs] == ["blocks.0", "blocks.0"]
    assert interception.forced == ["torch.compile -> eager"]
    assert counter.frame_count == before > 0
    compiled(torch.randn(1, 7, 8))
    assert counter.frame_count > before


@pytest.mark.parametrize("first", [0, 1])
def test_settings_of_the_process_are_put_back_by_the_last_of_two_traces(first: int) -> None:
    """Two threads trace at the same time; whichever ends first must leave the other its kernels."""
    from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

    root, before = Root(), _AttentionBackendRegistry._active_backend
    root.blocks[0].processor = processor = SimpleNamespace(_attention_backend=AttentionBackendName.FLEX)
    root.compile(backend="eager")
    entered, leave = ([threading.Event() for _ in range(2)] for _ in range(2))
    forced: list[list[str]] = []

    def settings() -> tuple[object, ...]:
        return _AttentionBackendRegistry._active_backend, processor._attention_backend, torch._dynamo.eval_frame._stance.stance

    def hold(turn: int) -> None:
        with intercept({"unet": root}, Notes()) as interception:
            forced.append(interception.forced)
            entered[turn].set()
            leave[turn].wait(20)

    threads = [threading.Thread(target=hold, args=(turn,)) for turn in range(2)]
    _AttentionBackendRegistry._active_backend = AttentionBackendName.FLEX
    try:
        untraced = settings()
        for turn, thread in enumerate(threads):
            thread.start()
            assert entered[turn].wait(20)
        for turn in (first, 1 - first):
            assert settings() == (AttentionBackendName.NATIVE, None, "force_eager")
            leave[turn].set()
            threads[turn].join(20)
        assert settings() == untraced == (AttentionBackendName.FLEX, AttentionBackendName.FLEX, "default")
    finally:
        _AttentionBackendRegistry._active_backend = before
    assert forced == [["attention backend flex -> native", "torch.compile -> eager"]] * 2


@pytest.mark.parametrize("enabled", [True, False])
def test_operands_are_seen_in_the_precision_that_autocast_gives_the_kernel(enabled: bool) -> None:
    class Masked(nn.Module):
        def forward(self, q: Tensor, mask: Tensor) -> Tensor:
            return nn.functional.scaled_dot_product_attention(q, 2 * q, torch.eye(4), mask)

    root, notes, q = Masked(), Notes(), torch.randn(1, 1, 4, 4)
    mask = torch.zeros(4, 4)
    mask[1] = torch.finfo(torch.float32).min  # rounds to minus infinity: no weights under autocast, equal ones without
    with intercept({"unet": root}, notes), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        weights = root(q, mask)
    call, dtype = notes.runs[0].calls[0], torch.bfloat16 if enabled else torch.float32
    assert call.query is not None and call.key is not None and call.mask is not None
    assert call.query.dtype == call.key.dtype == call.mask.dtype == weights.dtype == dtype
    logits = call.query.double() @ call.key.double().mT * call.scale + call.mask.double()
    torch.testing.assert_close(weights.double(), logits.softmax(-1).nan_to_num(0), atol=4e-3 if enabled else 1e-6, rtol=0)
