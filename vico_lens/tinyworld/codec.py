"""A fixed linear code of image patches: what the denoiser of the bundled model works on.

Every 4 x 4 patch (48 numbers, background subtracted) is projected on its leading principal components, each divided by a power
of its standard deviation. A linear code cannot imitate a binding failure, which a short-trained autoencoder does; the pipeline's
autoencoder is trained to agree with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vico_lens.tinyworld.vocabulary import BACKGROUND

__all__ = ["CHANNELS", "PATCH", "PatchCode", "fit_patch_code"]

PATCH = 4
CHANNELS = 16
_WHITENING = 0.5  # 0 keeps the principal components' own scale, 1 makes every channel unit variance


@dataclass(frozen=True, slots=True)
class PatchCode:
    """Orthonormal `basis` ``[patch pixel, channel]`` and `scale` ``[channel]``."""

    basis: Tensor
    scale: Tensor

    def encode(self, frames: Tensor) -> Tensor:
        """Frames ``[..., rgb, row, column]`` in 0..1 to latents ``[..., channel, y, x]``."""
        patches = torch.nn.functional.pixel_unshuffle(2 * (frames - _background(frames)), PATCH)
        return torch.einsum("...phw,pc->...chw", patches, self.basis) / self.scale[:, None, None]

    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``[..., channel, y, x]`` to frames ``[..., rgb, row, column]``, clipped to 0..1."""
        patches = torch.einsum("...chw,pc->...phw", latents * self.scale[:, None, None], self.basis)
        frames = torch.nn.functional.pixel_shuffle(patches, PATCH) / 2
        return (frames + _background(frames)).clamp(0, 1)


def fit_patch_code(frames: Tensor) -> PatchCode:
    """Fit the code to frames ``[frame, rgb, row, column]`` in 0..1, so that latents have unit variance over all channels."""
    patches = torch.nn.functional.pixel_unshuffle(2 * (frames - _background(frames)), PATCH)
    flat = patches.movedim(1, -1).flatten(0, -2).double()
    variance, basis = torch.linalg.eigh(flat.T @ flat / len(flat))
    basis = basis.flip(1)[:, :CHANNELS]
    # The sign of an eigenvector is arbitrary: fix it, so that a refit on the same data gives the same code.
    basis = basis * basis.gather(0, basis.abs().argmax(0, keepdim=True)).sign()
    scale = variance.flip(0)[:CHANNELS].sqrt() ** _WHITENING
    scale = scale * (flat @ basis / scale).std()
    return PatchCode(basis.float(), scale.float())


def _background(like: Tensor) -> Tensor:
    return torch.tensor(BACKGROUND, dtype=like.dtype, device=like.device)[:, None, None]
