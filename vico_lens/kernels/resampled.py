"""A site brought to another token grid, without its map: mass goes there by area sums, and back by area means.

A resampled map is ``mean . map . sum^T`` (`vico_lens.kernels.resampling`): several queries become one by averaging, several keys
one by adding. A product with it is therefore three products, and a strip of it needs only the rows that its queries lie in.
Text tokens of a joint site are left as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from vico_lens.kernels.operators import LARGEST_MAP, STRIP, Operator, Strip, overlaps, refuse_large
from vico_lens.kernels.resampling import area_matrix, resample_axes

__all__ = ["Axes", "ResampledOperator"]

# Entries of a resampled map that is made whole rather than streamed.
_SMALL = 1 << 22
# Entries of a site's own map that is held whole while its resampled strips are made.
_HELD = 1 << 24


@dataclass(frozen=True)
class Axes:
    """Members of a site along some axes of a grid, and the same axes on another grid; `text` members before them stay.

    Attributes
    ----------
    here, there : tuple of int
        Sizes on the site's grid, and on the grid it is brought to.
    text : int
        Members that are no video tokens.
    """

    here: tuple[int, ...]
    there: tuple[int, ...]
    text: int = 0

    @property
    def members(self) -> int:
        """Members on the grid that the site is brought to."""
        return self.text + prod(self.there)

    def mean(self, values: Tensor) -> Tensor:
        """Area mean along the last axis, from the site's members to the other grid's."""
        return self._video(values, lambda cube, axes: resample_axes(cube, axes, self.there, "mean"), self.here)

    def spread(self, values: Tensor) -> Tensor:
        """The transpose of the area sum over keys, from the other grid's members to the site's, along the last axis."""

        def back(cube: Tensor, axes: Sequence[int]) -> Tensor:
            for axis, new, old in zip(axes, self.here, self.there, strict=True):
                if new != old:
                    matrix = area_matrix(new, old, "sum").to(cube)
                    cube = torch.tensordot(cube, matrix, dims=([axis], [0])).movedim(-1, axis)
            return cube

        return self._video(values, back, self.there)

    def add(self, values: Tensor) -> Tensor:
        """Area sum along the last axis, from the site's members to the other grid's."""
        return self._video(values, lambda cube, axes: resample_axes(cube, axes, self.there, "sum"), self.here)

    def _video(self, values: Tensor, change: Callable[[Tensor, list[int]], Tensor], sizes: tuple[int, ...]) -> Tensor:
        if self.here == self.there:
            return values
        text, video = values[..., : self.text], values[..., self.text :]
        cube = video.reshape(*values.shape[:-1], *sizes)
        axes = list(range(values.ndim - 1, values.ndim - 1 + len(sizes)))
        video = change(cube, axes).reshape(*values.shape[:-1], -1)
        return torch.cat([text, video], -1) if self.text else video

    def share(self, members: slice, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Site members that some members of the other grid average over, and their weights ``[member, site member]``."""
        total = torch.arange(members.start, members.stop)
        text, video = total[total < self.text], total[total >= self.text] - self.text
        weights = torch.ones(len(video), 1, dtype=torch.float64)
        for axis, (old, new) in enumerate(zip(self.here, self.there, strict=True)):
            place = video // prod(self.there[axis + 1 :]) % new
            weights = (weights[:, :, None] * area_matrix(old, new, "mean")[place][:, None]).flatten(1)
        used = torch.zeros(self.text + weights.shape[1], dtype=torch.bool)
        used[text] = True
        used[self.text :] = (weights > 0).any(0)
        whole = torch.zeros(len(total), self.text + weights.shape[1], dtype=torch.float64)
        whole[torch.arange(len(text)), text] = 1
        whole[len(text) :, self.text :] = weights
        index = used.nonzero()[:, 0]
        return index.to(device), whole[:, index].to(device, dtype)


