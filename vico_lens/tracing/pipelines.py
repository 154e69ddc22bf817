"""Load a pipeline: the bundled one, one from a folder, or one from the local cache of the model hub. Offline unless asked."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from vico_lens.errors import ModelError, TracingError

__all__ = ["load_pipeline"]

_INDEX = "model_index.json"


def load_pipeline(
    path_or_id: str | PathLike[str] | None = None,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    local_files_only: bool = True,
    **options: Any,
) -> Any:
    """Load a diffusers video pipeline.

    Parameters
    ----------
    path_or_id : path, str or None
        A folder written by ``save_pretrained``, the name of a model on the hub, or that of a bundled model of the tiny world:
        ``"tiny-unet"`` (AnimateDiff; also None) or ``"tiny-joint"`` (CogVideoX).
    dtype : torch.dtype, str or None
        Of all weights. None keeps what diffusers loads, but never a text encoder in half precision beside a denoiser in float32:
        their first product would fail.
    device : torch.device, str or None
        Where to put it; None leaves it on the CPU.
    local_files_only : bool
        Take models of the hub from the local cache only. False allows a download.
    **options
        Handed on to ``DiffusionPipeline.from_pretrained``.

    Returns
    -------
    diffusers.DiffusionPipeline
        Of its stock class.

    Raises
    ------
    ModelError
        If there is no such model, it is incomplete, or it is not a video pipeline.

    Examples
    --------
    >>> pipe = load_pipeline()
    >>> type(pipe).__name__
    'AnimateDiffPipeline'
    """
    from vico_lens.tinyworld.pipeline import BUNDLED, model_folder, with_defaults

    name = "tiny-unet" if path_or_id is None else str(path_or_id)
    bundled = name in BUNDLED
    source = str(model_folder(BUNDLED[name])) if bundled else name
    _check_source(source, bundled=bundled, local_files_only=local_files_only)
    if isinstance(dtype, str):
        dtype = _dtype_named(dtype)
    with _quiet() if bundled else nullcontext():
        pipe = _from_pretrained(source, dtype, local_files_only, options)
    if dtype is None:
        _agree(pipe)
    if Path(source).is_dir():
        pipe = with_defaults(pipe)
    _check_video(pipe, source)
    return pipe if device is None else _placed(pipe, device)


def _check_source(source: str, *, bundled: bool, local_files_only: bool) -> None:
    folder = Path(source).expanduser()
    if folder.is_dir():
        if not (folder / _INDEX).is_file():
            raise ModelError(
                f"expected a pipeline folder with {_INDEX}, got {source} without one: give the folder that save_pretrained wrote."
            )
        return
    if bundled:
        raise ModelError(
            f"expected the bundled model in {source}, got no such folder: this installation lacks it. Install the package from a "
            "wheel, train the model (make tinyworld-model), or name another pipeline."
        )
    if source.startswith((".", "/", "~")) or source.count("/") != 1 or folder.exists():
        raise ModelError(
            f"expected a pipeline folder or a hub name such as owner/name, got {source!r}, which is no folder: check the path."
        )


def _from_pretrained(source: str, dtype: torch.dtype | None, local_files_only: bool, options: dict[str, Any]) -> Any:
    try:
        from diffusers import DiffusionPipeline
    except ImportError as error:
        raise ModelError(f"expected diffusers to load {source}, got {error}: pip install diffusers transformers.") from None
    if dtype is not None:
        options = {"torch_dtype": dtype} | options
    try:
        return DiffusionPipeline.from_pretrained(str(Path(source).expanduser()), local_files_only=local_files_only, **options)
    except (OSError, ValueError, ImportError, AttributeError, json.JSONDecodeError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        hint = (
            "Check its files."
            if Path(source).expanduser().is_dir()
            else "Nothing is downloaded unless you say local_files_only=False."
            if local_files_only
            else "Check the name and the connection."
        )
        raise ModelError(f"expected to load the pipeline {source}, got: {first} {hint}") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Turn notices and progress bars of the libraries off while our own model loads, and leave their settings as they were."""
    try:
        from diffusers.utils import logging as diffusers_logging
        from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars
        from transformers.utils import logging as transformers_logging
    except ImportError:  # whoever loads says what is missing
        yield
        return
    with ExitStack() as undo:
        if are_progress_bars_disabled():
            undo.callback(disable_progress_bars)  # those of transformers come back together with the hub's
        for chatter in (diffusers_logging, transformers_logging):
            undo.callback(chatter.set_verbosity, chatter.get_verbosity())
            chatter.set_verbosity_error()
            if chatter.is_progress_bar_enabled():
                undo.callback(chatter.enable_progress_bar)
                chatter.disable_progress_bar()
        yield


def _placed(pipe: Any, device: torch.device | str) -> Any:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"expected device to be one that this torch can use, got {str(device)!r}: {first}. Use 'cpu', or install a build of "
            "torch for that device."
        ) from None
    return pipe.to(device)


def _dtype_named(name: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ModelError(f"expected dtype to be the name of a torch dtype such as 'bfloat16', got {name!r}.")
    return dtype


def _agree(pipe: Any) -> None:
    """Bring text encoders stored in half precision to the denoiser's float32."""
    root = next((root for name in ("unet", "transformer") if (root := getattr(pipe, name, None)) is not None), None)
    if root is None or getattr(root, "dtype", None) != torch.float32:
        return
    for name, component in pipe.components.items():
        if name.startswith("text_encoder") and getattr(component, "dtype", None) in (torch.float16, torch.bfloat16):
            component.to(torch.float32)


def _check_video(pipe: Any, source: str) -> None:
    from vico_lens.tracing.families import denoisers

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # an unknown family is told about when it is traced
            roots = denoisers(pipe)
    except TracingError as error:
        raise ModelError(f"expected a text-to-video pipeline in {source}, got {type(pipe).__name__}: {error}") from None
    for root in roots.values():
        if type(root).__name__ in ("UNet2DConditionModel", "UNet2DModel"):
            raise ModelError(f"expected a text-to-video pipeline in {source}, got {type(pipe).__name__}, which makes images.")
