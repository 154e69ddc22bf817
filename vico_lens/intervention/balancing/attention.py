"""Live attention of one conditional denoiser forward, with a graph to the latents and nothing else.

Three savings, each undone when the forward is: weights do not require gradients (their graph would keep activations for nothing),
the forward ends after the last site that the objective reads, and block checkpointing can be switched on where memory asks for
it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from vico_lens.errors import BalanceError
from vico_lens.intervention.balancing.influences import Flow
from vico_lens.intervention.balancing.injection import StepState
from vico_lens.tracing.running_call import StopCall

if TYPE_CHECKING:
    from vico_lens.vocabulary.schema import AttentionCall

__all__ = ["LiveAttention"]


class LiveAttention:
    """Runs the denoiser on given latents and hands out what its attention sites read.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
        The running pipeline.
    denoisers : mapping of str to torch.nn.Module
        Its denoisers by component name.
    flow : Flow
        Says which sites are read.
    checkpointing : bool
        Recompute activations block by block in the backward pass: less memory, more time.

    Raises
    ------
    BalanceError
        If checkpointing is asked of a denoiser that has none.
    """

    def __init__(self, pipe: Any, denoisers: Mapping[str, nn.Module], flow: Flow, *, checkpointing: bool = False) -> None:
        self.pipe, self.denoisers, self.flow, self.checkpointing = pipe, denoisers, flow, checkpointing
        self._seen: dict[tuple[object, ...], int] = {}
        # Listed once: walking a large model's modules at every update takes longer than its attention.
        self._weights = {name: list(module.parameters()) for name, module in denoisers.items()}
        self._blocks = {
            name: [block for block in module.modules() if hasattr(block, "gradient_checkpointing")]
            for name, module in denoisers.items()
        }
        for name, module in denoisers.items():
            if checkpointing and not getattr(module, "_supports_gradient_checkpointing", False):
                raise BalanceError(
                    f"expected a denoiser that can checkpoint its blocks, but {type(module).__name__} ({name}) has no gradient "
                    "checkpointing; leave checkpointing out and balance fewer frames or a smaller picture instead."
                )

    def __call__(self, state: StepState, latents: Tensor) -> list[list[AttentionCall]]:
        """Attention calls of every video, in execution order, on `latents` [video, ...].

        Gradients are recorded if they are enabled and `latents` requires them. Use the calls inside `prepared`, backward pass
        included.
        """
        from vico_lens.tracing.tracer import observe

        videos = latents.shape[0]
        key = (state.denoiser, *latents.shape)
        # A checkpointed block runs again in the backward pass and must then run to its end, so it is not cut short here.
        expected = None if self.checkpointing else self._seen.get(key)
        calls: list[list[AttentionCall]] = [[] for _ in range(videos)]
        count = 0

        def on_call(call: AttentionCall) -> None:
            nonlocal count
            calls[call.prompt].append(call)
            count += 1
            if count == expected:
                raise StopCall

        try:
            rows = [("cond", row) for row in range(videos)]
            with observe(self.pipe, kinds=self.flow.kinds, layers=self.flow.wanted, rows=rows, on_call=on_call):  # type: ignore[arg-type]
                state.forward(latents)
        except StopCall:
            pass
        if not count:
            raise BalanceError(
                f"expected attention of kind {' or '.join(self.flow.kinds)} at the layers asked for "
                f"(layers={self.flow.layers!r}), got none in {state.denoiser}; see `vico_lens.estimate(pipe, prompt)` for the "
                "sites it has."
            )
        self._seen[key] = count
        return calls

    @contextmanager
    def prepared(self, name: str) -> Iterator[None]:
        """Set denoiser `name` up for a gradient in the latents alone, and put everything back after."""
        module = self.denoisers[name]
        trainable = [weight for weight in self._weights[name] if weight.requires_grad]
        blocks = [(block, block.gradient_checkpointing) for block in self._blocks[name]]
        functions = [(block, block.__dict__.get("_gradient_checkpointing_func")) for block, _ in blocks]
        try:
            for weight in trainable:
                weight.requires_grad_(False)
            if self.checkpointing:
                module.enable_gradient_checkpointing()  # type: ignore[operator]
            yield
        finally:
            for weight in trainable:
                weight.requires_grad_(True)
            for block, enabled in blocks:
                block.gradient_checkpointing = enabled
            for block, function in functions:
                if function is None:
                    block.__dict__.pop("_gradient_checkpointing_func", None)
                else:
                    block.__dict__["_gradient_checkpointing_func"] = function
