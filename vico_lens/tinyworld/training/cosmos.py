"""The cross and full-3-D architecture: a stock `CosmosTransformer3DModel`, with self-attention over all frames, then to text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from vico_lens.tinyworld.codec import CHANNELS, PATCH
from vico_lens.tinyworld.training.architecture import Architecture, Networks
from vico_lens.tinyworld.training.autoencoder import build_cosmos_autoencoder
from vico_lens.tinyworld.training.t5 import TEXT_WIDTH, build_t5_encoder, build_t5_tokenizer
from vico_lens.tinyworld.vocabulary import FRAMES, SIDE

if TYPE_CHECKING:
    from diffusers import CosmosTextToWorldPipeline, CosmosTransformer3DModel
    from transformers import PreTrainedTokenizerBase, T5EncoderModel, T5Tokenizer

__all__ = ["Cosmos"]

_CELLS = SIDE // PATCH
_FPS = 30  # what the stock pipeline tells the denoiser unless it is told otherwise
_SIGMA_MIN, _SIGMA_MAX = 0.02, 80.0


class Cosmos(Architecture):
    """Cosmos 1 text-to-world, with rotary and learned positions, and a T5 text encoder.

    The recipe's ``network`` holds ``width``, ``layers``, ``heads``, ``ratio`` (of the feed-forward part's width) and ``rank`` (of
    the layers that turn the time into scales and shifts).
    """

    name: ClassVar[str] = "cosmos"
    subsets: ClassVar[bool] = True
    patched: ClassVar[bool] = True
    build_autoencoder: ClassVar[Callable[[], Any]] = staticmethod(build_cosmos_autoencoder)

    def tokenizer(self) -> T5Tokenizer:
        """Return the T5 tokenizer of the tiny world."""
        return build_t5_tokenizer()

    def text_encoder(self, tokenizer: PreTrainedTokenizerBase) -> T5EncoderModel:
        """Return the untrained T5 encoder."""
        return build_t5_encoder(len(tokenizer))

    def denoiser(self) -> CosmosTransformer3DModel:
        """Return the untrained transformer, with start weights that train fast."""
        from diffusers import CosmosTransformer3DModel

        network = self.recipe.network
        model = CosmosTransformer3DModel(
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            num_attention_heads=network["heads"],
            attention_head_dim=network["width"] // network["heads"],
            num_layers=network["layers"],
            mlp_ratio=network["ratio"],
            text_embed_dim=TEXT_WIDTH,
            adaln_lora_dim=network["rank"],
            max_size=(FRAMES, _CELLS, _CELLS),
            patch_size=(1, self.patch, self.patch),
            rope_scale=(1.0, 1.0, 1.0),
            concat_padding_mask=False,
            extra_pos_embed_type="learnable",
        )
        _start(model)
        return model

    def takes_muon(self, name: str, parameter: nn.Parameter) -> bool:
        """Whether Muon trains a parameter: a matrix of a block, but not one that turns the time into scales and shifts."""
        return super().takes_muon(name, parameter) and ".norm" not in name

    def velocity(self, networks: Networks, noisy: Tensor, level: Tensor, tokens: Tensor) -> Tensor:
        """Return noise minus clip, from a network that is preconditioned as EDM schedulers do it, with a data deviation of one.

        At noise level ``t`` those schedulers see ``sigma = t / (1 - t)`` and the clip as
        ``clip = noisy (1 - t) / n^2 + output t / n`` with ``n^2 = t^2 + (1 - t)^2`` (2206.00364, table 1).
        """
        mask = (tokens != 0).long()
        text = networks.text_encoder(tokens, attention_mask=mask).last_hidden_state * mask[..., None]
        at = level.view(-1, 1, 1, 1, 1)
        norm = (at**2 + (1 - at) ** 2).sqrt()
        sigma = (level / (1 - level)).clamp(_SIGMA_MIN, _SIGMA_MAX)
        output = networks.denoiser(noisy / norm, sigma.log() / 4, text, fps=_FPS, return_dict=False)[0]
        velocity: Tensor = noisy * (2 * at - 1) / norm**2 - output / norm
        return velocity

    @contextmanager
    def frame_positions(self, networks: Networks, frames: Tensor) -> Iterator[None]:
        """Let the denoiser see only `frames`, at their true positions."""
        denoiser: Any = networks.denoiser

        def whole(hidden: Tensor) -> Tensor:
            return hidden[:, :, :1].expand(-1, -1, FRAMES, -1, -1)

        def learned(hidden: Tensor) -> Tensor:
            positions: Tensor = type(denoiser.learnable_pos_embed).forward(denoiser.learnable_pos_embed, whole(hidden))
            return positions.unflatten(1, (FRAMES, -1))[:, frames].flatten(1, 2)

        def rotary(hidden: Tensor, fps: int | None = None) -> tuple[Tensor, Tensor]:
            cosine, sine = type(denoiser.rope).forward(denoiser.rope, whole(hidden), fps)
            return cosine.unflatten(0, (FRAMES, -1))[frames].flatten(0, 1), sine.unflatten(0, (FRAMES, -1))[frames].flatten(0, 1)

        denoiser.learnable_pos_embed.forward, denoiser.rope.forward = learned, rotary
        try:
            yield
        finally:
            del denoiser.learnable_pos_embed.forward, denoiser.rope.forward

    def refined(self, state: dict[str, Tensor], coarse: int) -> dict[str, Tensor]:
        """Return the state for finer patches: blocks stay, a patch's weights are shared out among its parts.

        The parts of a patch start with its position. Their input weights are its sum over the parts, scaled to keep the variance,
        and their output weights its mean.
        """
        ratio, width = coarse // self.cells, self.recipe.network["width"]
        fine = dict(state)
        rows = state["patch_embed.proj.weight"].view(width, CHANNELS, ratio, self.cells, ratio, self.cells)
        fine["patch_embed.proj.weight"] = rows.sum((2, 4)).flatten(1) / ratio
        for axis in "hw":
            name = f"learnable_pos_embed.pos_emb_{axis}"
            fine[name] = state[name].repeat_interleave(ratio, 0)
        out = state["proj_out.weight"].view(ratio, self.cells, ratio, self.cells, 1, CHANNELS, width)
        fine["proj_out.weight"] = out.mean((0, 2)).flatten(0, 3)
        return fine

    def assemble(
        self, networks: Networks, autoencoder: nn.Module, tokenizer: PreTrainedTokenizerBase
    ) -> CosmosTextToWorldPipeline:
        """Return a stock `CosmosTextToWorldPipeline` with Euler's solver, the only one that it takes."""
        from diffusers import CosmosTextToWorldPipeline, EDMEulerScheduler

        from vico_lens.tinyworld.checker import ShapesOnlyChecker

        pipe = CosmosTextToWorldPipeline(
            text_encoder=networks.text_encoder.eval(),
            tokenizer=tokenizer,
            transformer=networks.denoiser.eval(),
            vae=autoencoder,
            scheduler=EDMEulerScheduler(sigma_min=_SIGMA_MIN, sigma_max=_SIGMA_MAX, sigma_data=1.0, final_sigmas_type="zero"),
            safety_checker=ShapesOnlyChecker(),
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe


@torch.no_grad()
def _start(model: CosmosTransformer3DModel) -> None:
    """Give the transformer start weights that train fast: positions far apart, small branches, an output of zero."""
    positions = model.learnable_pos_embed
    for table in (positions.pos_emb_t, positions.pos_emb_h, positions.pos_emb_w):
        table.normal_(0, 1.0)
    model.proj_out.weight.zero_()
    for block in model.transformer_blocks:
        block.attn1.to_out[0].weight.mul_(0.3)
        block.attn2.to_out[0].weight.mul_(0.3)
