"""The bundled pipelines: diffusers' own classes, with call defaults that fit the models.

``DiffusionPipeline.from_pretrained(folder)`` gives the stock class, whose defaults (16 or 49 frames, 50 steps, guidance 6 or 7.5)
suit other models: these know eight frames. `with_defaults` changes the defaults and nothing else.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vico_lens.tinyworld.codec import CHANNELS, PATCH
from vico_lens.tinyworld.vocabulary import FRAMES, SIDE

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

__all__ = ["BUNDLED", "GUIDANCE", "MODEL_FOLDER", "STEPS", "defaults_for", "model_folder", "with_defaults"]

MODEL_FOLDER = Path(__file__).parent / "model"
# Names that `vico_lens.load_pipeline` knows, and their recipes.
BUNDLED = MappingProxyType({"tiny-unet": "unet", "tiny-joint": "joint", "tiny-cosmos": "cosmos"})
STEPS = 25
EULER_STEPS = 40
TOKENS = 32
GUIDANCE = 2.5
_DEFAULTS = {"num_frames": FRAMES, "num_inference_steps": STEPS, "guidance_scale": GUIDANCE}


def model_folder(recipe: str) -> Path:
    """Return the folder of the bundled model that was trained by a recipe: the UNet's is older than the others' naming."""
    return MODEL_FOLDER if recipe == "unet" else MODEL_FOLDER.parent / "models" / recipe


def defaults_for(pipe: Any) -> dict[str, Any] | None:
    """Return the call defaults that fit a model of the tiny world, or ``None`` if `pipe` holds another model."""
    unet = getattr(getattr(pipe, "unet", None), "config", {})
    if unet.get("motion_max_seq_length") == FRAMES and unet.get("in_channels") == CHANNELS:
        return dict(_DEFAULTS)
    transformer = getattr(getattr(pipe, "transformer", None), "config", {})
    if transformer.get("in_channels") != CHANNELS:
        return None
    if (transformer.get("sample_frames"), transformer.get("sample_width")) == (FRAMES, SIDE // PATCH):
        return _DEFAULTS | {"max_sequence_length": TOKENS}
    if tuple(transformer.get("max_size", ())) == (FRAMES, SIDE // PATCH, SIDE // PATCH):
        # Cosmos counts guidance from 0, has only Euler's solver, and takes a long negative prompt unless it is given one.
        return _DEFAULTS | {
            "max_sequence_length": TOKENS,
            "guidance_scale": GUIDANCE - 1,
            "num_inference_steps": EULER_STEPS,
            "negative_prompt": "",
            "height": SIDE,
            "width": SIDE,
        }
    return None


def with_defaults(pipe: DiffusionPipeline) -> DiffusionPipeline:
    """Give a loaded pipeline of the tiny world call defaults that fit it, in place, and return it.

    Eight frames, 25 steps, guidance 2.5, and for the transformers captions of 32 tokens. The class keeps its name, so that
    ``save_pretrained`` writes a folder that stock diffusers loads. Other pipelines are returned as they are.
    """
    fitting = defaults_for(pipe)
    if fitting is None:
        return pipe
    stock = type(pipe)
    signature = inspect.signature(stock.__call__)

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = signature.bind_partial(self, *args, **kwargs).arguments
        options = given.pop("kwargs", {})
        return stock.__call__(**fitting | given | options)

    call.__doc__ = stock.__call__.__doc__
    call.__signature__ = signature.replace(  # type: ignore[attr-defined]  # what `inspect.signature` shows
        parameters=[part.replace(default=fitting.get(name, part.default)) for name, part in signature.parameters.items()]
    )
    pipe.__class__ = type(stock.__name__, (stock,), {"__call__": call, "__module__": stock.__module__, "__doc__": stock.__doc__})
    return pipe
