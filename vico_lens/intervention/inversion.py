"""Find the latents from which a stock pipeline generates a given video: DDIM inversion and its flow-matching counterpart.

The stock call itself runs, so that text, guidance, packing and rotary tables are the pipeline's own; only its scheduler is
exchanged, on the instance and for the time of the call, for one that walks the same noise levels upwards. One step of
deterministic sampling from level ``i`` to the next, cleaner level ``n`` is linear in the latents ``x_i`` and the denoiser's
prediction ``m``; it is solved for ``x_i``. As ``m`` depends on ``x_i``, the first guess evaluates it at the cleaner latents, as
usual (arXiv:2105.05233), and every further iteration at the last guess (a fixed point, arXiv:2403.14602). `benchmarks.editing`
measures what comes back on the bundled model.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import wraps
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vico_lens.errors import InputError, ModelError
from vico_lens.tracing.video import to_rgb

__all__ = ["InverseScheduler", "encode_video", "invert"]

Level = tuple[float, float]

Step = tuple[Level, Level]

_FLOW = "flow_prediction"
# These step from t to t - 1000 // N whatever the next listed timestep is; the two differ where N does not divide 1000.
_FIXED_STRIDE = {"DDIMScheduler", "DDIMParallelScheduler", "CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"}


class InverseScheduler:
    """A scheduler that walks from clean latents to noise over the levels of another one.

    Parameters
    ----------
    stock : diffusers.SchedulerMixin
        DDIM or another variance-preserving scheduler, or one of flow matching; a copy is kept.
    iterations : int
        Denoiser evaluations a step; every one after the first refines the fixed point.

    Raises
    ------
    ModelError
        If the latents of `stock` are on another scale (variance-exploding), or its model predicts the clean sample.

    Examples
    --------
    >>> from diffusers import DDIMScheduler
    >>> scheduler = InverseScheduler(DDIMScheduler(), iterations=1)
    >>> scheduler.set_timesteps(4)
    >>> scheduler.timesteps.tolist()
    [0, 250, 500, 750]
    """

    order = 1
    init_noise_sigma = 1.0

    def __init__(self, stock: Any, iterations: int = 2) -> None:
        if iterations < 1:
            raise InputError(f"expected at least one denoiser evaluation a step, got iterations={iterations}.")
        self.stock = copy.deepcopy(stock)
        self.iterations = iterations
        self.prediction = _prediction(stock)
        self.timesteps = self.sigmas = torch.empty(0)
        self.levels: list[Step] = []
        self.count = 0
        self.clean: Tensor | None = None

        @wraps(self.stock.set_timesteps)
        def set_timesteps(*args: Any, **kwargs: Any) -> None:
            self.stock.set_timesteps(*args, **kwargs)
            self.levels = _levels(self.stock, self.prediction)
            self.timesteps = self.stock.timesteps.flip(0).repeat_interleave(self.iterations)
            # One a timestep, for pipelines that read them beside it.
            self.sigmas = torch.tensor([sigma for (_, sigma), _ in reversed(self.levels)]).repeat_interleave(self.iterations)
            self.count, self.clean = 0, None

        # Pipelines look at the signature to decide what to pass, so it is the stock scheduler's.
        self.set_timesteps = set_timesteps

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["stock"], name)

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """Leave the input alone: these schedulers have no scale."""
        return sample

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, return_dict: bool = True, **ignored: Any) -> Any:
        """Give the latents one noise level up, or a better guess of them."""
        from diffusers.schedulers.scheduling_utils import SchedulerOutput

        if self.count % self.iterations == 0:
            self.clean = sample
        assert self.clean is not None  # the line above set it at the first evaluation of this step
        noisy, cleaner = self.levels[len(self.levels) - 1 - self.count // self.iterations]
        self.count += 1
        noisier = _solve(self.clean.float(), model_output.float(), noisy, cleaner, self.prediction)
        noisier = noisier.to(sample.dtype)
        return SchedulerOutput(prev_sample=noisier) if return_dict else (noisier,)


def _prediction(scheduler: Any) -> str:
    """What the denoiser predicts under this scheduler."""
    name = type(scheduler).__name__
    if name.startswith("FlowMatch"):
        return _FLOW
    kind = str(getattr(scheduler.config, "prediction_type", ""))
    if kind not in ("epsilon", "v_prediction", _FLOW) or not (kind == _FLOW or hasattr(scheduler, "alphas_cumprod")):
        raise ModelError(
            f"expected a scheduler whose model predicts noise, velocity or flow, got {name} with prediction_type={kind!r}; "
            "exchange "
            "pipe.scheduler, for example for DDIMScheduler.from_config(pipe.scheduler.config)."
        )
    scale = getattr(scheduler, "init_noise_sigma", 1.0)
    if abs(float(scale) - 1.0) > 1e-3:
        raise ModelError(
            f"expected a scheduler whose latents have unit scale, got {name} with initial noise of {float(scale):.3g}; "
            "exchange pipe.scheduler for DDIMScheduler or DPMSolverMultistepScheduler."
        )
    return kind


def _levels(scheduler: Any, prediction: str) -> list[Step]:
    """Every step, noisiest first: factors of the clean sample and of the noise where it starts and where it ends."""
    if prediction == _FLOW:
        sigmas = [float(sigma) for sigma in scheduler.sigmas]
        if len(sigmas) != len(scheduler.timesteps) + 1:
            raise ModelError(
                f"expected one noise level a timestep of {type(scheduler).__name__} and a clean end, got {len(sigmas)}."
            )
        return list(pairwise((1 - sigma, sigma) for sigma in sigmas))
    starts = [int(t) for t in scheduler.timesteps]
    ends = [*starts[1:], -1]
    if _FIXED_STRIDE & {kind.__name__ for kind in type(scheduler).__mro__}:
        stride = scheduler.config.num_train_timesteps // scheduler.num_inference_steps
        ends = [t - stride for t in starts]
    final = float(getattr(scheduler, "final_alpha_cumprod", 1.0))

    def level(t: int) -> Level:
        share = float(scheduler.alphas_cumprod[t]) if t >= 0 else final
        return share**0.5, (1 - share) ** 0.5

    return [(level(start), level(end)) for start, end in zip(starts, ends, strict=True)]


def _solve(clean: Tensor, predicted: Tensor, noisy: Level, cleaner: Level, prediction: str) -> Tensor:
    """Solve one deterministic step ``noisy -> cleaner`` for the latents it started from."""
    (alpha, sigma), (alpha_next, sigma_next) = noisy, cleaner
    if prediction == _FLOW:
        return clean + (sigma - sigma_next) * predicted
    if prediction == "epsilon":
        return alpha / alpha_next * (clean - sigma_next * predicted) + sigma * predicted
    return (clean - (sigma_next * alpha - alpha_next * sigma) * predicted) / (alpha_next * alpha + sigma_next * sigma)


def encode_video(pipe: Any, video: object) -> Tensor:
    """Encode a video to the clean latents of a pipeline, in its layout and scale.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
        With an image or video autoencoder.
    video : frames
        One video: a list of images or an array (frame, row, column, channel), of the size the pipeline is to generate.

    Returns
    -------
    Tensor [1, ...]
        The mode of the encoder's distribution, no sample of it; in the pipeline's layout of latents.

    Raises
    ------
    ModelError
        If the autoencoder is of a kind that is not known, or the pipeline packs its latents.

    Examples
    --------
    >>> from vico_lens.testing import tiny_pipeline
    >>> tiny = tiny_pipeline("animatediff-t2v")
    >>> latents = encode_video(tiny.pipe, tiny.run(seed=0)[0])
    >>> latents.ndim
    5
    """
    from vico_lens.tracing.families import family_of

    vae, layout = pipe.vae, family_of(pipe).latents
    weight = next(vae.parameters())
    frames = torch.from_numpy(to_rgb(video).astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2).to(weight.device, weight.dtype)
    if layout not in ("BCFHW", "BFCHW"):
        raise ModelError(
            f"expected latents of layout BCFHW or BFCHW, got {layout} of {type(pipe).__name__}; hand clean latents over: "
            "latents=..."
        )
    with torch.no_grad():
        if type(vae).__name__ == "AutoencoderKL":
            latents = vae.encode(frames).latent_dist.mode()[None].movedim(2, 1)
        elif hasattr(vae, "encode"):
            latents = vae.encode(frames.movedim(1, 0)[None]).latent_dist.mode()
        else:
            raise ModelError(
                f"expected an autoencoder with encode(), got {type(vae).__name__}; hand clean latents over: latents=..."
            )
    latents = _scaled(vae, latents.float())
    return latents.movedim(2, 1) if layout == "BFCHW" else latents


def _scaled(vae: Any, latents: Tensor) -> Tensor:
    """Bring encoded latents [video, channel, frame, row, column] to the scale that the denoiser was trained on."""
    mean, deviation = getattr(vae.config, "latents_mean", None), getattr(vae.config, "latents_std", None)
    if mean is not None and deviation is not None:
        shape = (1, -1, 1, 1, 1)
        centre, spread = (latents.new_tensor(values).reshape(shape) for values in (mean, deviation))
        return (latents - centre) / spread * float(getattr(vae.config, "scaling_factor", None) or 1.0)
    shift = float(getattr(vae.config, "shift_factor", None) or 0.0)
    return (latents - shift) * float(getattr(vae.config, "scaling_factor", None) or 1.0)


def invert(
    pipe: Any,
    video: object = None,
    prompt: str | Sequence[str] = "",
    *,
    latents: Tensor | None = None,
    num_inference_steps: int = 50,
    guidance_scale: float = 1.0,
    iterations: int = 4,
    **call: Any,
) -> Tensor:
    """Find the initial latents from which the pipeline generates `video` under `prompt`.

    Generate from them with ``pipe(prompt, latents=latents, num_inference_steps=..., guidance_scale=1.0)`` to get the video back,
    or with another prompt, balanced or not, to edit it.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
        A stock text-to-video pipeline with a deterministic scheduler.
    video : frames
        A list of images or an array (frame, row, column, channel), of the size that the pipeline is to generate.
    prompt : str or sequence of str
        That describes `video`; the empty one does too.
    latents : Tensor, optional
        Clean latents in the place of `video`, in the pipeline's layout and scale.
    num_inference_steps : int
        Noise levels; generate with as many.
    guidance_scale : float
        1 switches guidance off, which inverts best (arXiv:2211.09794).
    iterations : int
        Denoiser evaluations a level; more come closer to the fixed point, see the module.
    **call
        Further arguments of the pipeline's call.

    Returns
    -------
    Tensor
        Latents at the highest noise level, for the ``latents=`` of the call.

    Raises
    ------
    InputError
        If neither or both of `video` and `latents` are given.
    ModelError
        If the scheduler or the autoencoder cannot be inverted.

    Examples
    --------
    >>> from vico_lens.testing import tiny_pipeline
    >>> tiny = tiny_pipeline("animatediff-t2v")
    >>> from diffusers import DDIMScheduler
    >>> tiny.pipe.scheduler = DDIMScheduler.from_config(tiny.pipe.scheduler.config)
    >>> latents = invert(tiny.pipe, tiny.run(seed=0)[0], tiny.prompt, num_inference_steps=2, iterations=1)
    >>> latents.ndim
    5
    """
    from vico_lens.intervention.balancing.injection import shadow

    if (video is None) == (latents is None):
        raise InputError("expected either a video or clean latents to invert, got " + ("neither." if video is None else "both."))
    if latents is None:
        size = to_rgb(video).shape
        call = {"num_frames": size[0], "height": size[1], "width": size[2]} | call
        latents = encode_video(pipe, video)
    restore = shadow(pipe, "scheduler", InverseScheduler(pipe.scheduler, iterations))
    try:
        given = {
            "prompt": prompt,
            "num_inference_steps": num_inference_steps,
            "guidance_scale": guidance_scale,
            "output_type": "latent",
        }
        output = pipe(latents=latents.clone(), **given, **call)
    finally:
        restore()
    inverted = output[0] if isinstance(output, tuple) else output.frames
    if not isinstance(inverted, Tensor) or inverted.shape != latents.shape:
        raise ModelError(
            f"expected {type(pipe).__name__} to return latents of shape {tuple(latents.shape)} for output_type='latent', got "
            f"{tuple(inverted.shape) if isinstance(inverted, Tensor) else type(inverted).__name__}; it cannot be inverted this "
            "way."
        )
    return inverted
