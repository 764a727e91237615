"""Bias-free UNets: two of them trained on different images, with weights and batches of their own.

Networks that begin with the same weights and see their images in the same order agree for that reason alone, so here
they do not. Only the noise that sampling starts from, and adds, is the same for both.
"""

from __future__ import annotations

import torch

from ..denoisers.bias_free import BiasFreeUNet
from ..denoisers.coarse_to_fine import sample, seeded_noise
from ..denoisers.denoising import Denoise, noise_probes
from ..denoisers.training import DenoiserTraining, train_denoiser
from .config import StudyConfig
from .pair import DenoiserPair, Two


def build_network(config: StudyConfig) -> BiasFreeUNet:
    """A bias-free UNet as the settings have it; its weights are drawn in training."""
    # A few channels a pixel lie next to each other: a fifth faster on a CPU.
    return BiasFreeUNet(config.channels, config.width, config.blocks).to(memory_format=torch.channels_last)


def network_pair(config: StudyConfig, train: Two, mean: float, seed: int, name: str) -> DenoiserPair:
    """Train two networks, numbers 0 and 1 of the seed, and draw samples that start from noise around `mean`."""
    networks = [build_network(config), build_network(config)]
    how = DenoiserTraining(steps=config.steps, batch=config.batch, lr=config.lr, seed=seed)
    losses = [train_denoiser(network, train[number], how, number) for number, network in enumerate(networks)]
    noise = (seeded_noise(range(config.samples), train[0].shape[1:], seed) for _ in networks)
    drawn = [sample(network.denoise, mean, one) for network, one in zip(networks, noise)]
    about = {
        "diverged": [int(one.diverged.sum()) for one in drawn],
        "sampling_steps": [float(one.steps.float().mean()) for one in drawn],
        "loss": [sum(part[-100:]) / len(part[-100:]) for part in losses],
    }
    return DenoiserPair(
        (blind(networks[0]), blind(networks[1])), (drawn[0].images, drawn[1].images), noise_probes, about
    )


def blind(network: BiasFreeUNet) -> Denoise:
    """A network as a denoiser that may be told the noise, and does not listen."""
    return lambda y, sigma: network.denoise(y)
