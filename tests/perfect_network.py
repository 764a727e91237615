"""A network that is perfect for Gaussian images, where a pipeline's network is asked for."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from ssd.analysis.gaussian_data import posterior_mean_matrix, power_law_covariance
from ssd.scheduling_ssd import SSDScheduler


class PerfectNetwork:
    """E[D_s x_0 | x_t] for x_0 ~ N(0, C), one channel, called as a FlexiUNet2DModel is."""

    dtype = torch.float32
    config = SimpleNamespace(num_class_embeds=None, in_channels=1, out_channels=1)

    def __init__(self, scheduler: SSDScheduler, covariance: torch.Tensor) -> None:
        self.process, self.covariance = scheduler.process, covariance
        self._matrices: dict[tuple[int, int], torch.Tensor] = {}

    def __call__(self, x_t, timestep, labels=None, return_dict=False, output_size=None):
        size = tuple(output_size or x_t.shape[-2:])
        steps = timestep.expand(len(x_t)).tolist()
        rows = [x.flatten()[None] @ self._matrix(t, size) for x, t in zip(x_t, steps)]
        return (torch.cat(rows).view(-1, 1, *size),)

    def _matrix(self, t: int, size: tuple[int, int]) -> torch.Tensor:
        s = t - 1 if self.process.size(t - 1) == size else t
        key = (t, s)
        if key not in self._matrices:
            self._matrices[key] = posterior_mean_matrix(self.process, self.covariance, s, t).float()
        return self._matrices[key]


def perfect_pipeline(size: int = 8, num_levels: int = 2, **settings) -> tuple[SimpleNamespace, torch.Tensor]:
    """What a `Denoiser` needs of a pipeline, and the covariance of the images."""
    scheduler = SSDScheduler(sample_size=size, num_levels=num_levels, clip_sample=False, **settings)
    covariance = power_law_covariance((size, size))
    network = PerfectNetwork(scheduler, covariance)
    return SimpleNamespace(scheduler=scheduler, unet=network, device=torch.device("cpu")), covariance


def sampled_covariance(scheduler: SSDScheduler, covariance: torch.Tensor, num_images: int, eta: float) -> torch.Tensor:
    """The second moments of the images that a scheduler draws with the perfect network, in float64, seed 0."""
    generator, process = torch.Generator().manual_seed(0), scheduler.process
    x = torch.randn(num_images, 1, *process.size(999), generator=generator, dtype=torch.float64)
    for t in scheduler.timesteps.tolist():
        s = scheduler.previous_timestep(t)
        prediction = x.flatten(1) @ posterior_mean_matrix(process, covariance, s, t)
        x = scheduler.step(prediction.view(-1, 1, *process.size(s)), t, x, eta=eta, generator=generator).prev_sample
    return x.flatten(1).T @ x.flatten(1) / num_images


def gaussian_images(covariance: torch.Tensor, number: int, seed: int = 0) -> torch.Tensor:
    """(number, 1, H, W), float32, square."""
    side = round(len(covariance) ** 0.5)
    white = torch.randn(number, len(covariance), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (white @ torch.linalg.cholesky(covariance).T).view(number, 1, side, side).float()
