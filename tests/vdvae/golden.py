"""Golden tensors of the published VDVAE (openai/vdvae, commit ea35b49): one network plain, one that shares weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load_file

from ssd.publishing.published_vdvae import config_from_hparams, convert_vdvae
from vdvae import VDVAEModel

from ..conftest import ROOT

GOLDEN = ROOT / "tests" / "golden" / "vdvae"
NAMES = ("vdvae_16", "ws_vdvae_16")


@dataclass(frozen=True)
class Golden:
    """One network with its inputs and outputs."""

    config: dict[str, Any]
    weights: dict[str, torch.Tensor]
    io: dict[str, torch.Tensor]

    @property
    def shared(self) -> bool:
        return self.config["shared_blocks"] is not None

    @property
    def images(self) -> torch.Tensor:
        return self.io["x_uint8"].permute(0, 3, 1, 2)

    @property
    def uniforms(self) -> torch.Tensor:
        return torch.cat([self.io["u_mixture"], self.io["u_logistic"]], dim=-1).permute(0, 3, 1, 2)

    def cells(self, name: str) -> list[torch.Tensor]:
        """The tensor `name` of every cell, in order."""
        count = sum(key.startswith(f"{name}.") for key in self.io)
        return [self.io[f"{name}.{index}"] for index in range(count)]

    def arguments(self) -> dict[str, Any]:
        shift, scale = self.config["input_shift"], self.config["input_scale"]
        return config_from_hparams(self.config["hparams"], shift, scale, self.shared)

    def model(self) -> VDVAEModel:
        return convert_vdvae(self.weights, self.arguments())


def load_golden(name: str) -> Golden:
    config = json.loads((GOLDEN / name / "config.json").read_text())
    return Golden(config, load_file(GOLDEN / name / "model.safetensors"), load_file(GOLDEN / name / "io.safetensors"))
