"""How near is near: bounds that follow from the arithmetic, so that tests pass on any CPU.

Kernels differ between CPUs in the order of their sums, so results differ in the last bits. Errors are therefore
measured in the Euclidean norm, against a result in float64 where there is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel


def relative_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """|found - exact| / |exact|, computed in float64."""
    found, exact = found.detach().double(), exact.detach().double()
    assert found.shape == exact.shape
    return float((found - exact).norm() / exact.norm())


def random_walk(dtype: torch.dtype, roundings: float) -> float:
    """The relative error that this many independent rounding errors of at most eps / 2 add up to: as a random walk.

    (N. J. Higham and T. Mary, A new approach to probabilistic rounding error analysis, 2019.) Rounding errors are
    smaller than eps / 2 on average, which leaves room.
    """
    return roundings**0.5 * torch.finfo(dtype).eps / 2


def network_rounding(network: nn.Module, dtype: torch.dtype = torch.float32) -> float:
    """The relative error of a network's output: its layers follow each other, and norms keep their gain near 1.

    In float32 every product of a layer's sum is rounded. Half precision multiplies exactly and sums in float32: there
    inputs, weights and results are rounded.
    """
    weights = [module.weight for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    per_layer = max(weight[0].numel() for weight in weights) if dtype == torch.float32 else 3
    return random_walk(dtype, len(weights) * per_layer)


@contextmanager
def plain_attention() -> Iterator[None]:
    """Attention as matrix products and a softmax.

    PyTorch's fused bfloat16 attention stops with an error where ATEN_CPU_CAPABILITY hides vector instructions that the
    CPU has.
    """
    with sdpa_kernel(SDPBackend.MATH):
        yield
