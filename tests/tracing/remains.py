"""What a tracer could leave behind, counted."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def remains(pipe: Any) -> dict[str, object]:
    """Hooks, modes, patched methods and backend settings of a pipeline, to be equal before and after."""
    modules = [m for component in pipe.components.values() if isinstance(component, nn.Module) for m in component.modules()]
    hooks = sum(
        len(getattr(m, name))
        for m in modules
        for name in ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_always_called")
    )
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    return {
        "hooks": hooks,
        "modes": torch._C._len_torch_function_stack(),
        "processor": sorted(vars(pipe.video_processor)),
        "backend": _AttentionBackendRegistry._active_backend,
        "own": [getattr(p, "_attention_backend", None) for m in modules if (p := getattr(m, "processor", None)) is not None],
        "stance": torch.compiler.is_compiling(),
    }
