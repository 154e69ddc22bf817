"""The conditional rows of a denoiser call that carries both guidance branches in one batch.

Guidance by batch doubles every argument. An update needs the conditional rows only, so the others would be paid for nothing.
Which arguments have a batch axis is seen from their first size; tables of positions (rotary embeddings) have none, whatever their
size, and are known by name.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["conditional_rows"]

_WITHOUT_BATCH = ("rotary", "rope", "freqs")
_PER_FRAME = ("encoder_hidden_states", "added_cond_kwargs", "additional_residual")


def conditional_rows(value: Any, rows: int, repeat: int, name: str = "") -> Any:
    """Take the last 1/`repeat` of every batched tensor in an argument of the denoiser.

    Parameters
    ----------
    value : Any
        A tensor, or a tuple, list or dict of arguments; anything else is returned as it is.
    rows : int
        Batch size of the denoiser's input, guidance included.
    repeat : int
        2 when the batch holds both branches, 1 when it does not (then nothing is taken away).
    name : str
        Keyword under which the denoiser takes the argument.

    Examples
    --------
    >>> import torch
    >>> conditional_rows(torch.arange(4), rows=4, repeat=2)
    tensor([2, 3])
    >>> conditional_rows({"image_rotary_emb": torch.arange(4)}, rows=4, repeat=2)
    {'image_rotary_emb': tensor([0, 1, 2, 3])}
    """
    if repeat == 1 or any(part in name for part in _WITHOUT_BATCH):
        return value
    if isinstance(value, dict):
        return {key: conditional_rows(item, rows, repeat, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(conditional_rows(item, rows, repeat, name) for item in value)
    if not isinstance(value, Tensor) or value.dim() == 0:
        return value
    size = value.shape[0]
    # UNets with motion modules take the text, and the residuals of a ControlNet, once a frame: a multiple of the batch.
    batched = size == rows or (size % rows == 0 and any(part in name for part in _PER_FRAME))
    return value[size - size // repeat :] if batched else value
