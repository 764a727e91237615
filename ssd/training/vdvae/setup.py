"""From settings to the parts of a run of VDVAE: data, network, and where it continues; checked on all processes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from accelerate import Accelerator

from vdvae import VDVAEModel

from ...commands.errors import UsageError
from ...data.dataset import ImageDataset
from ...data.held_out import hold_out
from ...publishing.saving import load_vdvae
from ..checkpoints import check_fits
from ..run_folder import check_out_folder, check_same_data
from ..starting import RunSetup, agreed, copy_weights, open_images
from ..summary import PIPELINE, describe
from .config import VDVAETrainConfig

PART = "vdvae"
"""What the network is called in its pipeline, and in checkpoints."""


@dataclass
class VDVAESetup(RunSetup):
    """What a run of VDVAE starts with.

    Attributes
    ----------
    network : VDVAEModel
        On the CPU, with new weights, or those of --init_from.
    held_out : ImageDataset, optional
        The images that are not learned from.
    """

    config: VDVAETrainConfig
    network: VDVAEModel
    held_out: ImageDataset | None

    @property
    def summary(self) -> str:
        """The resolved configuration, the network, and what will be written."""
        files = {"model_index.json, vdvae/": PIPELINE.format(name="VDVAEPipeline")}
        return describe(self.config, self.dataset.count, network_lines(self.network), files)


def set_up_vdvae(config: VDVAETrainConfig, accelerator: Accelerator) -> VDVAESetup:
    """The parts of the run that `config` describes; nothing is written.

    Raises
    ------
    UsageError
        On all processes, if one finds something wrong or they disagree.
    """
    return agreed(lambda: _set_up(config), accelerator)


def _set_up(config: VDVAETrainConfig) -> VDVAESetup:
    torch.manual_seed(config.seed)  # of the network's first weights
    start = check_out_folder(config)
    network = build_vdvae(config)
    dataset, held_out = open_images(config), None
    notes = [*start.notes, *dataset.opening_notes]
    if config.num_valid:
        dataset, held_out = hold_out(dataset, config.num_valid)
    if start.checkpoint is not None:
        check_same_data(config, start.checkpoint, dataset.provenance)
        check_fits(start.checkpoint, network, PART)
    elif config.init_from:
        copy_weights(network, load_vdvae(config.init_from), config.init_from)
    return VDVAESetup(config, dataset, start, notes, network, held_out)


def build_vdvae(config: VDVAETrainConfig) -> VDVAEModel:
    """The network that `config` describes, with new weights."""
    try:
        return VDVAEModel(**config.model_arguments)
    except ValueError as error:
        raise UsageError(f"The network cannot be built. {error}") from error


def network_lines(model: VDVAEModel) -> list[str]:
    """Lines on the network: parameters, cells, and the latents of every resolution."""
    millions = model.num_parameters() / 1e6
    applied = Counter(spec.resolution for spec in model.cells)
    own = Counter(spec.resolution for spec in {spec.module: spec for spec in model.cells}.values())
    latents: Counter[int] = Counter()
    for channels, side, _ in model.latent_shapes:
        latents[side] += channels * side * side
    lines = [f"Network: {millions:.3g} M parameters, {len(model.cells)} cells applied", ""]
    lines += [f"  {'resolution':10} {'cells applied':>14} {'with own weights':>17} {'latents per image':>18}"]
    return lines + [f"  {side:<10} {applied[side]:14d} {own[side]:17d} {latents[side]:18d}" for side in sorted(applied)]
