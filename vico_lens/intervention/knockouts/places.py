"""Where the words of a concept stand in the operands of one attention call, in the model's own order.

The readers of the family table bring query and key from the model's order to named axes. Here they are run on numbers in the
place of vectors, each of which says where it stood: what comes out at the place of a text token is its place in the model's call.
So every reader works both ways, those of other packages too, and nothing about layouts is written twice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vico_lens.errors import TracingError
from vico_lens.tracing.families.base import Family, Forward, Grid, LeftOut, Rule
from vico_lens.tracing.families.reader import read
from vico_lens.tracing.raw_calls import Attended, RawCall

__all__ = ["Placed", "placed"]


@dataclass(frozen=True, slots=True)
class Placed:
    """One row of the denoiser's batch in one attention call.

    Attributes
    ----------
    grid : tuple of int
        Frames, rows, columns of the site.
    batch : Tensor [frame]
        Which entry of the call's batch axis computes each frame.
    queries : Tensor [frame, cell]
        Place of every video token on the query axis.
    columns : Tensor [token]
        Place of every text token on the key axis; -1 for a token that takes no part.
    """

    grid: Grid
    batch: Tensor
    queries: Tensor
    columns: Tensor


def placed(
    run: Attended, rule: Rule, family: Family, forward: Forward, row: int, sizes: tuple[int, int, int], device: torch.device
) -> Placed | None:
    """Find one row of the denoiser's batch in a call of the given sizes.

    Parameters
    ----------
    run : Attended
        The module that is about to attend.
    rule, family, forward
        What the family table says of it, and the inputs of the denoiser.
    row : int
        Of the denoiser's batch.
    sizes : tuple of int
        Batch, queries and keys of the call.
    device : torch.device
        Where the call is computed.

    Returns
    -------
    Placed or None
        None if this call is not the one that reads the text: it attends to an image, to an earlier part of the video, or to
        another row.
    """
    batch, queries, keys = sizes
    one_a_row = batch == 1 and forward.batch > 1  # Mochi calls the kernel row by row
    if one_a_row and len(run.calls) != row:
        return None
    if run.calls and rule.pick == "first" and not one_a_row:
        return None
    # 1 is the first place: 0 is what a reader fills in where the model has nothing.
    entry = torch.arange(1, batch + 1, device=device, dtype=torch.float32)[:, None].expand(batch, queries)
    place = torch.arange(1, queries + 1, device=device, dtype=torch.float32).expand(batch, queries)
    key = torch.arange(1, keys + 1, device=device, dtype=torch.float32)[None, None, :, None].expand(batch, 1, keys, 1)
    coded = RawCall(torch.stack([entry, place], -1)[:, None], key, None, False, 1.0)
    numbered = replace(run, calls=[coded] * (forward.batch if one_a_row else 1), pieces=[])
    try:
        part = next(iter(read(numbered, rule, family, forward, [row])), None)
    except LeftOut:
        return None
    except TracingError:
        if rule.kind == "cross" and keys != forward.text:
            return None
        raise
    if part is None or part.query is None or part.key is None:
        return None
    frames = part.grid[0]
    video = part.query[0] if rule.kind == "cross" else part.query[0, part.tokens :]
    video = video.reshape(frames, -1, 2).round().long() - 1
    columns = part.key[0].reshape(-1, part.key.shape[-2] if rule.kind == "cross" else len(part.key[0]), part.key.shape[-1])
    return Placed(part.grid, video[:, 0, 0], video[:, :, 1], columns[0, : part.tokens, 0].round().long() - 1)
