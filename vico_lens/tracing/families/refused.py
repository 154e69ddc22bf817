"""Video pipelines of diffusers that are not traced, with the reason. A row that another package registers goes first."""

from __future__ import annotations

__all__ = ["REFUSED"]

_ZERO = "it makes frames with an image model whose attention looks across frames"
_UPSAMPLER = "it enlarges latents and has no attention to a text"
_NO_ROW = "nobody has described the layout of its attention yet"

REFUSED: dict[str, str] = {
    "AnyFlowFARPipeline": "its attention is computed by block-masked flex attention, which gives no softmax",
    "Cosmos3OmniPipeline": _NO_ROW,
    "Cosmos3OmniModularPipeline": _NO_ROW,
    "Cosmos3DistilledModularPipeline": _NO_ROW,
    "HunyuanVideoFramepackPipeline": "its softmax takes in frames of earlier sections on coarser grids",
    "I2VGenXLPipeline": "its text tokens stand in one sequence with tokens of the image",
    "Kandinsky6SRPipeline": _NO_ROW,
    "Kandinsky6TI2VAPipeline": _NO_ROW,
    "LTX25ModularPipeline": _NO_ROW,
    "LTX2DFRPipeline": _NO_ROW,
    "LTX2DFRTemporalRefinePipeline": _NO_ROW,
    "LTX2HDRPipeline": _NO_ROW,
    "LTX2LatentUpsamplePipeline": _UPSAMPLER,
    "LTXI2VLongMultiPromptPipeline": "it samples windows of frames that overlap, each with a prompt of its own",
    "LTXLatentUpsamplePipeline": _UPSAMPLER,
    "MiniMaxH3ModularPipeline": _NO_ROW,
    "StableVideoDiffusionPipeline": "it takes no text: there is no prompt to ask about",
    "TextToVideoZeroPipeline": _ZERO,
    "TextToVideoZeroSDXLPipeline": _ZERO,
    "Wan22VaceModularPipeline": _NO_ROW,
    "WanAnimate2ModularPipeline": _NO_ROW,
    "WanAnimate2DistilledModularPipeline": _NO_ROW,
}
"""Class name to reason."""
