"""The AnimateDiff architecture: a stock `UNetMotionModel`, with spatial, cross and temporal attention, and a CLIP text model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from vico_lens.tinyworld.codec import CHANNELS, PATCH
from vico_lens.tinyworld.training.architecture import Architecture, Networks
from vico_lens.tinyworld.training.autoencoder import build_frame_autoencoder
from vico_lens.tinyworld.training.tokenizer import MAX_TOKENS, build_tokenizer
from vico_lens.tinyworld.vocabulary import FRAMES, SIDE

if TYPE_CHECKING:
    from diffusers import AnimateDiffPipeline, UNetMotionModel
    from transformers import CLIPTextModel, CLIPTokenizer, PreTrainedTokenizerBase

__all__ = ["UNet", "build_denoiser", "build_text_encoder", "frame_positions"]

TEXT_WIDTH = 64


class UNet(Architecture):
    """AnimateDiff's denoiser on two grids; the recipe's ``network`` holds ``widths``, the channels of each."""

    name: ClassVar[str] = "unet"
    subsets: ClassVar[bool] = True
    build_autoencoder: ClassVar[Callable[[], Any]] = staticmethod(build_frame_autoencoder)

    def tokenizer(self) -> CLIPTokenizer:
        """Return the CLIP tokenizer of the tiny world."""
        return build_tokenizer()

    def denoiser(self) -> UNetMotionModel:
        """Return the untrained UNet."""
        first, second = self.recipe.network["widths"]
        return build_denoiser((first, second))

    def text_encoder(self, tokenizer: PreTrainedTokenizerBase) -> CLIPTextModel:
        """Return the untrained text model."""
        return build_text_encoder(tokenizer)

    def velocity(self, networks: Networks, noisy: Tensor, level: Tensor, tokens: Tensor) -> Tensor:
        """Return noise minus clip; every frame is given the text."""
        text = networks.text_encoder(tokens).last_hidden_state.repeat_interleave(noisy.shape[2], dim=0)
        velocity: Tensor = networks.denoiser(noisy, level * 1000, text, return_dict=False)[0]
        return velocity

    @contextmanager
    def frame_positions(self, networks: Networks, frames: Tensor) -> Iterator[None]:
        """Let the denoiser see only `frames`, at their true positions."""
        with frame_positions(networks.denoiser, frames):
            yield

    def assemble(self, networks: Networks, autoencoder: nn.Module, tokenizer: PreTrainedTokenizerBase) -> AnimateDiffPipeline:
        """Return a stock `AnimateDiffPipeline`, with a second-order solver on the noise levels of training."""
        from diffusers import AnimateDiffPipeline

        pipe = AnimateDiffPipeline(
            vae=autoencoder,
            text_encoder=networks.text_encoder.eval(),
            tokenizer=tokenizer,
            unet=networks.denoiser.eval(),
            motion_adapter=None,
            scheduler=self.scheduler(),
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe


def build_denoiser(widths: tuple[int, int] = (32, 64)) -> UNetMotionModel:
    """Return a UNet of two levels (8 x 8 and 4 x 4 cells) with spatial, cross and temporal attention in every block."""
    from diffusers import UNetMotionModel

    return UNetMotionModel(
        sample_size=SIDE // PATCH,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        down_block_types=("CrossAttnDownBlockMotion", "CrossAttnDownBlockMotion"),
        up_block_types=("CrossAttnUpBlockMotion", "CrossAttnUpBlockMotion"),
        block_out_channels=widths,
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=TEXT_WIDTH,
        num_attention_heads=4,
        motion_num_attention_heads=4,
        motion_max_seq_length=FRAMES,
        use_motion_mid_block=True,
    )


def build_text_encoder(tokenizer: PreTrainedTokenizerBase) -> CLIPTextModel:
    """Return a two-layer CLIP text model, to be trained from scratch: its token embeddings start far apart."""
    from transformers import CLIPTextConfig, CLIPTextModel

    model = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "token_embedding" in name:
                parameter.normal_(0, 1.0)
            elif "position_embedding" in name:
                parameter.normal_(0, 0.3)
    return model


@contextmanager
def frame_positions(denoiser: nn.Module, frames: Tensor) -> Iterator[None]:
    """Let the denoiser see a subset of the frames ``[frame]`` at their true temporal positions."""
    modules = (module for module in denoiser.modules() if isinstance(getattr(module, "pe", None), Tensor))
    embeddings: list[tuple[Any, Any]] = [(module, module.pe) for module in modules]
    for module, table in embeddings:
        module.pe = torch.cat([table[:, frames], table[:, len(frames) :]], dim=1)
    try:
        yield
    finally:
        for module, table in embeddings:
            module.pe = table
