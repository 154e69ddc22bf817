"""The bundled pipeline: diffusers' own `AnimateDiffPipeline`, with call defaults that fit the model.

``DiffusionPipeline.from_pretrained(folder)`` gives the stock class, whose defaults (16 frames, 50 steps, guidance 7.5) suit other
models: this one knows eight frames. `with_defaults` changes the defaults and nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vico_lens.tinyworld.vocabulary import FRAMES

if TYPE_CHECKING:
    from diffusers import AnimateDiffPipeline

__all__ = ["GUIDANCE", "MODEL_FOLDER", "STEPS", "with_defaults"]

MODEL_FOLDER = Path(__file__).parent / "model"
STEPS = 25
GUIDANCE = 2.5


def with_defaults(pipe: AnimateDiffPipeline) -> AnimateDiffPipeline:
    """Give a loaded pipeline call defaults of eight frames, 25 steps and guidance 2.5, in place, and return it.

    The class keeps its name, so that ``save_pretrained`` writes a folder that stock diffusers loads.
    """
    stock = type(pipe)

    def call(
        self: Any,
        prompt: str | list[str] | None = None,
        num_frames: int | None = FRAMES,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = STEPS,
        guidance_scale: float = GUIDANCE,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        return stock.__call__(self, prompt, num_frames, height, width, num_inference_steps, guidance_scale, *args, **kwargs)

    call.__doc__ = stock.__call__.__doc__
    pipe.__class__ = type(stock.__name__, (stock,), {"__call__": call, "__module__": stock.__module__, "__doc__": stock.__doc__})
    return pipe