class ResampledOperator(Operator):
    """A site on another grid than its own.

    Parameters
    ----------
    site : Operator
        On its own grid.
    batch, queries, keys : Axes
        How its batch items, queries and keys lie on the two grids. Batch items are averaged, as queries are.
    """

    def __init__(self, site: Operator, batch: Axes, queries: Axes, keys: Axes) -> None:
        self.site, self.batch, self.queries, self.keys = site, batch, queries, keys
        self.shape = (batch.members, queries.members, keys.members)
        self.dtype, self.device = site.dtype, site.device

    @property
    def in_memory(self) -> bool:
        """Whether both maps, the site's own and the resampled one, are small."""
        return self.site.in_memory and prod(self.shape) <= max(_SMALL, prod(self.site.shape))

    def open(self) -> Operator:
        """With the site's numbers at hand."""
        return ResampledOperator(self.site.open(), self.batch, self.queries, self.keys)

    def carry(self, mass: Tensor) -> Tensor:
        """To the site by area sums, through it, and back by area means."""
        return self.queries.mean(self._through_items(self.keys.spread(mass), self.site.carry))

    def columns(self, keys: Sequence[int]) -> Tensor:
        """By `carry` of one unit of mass a column; exact columns of the site itself where its keys are not resampled."""
        if self.keys.here == self.keys.there and self.batch.here == self.batch.there:
            return self.queries.mean(self.site.columns(keys).mT).mT
        chosen = torch.as_tensor(keys, device=self.device)
        mass = torch.zeros(len(chosen), self.shape[2], dtype=self.dtype, device=self.device)
        mass[torch.arange(len(chosen), device=self.device), chosen] = 1
        return self.carry(mass.expand(self.shape[0], -1, -1)).mT

    def dense(self) -> Tensor:
        """The site's map, resampled."""
        refuse_large(self.shape)
        if prod(self.site.shape) > LARGEST_MAP and not any(tensor.requires_grad for tensor in self.site.parameters):
            whole = torch.empty(self.shape, dtype=self.dtype, device=self.device)
            for strip in self.strips():
                whole[strip.batch, strip.queries] = strip.weights.mT
            return whole
        weights = self.keys.add(self.queries.mean(self.site.dense().mT).mT)
        return weights if self.batch.here == self.batch.there else self.batch.mean(weights.movedim(0, -1)).movedim(-1, 0)

    def part(self, first_query: int, first_key: int) -> Operator:
        """Without the text, which is all that is ever left out."""
        queries = Axes(self.queries.here, self.queries.there, self.queries.text - first_query)
        keys = Axes(self.keys.here, self.keys.there, self.keys.text - first_key)
        return ResampledOperator(self.site.part(first_query, first_key), self.batch, queries, keys)

    def strips(self, items: slice | None = None, queries: slice | None = None) -> Iterator[Strip]:
        """Strips of the resampled map, each from the rows of the site's maps that its queries average over."""
        batch, count, keys = self.shape
        rows = max(1, min(count, STRIP // keys))
        with torch.no_grad():
            for item in range(batch):
                found = self._items(item) if overlaps(slice(item, item + 1), items) else []
                for first in range(0, count if found else 0, rows):
                    here = slice(first, min(first + rows, count))
                    if not overlaps(here, queries):
                        continue
                    index, share = self.queries.share(here, self.device, self.dtype)
                    strip = torch.zeros(keys, len(share), dtype=self.dtype, device=self.device)
                    for place, part in found:
                        strip += part * self._rows(place, index, share)
                    yield Strip(slice(item, item + 1), here, strip[None])

    def _rows(self, item: int, index: Tensor, share: Tensor) -> Tensor:
        """Some resampled queries of one item of the site, ``[key, query]``."""
        out = torch.zeros(self.shape[2], share.shape[0], dtype=self.dtype, device=self.device)
        reads = slice(int(index.min()), int(index.max()) + 1)
        for rows, weights in self._site_rows(item, reads):
            inside = (index >= rows.start) & (index < rows.stop)
            if bool(inside.any()):
                out += self.keys.add((weights[:, index[inside] - rows.start] @ share[:, inside].mT).mT).mT
        return out

    def _site_rows(self, item: int, reads: slice) -> Iterator[tuple[slice, Tensor]]:
        if item in self._whole_items:
            yield slice(0, self.site.shape[1]), self._whole_items[item]
            return
        for strip in self.site.strips(slice(item, item + 1), reads):
            if strip.batch.start <= item < strip.batch.stop:
                yield strip.queries, strip.weights[item - strip.batch.start]

    @cached_property
    def _whole_items(self) -> dict[int, Tensor]:
        """Maps of single items, ``[key, query]``, where the site's map is small enough to be held whole."""
        if prod(self.site.shape) > _HELD:
            return {}
        return dict(enumerate(self.site.dense().detach().mT))

    def _items(self, item: int) -> list[tuple[int, float]]:
        """Items of the site that an item of the other grid averages over, with their shares."""
        index, share = self.batch.share(slice(item, item + 1), torch.device("cpu"), torch.float64)
        return list(zip(index.tolist(), share[0].tolist(), strict=True))

    def _through_items(self, mass: Tensor, carry: Callable[[Tensor], Tensor]) -> Tensor:
        """Take mass of the other grid's batch items through the site's: as columns of their own, averaged where they arrive."""
        if self.batch.here == self.batch.there:
            return carry(mass)
        index, blend = self.batch.share(slice(0, self.shape[0]), mass.device, mass.dtype)
        reads = [(blend[:, place] > 0).nonzero()[:, 0] for place in range(len(index))]
        most = max(len(items) for items in reads)
        columns = mass.shape[1]
        # [site item, turn]: the turn-th item of the other grid that averages over a site item, and its share (0 beyond the last).
        other = torch.stack([torch.cat([items, items.new_zeros(most - len(items))]) for items in reads])
        share = torch.stack(
            [torch.cat([blend[items, place], blend.new_zeros(most - len(items))]) for place, items in enumerate(reads)]
        )
        given = mass[other].flatten(1, 2)  # [site item, turn * column, key]
        got = carry(given).reshape(len(index), most, columns, -1) * share[:, :, None, None]
        out = got.new_zeros(self.shape[0], columns, got.shape[-1])
        return out.index_add(0, other.flatten(), got.flatten(0, 1))
