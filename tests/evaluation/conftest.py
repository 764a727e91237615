"""Inception weights for the evaluation's tests.

The real weights are not available where these tests were written: the architecture is the real one, with random
weights, so that everything but the values of the weights is exercised.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from ssd.evaluation.features.inception import fid_inception


@pytest.fixture(scope="session")
def random_inception() -> nn.Module:
    torch.manual_seed(0)
    network = fid_inception().eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):  # torch's default shrinks the features of all images to one vector
            nn.init.kaiming_normal_(module.weight)
    return network


@pytest.fixture(scope="session")
def inception_weights(random_inception, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "pt_inception.pth"
    torch.save(random_inception.state_dict(), path)
    return path
