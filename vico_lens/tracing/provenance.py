"""What made a trace: the model and a hash of its weights, the prompt, the settings of the call, and the versions of
everything.
"""

from __future__ import annotations

import hashlib
import inspect
import platform
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vico_lens.errors import InputError
from vico_lens.tracing.attention_calls import Watch
from vico_lens.tracing.capture import Capture
from vico_lens.tracing.running_call import Pipeline, RunningCall

__all__ = ["lasting_text", "provenance", "versions", "weights_hash"]

_PACKAGES = ("vico-lens", "torch", "diffusers", "transformers", "numpy", "xarray", "zarr")
_WHOLE = 2**26  # elements up to which every weight is hashed
_SAMPLE = 1024


def provenance(pipe: Pipeline, watch: Watch, call: RunningCall | None, capture: Capture) -> dict[str, object]:
    """Return the attributes of a trace that are known at its first denoiser call.

    Returns
    -------
    dict
        Names to strings, numbers, lists and mappings. A name is absent if its value is not known.
    """
    name, root = next(iter(watch.roots.items()))
    parameter = next(root.parameters(), None)
    attrs: dict[str, object] = {
        "pipeline": type(pipe).__name__,
        "family": watch.family.name,
        "denoiser": f"{name}: {type(root).__name__}",
        "model": str(getattr(getattr(pipe, "config", None), "_name_or_path", "") or getattr(pipe, "name_or_path", "") or ""),
        "weights_hash": weights_hash(watch.roots),
        "scheduler": type(getattr(pipe, "scheduler", None)).__name__,
        "capture": capture.to_json(),
        "versions": versions(),
        "device": str(parameter.device) if parameter is not None else "",
        "dtype": str(parameter.dtype).removeprefix("torch.") if parameter is not None else "",
    }
    if call is not None:
        prompts, negative = call.prompts, call.negative_prompts
        attrs |= {
            name: value
            for name, value in {
                "prompt": prompts[0] if prompts and len(prompts) == 1 else prompts,
                "negative_prompt": negative[0] if negative and len(negative) == 1 else negative,
                "guidance_scale": call.guidance_scale,
                "seed": None if not call.seeds else call.seeds[0] if len(call.seeds) == 1 else call.seeds,
                "steps": None if call.timesteps is None else len(call.timesteps),
                "videos_per_prompt": call.videos_per_prompt,
                # what a repeated run needs beside the prompt and the seed
                **{
                    size: call.locals.get(size)
                    for size in ("height", "width", "num_frames", "video_length", "max_sequence_length")
                },
            }.items()
            if value is not None
        }
    return attrs


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a trace depends on.

    Examples
    --------
    >>> "torch" in versions()
    True
    """
    found = {"python": platform.python_version(), "platform": sys.platform}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def weights_hash(modules: dict[str, nn.Module]) -> str:
    """Return a hash of the weights of modules.

    Up to 64 million elements every one counts. Above that 1024 evenly spaced elements of each tensor do: reading 14 billion would
    take longer than the trace, and training changes all of them anyway.

    Returns
    -------
    str
        ``sha256:...``, or ``sha256-sampled:...``; ``sha256-shapes:...`` if the weights are elsewhere (offloaded).

    Examples
    --------
    >>> layer = nn.Linear(2, 2, bias=False)
    >>> _ = nn.init.zeros_(layer.weight)
    >>> weights_hash({"unet": layer})[:14]
    'sha256:5ab868c'
    """
    digest = hashlib.sha256()
    values = [(f"{name}.{key}", value) for name, module in modules.items() for key, value in module.state_dict().items()]
    tensors = [part for key, value in values for part in _plain_tensors(key, value)]
    whole = sum(tensor.numel() for _, tensor in tensors) <= _WHOLE
    absent = any(tensor.is_meta for _, tensor in tensors)
    for key, tensor in tensors:
        digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
        if not absent:
            digest.update(_some(tensor, whole))
    for name, module in modules.items():
        for path, adapter in _adapters(module):
            digest.update(f"{name}.{path} {adapter}".encode())
    kind = "sha256-shapes" if absent else "sha256" if whole else "sha256-sampled"
    return f"{kind}:{digest.hexdigest()}"


def _plain_tensors(key: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """Take the entries of a state dict apart to plain tensors: quantised ones hold several, or are packed beside other things."""
    if isinstance(value, Tensor) and hasattr(value, "__tensor_flatten__"):  # torchao
        names, _ = value.__tensor_flatten__()
        for name in names:
            yield from _plain_tensors(f"{key}.{name}", getattr(value, name))
    elif isinstance(value, Tensor) and value.is_quantized:  # torch.ao.quantization
        yield f"{key} {value.qscheme()}", value.int_repr()
        channelwise = value.qscheme() in (torch.per_channel_affine, torch.per_channel_affine_float_qparams)
        yield f"{key}.scale", value.q_per_channel_scales() if channelwise else torch.tensor(value.q_scale())
    elif isinstance(value, Tensor):
        yield key, value
    elif isinstance(value, (tuple, list)):
        for index, part in enumerate(value):
            yield from _plain_tensors(f"{key}.{index}", part)
    elif hasattr(value, "__getstate__") and type(value).__module__.startswith("torch.classes"):
        yield from _plain_tensors(key, value.__getstate__())


def _adapters(module: nn.Module) -> Iterator[tuple[str, str]]:
    """How strongly each adapter layer (LoRA) acts: its weights are in the state dict, its factors and switches are not."""
    for path, layer in module.named_modules():
        scaling = getattr(layer, "scaling", None)
        if isinstance(scaling, Mapping):
            switches = [getattr(layer, name, None) for name in ("active_adapters", "disable_adapters", "merged_adapters")]
            yield path, f"{dict(scaling)} {switches}"


def _some(tensor: Tensor, whole: bool) -> bytes:
    flat = tensor.detach().flatten()
    if not whole and flat.numel() > _SAMPLE:
        flat = flat[:: -(-flat.numel() // _SAMPLE)]
    return flat.contiguous().cpu().view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def lasting_text(value: Any) -> str:
    """Text that is equal for equal settings, in any process: of arrays and tensors their content, which a repr cuts short.

    Raises
    ------
    InputError
        If the value is only known by its place in memory: another process would repeat its runs, or take others for them.

    Examples
    --------
    >>> lasting_text(np.zeros(2)) == lasting_text(np.zeros(2)) != lasting_text(np.ones(2))
    True
    """
    if hasattr(value, "detach"):
        dtype, value = value.dtype, value.detach().cpu()
        return f"{dtype} {lasting_text((value.double() if value.is_floating_point() else value).numpy())}"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} {hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()}"
    text = f"{value.__module__}.{value.__qualname__}" if inspect.isroutine(value) or inspect.isclass(value) else repr(value)
    if " at 0x" in text or "<lambda>" in text or "<locals>" in text:
        raise InputError(
            f"expected settings and call arguments that are the same in every process; got {text}. Name it, hand over numbers, "
            "or give its class a __repr__ of its settings (a dataclass has one)."
        )
    return text
