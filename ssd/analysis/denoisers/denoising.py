"""How well a denoiser does, and how far two of them are apart, at several noise levels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ...seeding import torch_generator

SIGMAS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Noise levels for images in [0, 1]: 34 to 2 dB."""

Denoise = Callable[[torch.Tensor, float], torch.Tensor]
"""(noisy images (B, C, H, W), noise level) -> denoised images; blind denoisers do not look at the level."""


@dataclass(frozen=True)
class Probe:
    """Noisy images and what they hide.

    Attributes
    ----------
    noisy, clean : torch.Tensor
        (B, C, H, W), in the scale of [0, 1].
    level : float
        What the denoiser is told: sigma, or the timestep of a diffusion model.
    sigma : float
        The noise that was added.
    """

    noisy: torch.Tensor
    clean: torch.Tensor
    level: float
    sigma: float


def noise_probes(images: torch.Tensor, seed: int, sigmas: Sequence[float] = SIGMAS) -> list[Probe]:
    """x + sigma z for every sigma, with noise that belongs to (seed, sigma)."""
    found = []
    for sigma in sigmas:
        generator = torch_generator(seed, "probe", round(1e6 * sigma))
        noise = torch.randn(images.shape, generator=generator, dtype=images.dtype)
        found.append(Probe(images + sigma * noise, images, sigma, sigma))
    return found


def decibels(deviation: float) -> float:
    """-20 log10 of a noise level: the input's peak signal-to-noise ratio for images in [0, 1]."""
    return -20 * math.log10(deviation)


@torch.no_grad()
def psnr(denoise: Denoise, probes: Sequence[Probe]) -> list[float]:
    """The peak signal-to-noise ratio after denoising, in dB: the mean over images of -10 log10(|f(y) - x|^2 / d).

    Examples
    --------
    >>> probes = noise_probes(torch.zeros(500, 1, 8, 8), seed=0, sigmas=[0.01, 0.1])
    >>> [round(value) for value in psnr(lambda y, sigma: y, probes)]
    [40, 20]
    """
    found = []
    for probe in probes:
        error = (denoise(probe.noisy, probe.level) - probe.clean).flatten(1).square().mean(dim=1)
        found.append(float(-10 * error.log10().mean()))
    return found


@torch.no_grad()
def function_distance(first: Denoise, second: Denoise, probes: Sequence[Probe]) -> list[float]:
    """How far two denoisers are apart, in units of their errors, per probe. Ours.

        rho = E |f_1(y) - f_2(y)|^2 / E(|f_1(y) - x|^2 + |f_2(y) - x|^2)

    0 for the same function, 1 where their errors are independent; in [0, 2].

    Examples
    --------
    >>> function_distance(lambda y, sigma: y, lambda y, sigma: -y, noise_probes(torch.zeros(4, 1, 8, 8), 0, [0.1]))
    [2.0]
    """
    found = []
    for probe in probes:
        one, two = first(probe.noisy, probe.level), second(probe.noisy, probe.level)
        errors = (one - probe.clean).square().sum() + (two - probe.clean).square().sum()
        found.append(float((one - two).square().sum() / errors))
    return found
