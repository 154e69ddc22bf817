"""Models grown from Wan: SkyReels V2 with its diffusion forcing, AnyFlow, and Helios, which keeps a history of earlier chunks."""

from __future__ import annotations

from typing import Any

from vico_lens.testing.pipelines.parts import quiet, umt5
from vico_lens.testing.pipelines.tiny import TINY_PIPELINES, TinyPipeline
from vico_lens.testing.pipelines.wan import CALL, SHAPE, transformer_config, wan_vae


def _skyreels(pipeline: str) -> Any:
    import diffusers

    transformer = diffusers.SkyReelsV2Transformer3DModel(**transformer_config())
    scheduler = diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=8.0)
    return getattr(diffusers, pipeline)(transformer=transformer, vae=wan_vae(), scheduler=scheduler, **umt5(16))


@TINY_PIPELINES.register("skyreels-v2-t2v")
def skyreels() -> TinyPipeline:
    """SkyReels V2: Wan's layout under classes of its own."""
    return TinyPipeline(_skyreels("SkyReelsV2Pipeline"), dict(CALL), SHAPE)


@TINY_PIPELINES.register("skyreels-v2-df")
def diffusion_forcing() -> TinyPipeline:
    """SkyReels V2 diffusion forcing, asynchronous: later frames are a step behind, so the denoiser runs more often than steps."""
    kwargs = CALL | {"base_num_frames": 9, "ar_step": 1, "causal_block_size": 1}
    return TinyPipeline(_skyreels("SkyReelsV2DiffusionForcingPipeline"), kwargs, SHAPE)


@TINY_PIPELINES.register("anyflow-t2v")
def anyflow() -> TinyPipeline:
    """AnyFlow: a flow map, one timestep a latent frame."""
    from diffusers import AnyFlowPipeline, AnyFlowTransformer3DModel, FlowMapEulerDiscreteScheduler

    config = transformer_config(gate_value=0.25, deltatime_type="r")
    del config["qk_norm"]
    transformer = AnyFlowTransformer3DModel(**config)
    scheduler = FlowMapEulerDiscreteScheduler(num_train_timesteps=1000, shift=5.0)
    pipe = AnyFlowPipeline(transformer=transformer, vae=wan_vae(), scheduler=scheduler, **umt5(16))
    return TinyPipeline(pipe, dict(CALL), SHAPE)


@TINY_PIPELINES.register("helios-t2v")
def helios() -> TinyPipeline:
    """Helios: self attention also sees history tokens, cross attention does not; frames come in two chunks of 9."""
    from diffusers import HeliosPipeline, HeliosScheduler, HeliosTransformer3DModel

    config = transformer_config(rope_dim=(4, 4, 4), has_multi_term_memory_patch=True, guidance_cross_attn=True)
    config |= {"zero_history_timestep": True, "is_amplify_history": False}
    del config["rope_max_seq_len"]
    with quiet("__array_wrap__ must accept"):
        scheduler = HeliosScheduler(stage_range=[0, 1], stages=1, use_dynamic_shifting=True)
    pipe = HeliosPipeline(transformer=HeliosTransformer3DModel(**config), vae=wan_vae(), scheduler=scheduler, **umt5(16))
    kwargs = CALL | {"num_frames": 17, "num_latent_frames_per_chunk": 3}
    return TinyPipeline(pipe, kwargs, (1, 17, *SHAPE[2:]), context=lambda: quiet("__array_wrap__ must accept"))
