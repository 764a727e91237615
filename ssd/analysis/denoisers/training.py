"""Training a blind denoiser on N images: Adam, a fixed number of steps whatever N is.

Each image of a batch has noise of its own, sigma = u^2 with u uniform on [0, 1], so that little noise is seen often;
the loss is |r(y) - sigma z|^2 per pixel (arXiv:2310.02557 and its code). The learning rate rises and falls in one
cycle (Smith and Topin 2019), which a few thousand steps need; the paper's falls for hundreds of epochs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tqdm.auto import tqdm

from ...seeding import torch_generator
from .bias_free import BiasFreeDenoiser


@dataclass(frozen=True, kw_only=True)
class DenoiserTraining:
    """How a denoiser is trained.

    Parameters
    ----------
    steps : int
        Optimiser steps: the same for all N, so that networks of few images are not trained less.
    batch : int
        Images of a step.
    lr : float
        The highest learning rate of the cycle.
    seed : int
        Of weights, batches and noise.
    """

    steps: int = 2000
    batch: int = 32
    lr: float = 1e-2
    seed: int = 0


def train_denoiser(
    network: BiasFreeDenoiser, images: torch.Tensor, how: DenoiserTraining, number: int = 0, silent: bool = False
) -> list[float]:
    """Initialise and train a network, and leave it in evaluation mode.

    Weights, the order of images and the noise are functions of (how.seed, number): two networks with different
    numbers are independent.

    Parameters
    ----------
    network : BiasFreeDenoiser
    images : torch.Tensor
        (N, C, H, W), in [0, 1], N at least 1.
    how : DenoiserTraining
    number : int
        Which of several networks this is.
    silent : bool
        Show no progress bar.

    Returns
    -------
    list of float
        The loss of every step.
    """
    network.check_size(images.shape[-2:])
    network.initialise(torch_generator(how.seed, "denoiser weights", number))
    generator = torch_generator(how.seed, "denoiser batches", number)
    optimiser = torch.optim.Adam(network.parameters(), lr=how.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, how.lr, total_steps=how.steps)
    network.train()
    losses = []
    for _ in tqdm(range(how.steps), "training", unit=" steps", delay=2, disable=silent, leave=False):
        x = images[torch.randint(len(images), (how.batch,), generator=generator)]
        sigma = torch.rand(how.batch, 1, 1, 1, generator=generator).square()
        noise = sigma * torch.randn(x.shape, generator=generator)
        loss = (network(x + noise) - noise).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    network.eval()
    return losses
