"""Video transformers that attend over the whole video and, in a softmax of its own, to the text; and Latte, frame by frame."""

from __future__ import annotations

from vico_lens.tracing.families.base import Family, Rule
from vico_lens.tracing.families.special import with_history

__all__ = ["FAMILIES"]

_PATCH = ("patch_size.0", "patch_size.1", "patch_size.2")


def _blocks(name: str, self_attention: str = "attn1", cross_attention: str = "attn2") -> tuple[Rule, Rule]:
    """Rules of a stack of blocks with full self-attention and text cross-attention."""
    path = rf"(^|\.){name}\.\d+\."
    return (
        Rule(rf"{path}{self_attention}$", "spacetime"),
        # image conditioning attends to its image in an earlier call of the same module
        Rule(rf"{path}{cross_attention}$", "cross", pick="last"),
    )


_WAN = _blocks("(vace_)?blocks")

FAMILIES = (
    Family(
        name="latte",
        title="Latte",
        proven=("latte-t2v",),
        pipelines=("LattePipeline",),
        models=("LatteTransformer3DModel",),
        rules=(
            Rule(r"^transformer_blocks\.\d+\.attn1$", "spatial", ("frame",)),
            Rule(r"^transformer_blocks\.\d+\.attn2$", "cross", ("frame",)),
            Rule(r"^temporal_transformer_blocks\.\d+\.attn1$", "temporal", ("y", "x")),
        ),
        notes="The pipeline trims the text to its kept length.",
    ),
    Family(
        name="wan",
        title="Wan 2.1, Wan 2.2",
        proven=("wan21-t2v", "wan21-i2v", "wan21-v2v", "wan21-vace", "wan22-t2v", "wan22-5b-t2v"),
        pipelines=(
            "WanPipeline",
            "WanImageToVideoPipeline",
            "WanVideoToVideoPipeline",
            "WanVACEPipeline",
            "WanAnimatePipeline",
            "LucyEditPipeline",
            "ChronoEditPipeline",
            "WanModularPipeline",
            "WanImage2VideoModularPipeline",
            "Wan22ModularPipeline",
            "Wan22Image2VideoModularPipeline",
        ),
        models=(
            "WanTransformer3DModel",
            "WanVACETransformer3DModel",
            "WanAnimateTransformer3DModel",
            "ChronoEditTransformer3DModel",
        ),
        rules=(
            *_WAN,
            Rule(r"(^|\.)(face_adapter|face_encoder|motion_encoder)\.", None, reason="attends to a face, not to text or video"),
        ),
        denoisers=("transformer", "transformer_2"),
        patch=_PATCH,
        guidance="passes",
        notes="Two experts share their sites. Image columns of image-to-video are a call of their own and left out.",
    ),
    Family(
        name="skyreels-v2",
        title="SkyReels V2",
        proven=("skyreels-v2-t2v", "skyreels-v2-df"),
        pipelines=(
            "SkyReelsV2Pipeline",
            "SkyReelsV2ImageToVideoPipeline",
            "SkyReelsV2DiffusionForcingPipeline",
            "SkyReelsV2DiffusionForcingImageToVideoPipeline",
            "SkyReelsV2DiffusionForcingVideoToVideoPipeline",
        ),
        models=("SkyReelsV2Transformer3DModel",),
        rules=_WAN,
        patch=_PATCH,
        guidance="passes",
    ),
    Family(
        name="anyflow",
        title="AnyFlow",
        proven=("anyflow-t2v",),
        pipelines=("AnyFlowPipeline",),
        models=("AnyFlowTransformer3DModel",),
        rules=_blocks("blocks"),
        latents="BFCHW",
        patch=_PATCH,
    ),
    Family(
        name="helios",
        title="Helios",
        proven=("helios-t2v",),
        pipelines=(
            "HeliosPipeline",
            "HeliosPyramidPipeline",
            "HeliosModularPipeline",
            "HeliosPyramidModularPipeline",
            "HeliosPyramidDistilledModularPipeline",
        ),
        models=("HeliosTransformer3DModel",),
        rules=(
            Rule(r"^blocks\.\d+\.attn1$", "spacetime", read=with_history),
            Rule(r"^blocks\.\d+\.attn2$", "cross", read=with_history),
        ),
        patch=_PATCH,
        guidance="passes",
        notes="Self-attention that takes in tokens of an earlier chunk is left out: its keys are on other grids.",
    ),
    Family(
        name="ltx",
        title="LTX-Video",
        proven=("ltx-t2v", "ltx-i2v"),
        pipelines=("LTXPipeline", "LTXImageToVideoPipeline", "LTXConditionPipeline", "LTXModularPipeline"),
        models=("LTXVideoTransformer3DModel",),
        rules=_blocks("transformer_blocks"),
        latents="packed",
        notes="Latents come packed; the grid is read from the denoiser's num_frames, height and width.",
    ),
    Family(
        name="ltx2",
        title="LTX-2",
        proven=("ltx2-t2v",),
        pipelines=(
            "LTX2Pipeline",
            "LTX2ImageToVideoPipeline",
            "LTX2ConditionPipeline",
            "LTX2InContextPipeline",
            "LTX2ModularPipeline",
        ),
        models=("LTX2VideoTransformer3DModel",),
        rules=(
            *_blocks("transformer_blocks"),
            Rule(r"\.audio_attn[12]$", None, reason="attends between audio and audio or text"),
            Rule(r"\.(audio_to_video|video_to_audio)_attn$", None, reason="attends between audio and video"),
        ),
        latents="packed",
        crop="front",
        notes="Audio attention is left out. Learned registers stand where the text has padding.",
    ),
    Family(
        name="allegro",
        title="Allegro",
        proven=("allegro-t2v",),
        pipelines=("AllegroPipeline",),
        models=("AllegroTransformer3DModel",),
        rules=_blocks("transformer_blocks"),
        patch=("patch_size_t", "patch_size", "patch_size"),
    ),
    Family(
        name="sana-video",
        title="SANA-Video",
        proven=("sana-t2v",),
        pipelines=("SanaVideoPipeline", "SanaImageToVideoPipeline", "SanaWMPipeline"),
        models=("SanaVideoTransformer3DModel", "SanaWMTransformer3DModel"),
        rules=(
            Rule(r"^transformer_blocks\.\d+\.attn1$", None, reason="linear attention: it has no softmax map"),
            Rule(r"^transformer_blocks\.\d+\.attn2$", "cross"),
        ),
        patch=_PATCH,
        crop="ends",
        notes="Cross-attention only: the linear self-attention has no softmax map.",
    ),
    Family(
        name="cosmos",
        title="Cosmos 1, 2 and 2.5",
        proven=("cosmos-t2w",),
        pipelines=(
            "CosmosTextToWorldPipeline",
            "CosmosVideoToWorldPipeline",
            "Cosmos2VideoToWorldPipeline",
            "Cosmos2_5_PredictBasePipeline",
            "Cosmos2_5_TransferPipeline",
        ),
        models=("CosmosTransformer3DModel",),
        rules=(
            Rule(r"^transformer_blocks\.\d+\.attn1$", "spacetime"),
            Rule(r"^transformer_blocks\.\d+\.attn2$", "cross"),  # 2.5 attends to its image second
        ),
        patch=_PATCH,
        guidance="passes",
        crop="end",
    ),
    Family(
        name="kandinsky5",
        title="Kandinsky 5",
        proven=("kandinsky5-t2v",),
        pipelines=("Kandinsky5T2VPipeline", "Kandinsky5I2VPipeline"),
        models=("Kandinsky5Transformer3DModel",),
        rules=(
            *_blocks("visual_transformer_blocks", "self_attention", "cross_attention"),
            Rule(r"^text_transformer_blocks\.", None, reason="attends within the text, before the denoiser's blocks"),
        ),
        latents="BFHWC",
        patch=_PATCH,
        guidance="passes",
        crop="end",
        notes="The sparse `nabla` attention bypasses torch's kernel and is refused.",
    ),
)
