"""From a picture to a noisy state from which it is drawn again: DDIM's inversion, within the finest level.

With eta = 0 a step within a level is a step of an ordinary differential equation, which can be gone backwards
(arXiv:2010.02502, section 4.3), from s to t > s:

    x_t = a_t x_hat + (sigma_t / sigma_s) (x_s - a_s x_hat),    x_hat predicted from x_s instead of x_t

so that the ways there and back differ by what the prediction changes in a step: the shorter the steps, the less.
Coarser levels have no way back, since a level change forgets details. The picture is taken for the state of least
noise, a_0 x_0, which is near its own: on the exact flow they differ by O(sigma_0^2).

Shape letters: B batch, C channels, H W full resolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..operators.placing import like
from ..process.scale_space import ScaleSpaceProcess
from .components import check_scale_space
from .denoising_pipeline import DenoisingPipeline
from .guidance import Labels
from .pictures import Pictures, fitted, read_pictures


@dataclass(frozen=True)
class Inverted:
    """A state, and the chain that leads from it back to the picture.

    Attributes
    ----------
    latents : torch.Tensor
        x_t, (B, C, H, W).
    timesteps : list of int
        t, .., 0: both are arguments of an `SSDPipeline`, with eta=0.
    """

    latents: torch.Tensor
    timesteps: list[int]


@torch.no_grad()
def invert(
    pipeline: DenoisingPipeline,
    image: Pictures,
    *,
    timestep: int | None = None,
    num_inference_steps: int = 100,
    class_labels: Labels = None,
) -> Inverted:
    """The state of pictures at a timestep of the finest level.

    Parameters
    ----------
    pipeline : DenoisingPipeline
        With an `SSDScheduler` without blur. Its sampler should be of first order on the way back, as this one is.
    image : PIL picture, array, tensor, or a list of them
        See `read_pictures`; one of another size is resized and cut.
    timestep : int, optional
        t, in the finest level. Default: its last one, from which the next coarser level begins.
    num_inference_steps : int
        The number of steps, each a call of the network, at most t + 1. More are more exact.
    class_labels
        As of `SSDPipeline`, for class-conditional models.

    Raises
    ------
    TypeError
        For schedulers other than `SSDScheduler`.
    ValueError
        For a timestep that is not in the finest level, and for a number of steps that it does not have.

    Examples
    --------
    >>> from flexi_unet import FlexiUNet2DModel
    >>> from ssd import SSDPipeline, SSDScheduler
    >>> unet = FlexiUNet2DModel(sample_size=16, block_out_channels=(32, 32))
    >>> pipe = SSDPipeline(unet, SSDScheduler(sample_size=16, num_levels=2))
    >>> pipe.set_progress_bar_config(disable=True)
    >>> there = invert(pipe, torch.zeros(1, 3, 16, 16), timestep=300, num_inference_steps=5)
    >>> there.timesteps, there.latents.shape
    ([300, 225, 150, 75, 0], torch.Size([1, 3, 16, 16]))
    >>> pipe(latents=there.latents, timesteps=there.timesteps, eta=0.0, output_type="pt").images.shape
    torch.Size([1, 3, 16, 16])
    """
    scheduler = check_scale_space(pipeline.scheduler, "inversion")
    chain = _chain(scheduler.process, timestep, num_inference_steps)
    pictures = read_pictures(image, pipeline.unet.config.in_channels)
    x_0 = fitted(pictures, scheduler.resolutions[0])[0].to(pipeline._execution_device)
    denoising = pipeline._prepare(len(x_0), timesteps=chain, class_labels=class_labels, eta=0.0)
    x = like(scheduler.process.signal(0), x_0) * x_0
    for s, t in pipeline.progress_bar(list(zip(chain[::-1], chain[-2::-1]))):
        output = denoising.predict(denoising.network, x, s, torch.tensor([s], device=x.device))
        x_hat = scheduler.clean_image(output, x, s, scheduler.previous_timestep(s))
        x = deterministic_step(scheduler.process, x_hat, x, s, t)
    return Inverted(x, chain)


def deterministic_step(
    process: ScaleSpaceProcess, x_hat: torch.Tensor, x_s: torch.Tensor, s: int, t: int
) -> torch.Tensor:
    """The state at t of one level, on the line of the state at s of the same level and a clean image.

    Parameters
    ----------
    x_hat, x_s : torch.Tensor
        (B, C, H, W).
    s, t : int
        Either may be the noisier one; s >= 0.
    """
    scaled = process.from_target(x_hat, s)
    ratio = like(process.sigma(t) / process.sigma(s), x_s)
    return like(process.signal(t), x_s) * scaled + ratio * (x_s - like(process.signal(s), x_s) * scaled)


def _chain(process: ScaleSpaceProcess, timestep: int | None, number: int) -> list[int]:
    """`number` timesteps t, .., 0, about even.

    Raises
    ------
    ValueError
        When the finest level does not have them, or blurs.
    """
    last = (*process.resolution.level_changes, process.num_timesteps)[0] - 1
    timestep = last if timestep is None else timestep
    if not 1 <= timestep <= last:
        raise ValueError(f"timestep must be one of the finest level, 1..{last}, got {timestep}.")
    if not 2 <= number <= timestep + 1:
        raise ValueError(f"num_inference_steps must be in 2..{timestep + 1} for timestep {timestep}, got {number}.")
    if not process.operator(-1, timestep).is_identity:
        raise ValueError("This process blurs its images, which cannot be undone step by step: use one without blur.")
    return [round(timestep * (number - 1 - i) / (number - 1)) for i in range(number)]
