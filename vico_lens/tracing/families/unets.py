"""UNet families: spatial and cross-attention frame by frame, temporal attention place by place, grids halved level by level."""

from __future__ import annotations

from vico_lens.tracing.families.base import Family, Rule

__all__ = ["FAMILIES"]

# Both attentions of a temporal block attend over frames: its `attn2` is not cross-attention.
_TEMPORAL = r"transformer_blocks\.\d+\.attn[12]$"
_SPATIAL = (
    Rule(r"(^|\.)attentions\.\d+\.transformer_blocks\.\d+\.attn1$", "spatial", ("frame",)),
    Rule(r"(^|\.)attentions\.\d+\.transformer_blocks\.\d+\.attn2$", "cross", ("frame",)),
)

FAMILIES = (
    Family(
        name="animatediff",
        title="AnimateDiff",
        proven=("animatediff-t2v", "animatediff-v2v"),
        pipelines=(
            "AnimateDiffPipeline",
            "AnimateDiffVideoToVideoPipeline",
            "AnimateDiffControlNetPipeline",
            "AnimateDiffSparseControlNetPipeline",
            "AnimateDiffVideoToVideoControlNetPipeline",
            "AnimateDiffSDXLPipeline",
            "AnimateDiffPAGPipeline",
            "PIAPipeline",
        ),
        models=("UNetMotionModel",),
        rules=(Rule(r"motion_modules\.\d+\." + _TEMPORAL, "temporal", ("y", "x")), *_SPATIAL),
        denoisers=("unet",),
        sample="sample",
        patch=(1, 1, 1),
        levels=-1,
        notes="FreeNoise attends in windows of frames and is refused. An image adapter's extra calls are left out.",
    ),
    Family(
        name="text-to-video-sd",
        title="ModelScope, ZeroScope",
        proven=("zeroscope-t2v", "zeroscope-v2v"),
        pipelines=("TextToVideoSDPipeline", "VideoToVideoSDPipeline"),
        models=("UNet3DConditionModel",),
        rules=(Rule(r"(temp_attentions\.\d+|transformer_in)\." + _TEMPORAL, "temporal", ("y", "x")), *_SPATIAL),
        denoisers=("unet",),
        sample="sample",
        patch=(1, 1, 1),
        levels=-1,
        notes="Deprecated by diffusers.",
    ),
)
