"""The joint architecture: a stock `CogVideoXTransformer3DModel`, in which text and video share one softmax over all frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from vico_lens.tinyworld.codec import CHANNELS, PATCH
from vico_lens.tinyworld.training.architecture import Architecture, Networks
from vico_lens.tinyworld.training.autoencoder import build_causal_autoencoder
from vico_lens.tinyworld.training.recipe import Recipe
from vico_lens.tinyworld.training.t5 import MAX_TOKENS, TEXT_WIDTH, build_t5_encoder, build_t5_tokenizer
from vico_lens.tinyworld.vocabulary import FRAMES, SIDE

if TYPE_CHECKING:
    from diffusers import CogVideoXPipeline, CogVideoXTransformer3DModel
    from transformers import PreTrainedTokenizerBase, T5EncoderModel, T5Tokenizer

__all__ = ["Joint"]

_CELLS = SIDE // PATCH
_TIME_WIDTH = 64
_POSITION_SCALE = 0.5  # distances between positions as the learned positions see them at the start


class Joint(Architecture):
    """CogVideoX with rotary and learned positions, as its 5B image-to-video version has them, and a T5 text encoder.

    The recipe's ``network`` holds ``width``, ``layers`` and ``heads``.
    """

    name: ClassVar[str] = "joint"
    subsets: ClassVar[bool] = True
    patched: ClassVar[bool] = True
    build_autoencoder: ClassVar[Callable[[], Any]] = staticmethod(build_causal_autoencoder)

    def __init__(self, recipe: Recipe, patch: int | None = None) -> None:
        super().__init__(recipe, patch)
        self._frames = torch.arange(FRAMES)  # those that the denoiser is being given

    def tokenizer(self) -> T5Tokenizer:
        """Return the T5 tokenizer of the tiny world."""
        return build_t5_tokenizer()

    def text_encoder(self, tokenizer: PreTrainedTokenizerBase) -> T5EncoderModel:
        """Return the untrained T5 encoder."""
        return build_t5_encoder(len(tokenizer))

    def denoiser(self) -> CogVideoXTransformer3DModel:
        """Return the untrained transformer, with the table of positions as a parameter.

        The stock class keeps the table as a buffer of the same name, so that state dicts fit either way.
        """
        model = self._stock()
        _start(model, self.recipe.network["width"])
        embedding = model.patch_embed
        table = embedding._buffers.pop("pos_embedding").float().clone()
        table[:, :MAX_TOKENS].normal_(0, 0.3)
        embedding.pos_embedding = nn.Parameter(table)
        return model

    def _stock(self) -> CogVideoXTransformer3DModel:
        from diffusers import CogVideoXTransformer3DModel

        network = self.recipe.network
        return CogVideoXTransformer3DModel(
            num_attention_heads=network["heads"],
            attention_head_dim=network["width"] // network["heads"],
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            time_embed_dim=_TIME_WIDTH,
            text_embed_dim=TEXT_WIDTH,
            num_layers=network["layers"],
            sample_width=_CELLS,
            sample_height=_CELLS,
            sample_frames=FRAMES,
            patch_size=self.patch,
            temporal_compression_ratio=1,
            max_text_seq_length=MAX_TOKENS,
            spatial_interpolation_scale=_POSITION_SCALE,
            temporal_interpolation_scale=_POSITION_SCALE,
            use_rotary_positional_embeddings=True,
            use_learned_positional_embeddings=True,
        )

    def refined(self, state: dict[str, Tensor], coarse: int) -> dict[str, Tensor]:
        """Return the state for finer patches: blocks stay, a patch's weights are shared out among its parts.

        The parts of a patch start with its position. Their input weights are its sum over the parts, scaled to keep the variance,
        and their output weights its mean.
        """
        ratio = coarse // self.cells
        width, side = self.recipe.network["width"], _CELLS // coarse
        fine = dict(state)
        projection = state["patch_embed.proj.weight"].unflatten(2, (ratio, self.cells)).unflatten(4, (ratio, self.cells))
        fine["patch_embed.proj.weight"] = projection.sum((2, 4)) / ratio
        table = state["patch_embed.pos_embedding"]
        grid = table[:, MAX_TOKENS:].view(1, FRAMES, side, side, width)
        grid = grid.repeat_interleave(ratio, 2).repeat_interleave(ratio, 3).flatten(1, 3)
        fine["patch_embed.pos_embedding"] = torch.cat([table[:, :MAX_TOKENS], grid], 1)
        for name in ("proj_out.weight", "proj_out.bias"):  # rows [channel, y in the patch, x in the patch]
            rows = state[name].unflatten(0, (CHANNELS, ratio, self.cells, ratio, self.cells))
            fine[name] = rows.mean((1, 3)).flatten(0, 2)
        return fine

    def takes_muon(self, name: str, parameter: nn.Parameter) -> bool:
        """Whether Muon trains a parameter: a matrix of a block, but not one that turns the time into scales and shifts."""
        return super().takes_muon(name, parameter) and not name.endswith(("norm1.linear.weight", "norm2.linear.weight"))

    def velocity(self, networks: Networks, noisy: Tensor, level: Tensor, tokens: Tensor) -> Tensor:
        """Return noise minus clip; the text goes in as the stock pipeline gives it, without a mask: padding is seen as tokens."""
        text = networks.text_encoder(tokens).last_hidden_state
        velocity: Tensor = networks.denoiser(
            noisy.transpose(1, 2), text, level * 1000, image_rotary_emb=self._rotary(), return_dict=False
        )[0]
        return velocity.transpose(1, 2)

    def _rotary(self) -> tuple[Tensor, Tensor]:
        from diffusers.models.embeddings import get_3d_rotary_pos_embed

        network, side = self.recipe.network, _CELLS // self.cells
        cosine, sine = (
            table.unflatten(0, (FRAMES, -1))[self._frames].flatten(0, 1)
            for table in get_3d_rotary_pos_embed(
                embed_dim=network["width"] // network["heads"],
                crops_coords=((0, 0), (side, side)),
                grid_size=(side, side),
                temporal_size=FRAMES,
            )
        )
        return cosine, sine

    @contextmanager
    def frame_positions(self, networks: Networks, frames: Tensor) -> Iterator[None]:
        """Let the denoiser see only `frames`, at their true positions."""
        embedding: Any = networks.denoiser.get_submodule("patch_embed")
        table = embedding._parameters.pop("pos_embedding")
        grid = table[:, MAX_TOKENS:].unflatten(1, (FRAMES, -1))[:, frames].flatten(1, 2)
        embedding.pos_embedding = torch.cat([table[:, :MAX_TOKENS], grid], 1)
        embedding.sample_frames, self._frames = len(frames), frames
        try:
            yield
        finally:
            del embedding.pos_embedding
            embedding.pos_embedding = table
            embedding.sample_frames, self._frames = FRAMES, torch.arange(FRAMES)

    def assemble(self, networks: Networks, autoencoder: nn.Module, tokenizer: PreTrainedTokenizerBase) -> CogVideoXPipeline:
        """Return a stock `CogVideoXPipeline`, with a second-order solver on the noise levels of training."""
        from diffusers import CogVideoXPipeline

        transformer = self._stock()
        transformer.load_state_dict(networks.denoiser.state_dict())
        pipe = CogVideoXPipeline(
            tokenizer=tokenizer,
            text_encoder=networks.text_encoder.eval(),
            vae=autoencoder,
            transformer=transformer.eval(),
            scheduler=self.scheduler(),
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe


@torch.no_grad()
def _start(model: CogVideoXTransformer3DModel, width: int) -> None:
    """Give the transformer start weights that train fast: open gates, small branches, an output of zero."""
    for block in model.transformer_blocks:
        for norm in (block.norm1, block.norm2):
            norm.linear.weight.mul_(0.1)
            norm.linear.bias.zero_()
            for gate in (2, 5):  # of the six chunks: the gates of the video's branch and of the text's
                norm.linear.bias[gate * width : (gate + 1) * width] = 1.0
        block.attn1.to_out[0].weight.mul_(0.3)
        block.ff.net[2].weight.mul_(0.3)
    model.norm_out.linear.weight.mul_(0.1)
    model.norm_out.linear.bias.zero_()
    model.proj_out.weight.zero_()
    model.proj_out.bias.zero_()
    for projection, gain in ((model.patch_embed.proj, 0.7), (model.patch_embed.text_proj, 1.0)):
        projection.weight.normal_(0, gain * projection.weight[0].numel() ** -0.5)
        projection.bias.zero_()
