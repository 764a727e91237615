"""The Haar basis against PyWavelets, and its identities: rows 1 to 5 of the table in docs/bridges.md."""

from __future__ import annotations

from itertools import product

import pytest
import pywt
import torch

from ssd.operators import haar
from ssd.operators.resize import resize_operator

SIZES = [(16, 16), (32, 16), (8, 24)]
EXACT = {"rtol": 0, "atol": 1e-10}


def white(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("levels", [0, 1, 3])
def test_coefficients_are_those_of_pywavelets(size: tuple[int, int], levels: int) -> None:
    images = white(2, 3, *size)
    expected = pywt.wavedec2(images.numpy(), "haar", level=levels, axes=(-2, -1))
    found = list(haar.subbands(haar.analysis(images, levels), levels).values())
    flat = [expected[0], *(band for bands in expected[1:] for band in bands)]
    assert len(found) == len(flat) == 1 + 3 * levels
    for ours, theirs in zip(found, flat):
        theirs = torch.from_numpy(theirs)
        torch.testing.assert_close(ours, theirs / (size[0] * size[1]) ** 0.5, **EXACT)


@pytest.mark.parametrize("size", SIZES)
def test_spaces_are_nested(size: tuple[int, int]) -> None:
    """Row 1: pool(embed(p)) = p, and the coefficients of embed(p) are those of p and no details."""
    images = white(4, *size)
    torch.testing.assert_close(haar.pool(haar.embed(images)), images, **EXACT)
    coefficients = haar.analysis(haar.embed(images))
    torch.testing.assert_close(haar.coarse(coefficients), haar.analysis(images), **EXACT)
    bands = haar.subbands(coefficients)
    finest = (2 * size[0], 2 * size[1])
    assert max(float(bands[finest, orientation].abs().max()) for orientation in haar.ORIENTATIONS) <= 1e-10


@pytest.mark.parametrize("size", SIZES)
def test_pooling_is_projection(size: tuple[int, int]) -> None:
    """Row 2, theorem 2, at every level down to the coarsest."""
    images = white(4, *size)
    coefficients, pooled = haar.analysis(images), images
    for level in range(1, haar.halvings(size) + 1):
        pooled = haar.pool(pooled)
        torch.testing.assert_close(pooled, haar.pool(images, level), **EXACT)
        torch.testing.assert_close(haar.analysis(pooled), haar.coarse(coefficients, level), **EXACT)
        without = torch.zeros_like(coefficients)
        haar.coarse(without, level).copy_(haar.coarse(coefficients, level))
        torch.testing.assert_close(haar.project(images, level), haar.synthesis(without), **EXACT)


@pytest.mark.parametrize("size", SIZES)
def test_the_basis_is_orthonormal(size: tuple[int, int]) -> None:
    """Row 3."""
    images = white(4, *size)
    coefficients = haar.analysis(images)
    torch.testing.assert_close(coefficients.square().sum(dim=(-2, -1)), images.square().mean(dim=(-2, -1)), **EXACT)
    torch.testing.assert_close(haar.synthesis(coefficients), images, **EXACT)
    torch.testing.assert_close(sum(haar.energies(images).values()), images.square().mean(dim=(-2, -1)), **EXACT)
    torch.testing.assert_close(haar.synthesis(haar.analysis(images, 1), 1), images, **EXACT)


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic", "lanczos3", "dct"])
def test_other_kernels_are_no_projections(kernel: str) -> None:
    """Row 4, the negative control."""
    images = white(4, 16, 16)
    shrunk = resize_operator((16, 16), (8, 8), kernel).forward(images)
    expected = haar.coarse(haar.analysis(images))
    assert float((haar.analysis(shrunk) - expected).norm() / expected.norm()) > 0.3


@pytest.mark.parametrize("size", SIZES)
def test_the_area_kernel_is_the_projection(size: tuple[int, int]) -> None:
    """Row 5."""
    operator = resize_operator(size, (size[0] // 2, size[1] // 2), "area")
    dense = operator.to_dense()
    torch.testing.assert_close(dense @ dense.T, torch.eye(len(dense), dtype=torch.float64) / 4, **EXACT)
    assert float((operator.spectral.singular_values - 0.5).abs().max()) <= 1e-10
    images = white(4, *size)
    torch.testing.assert_close(operator.forward(images), haar.pool(images), **EXACT)
    torch.testing.assert_close(4 * operator.adjoint(operator.forward(images)), haar.project(images), **EXACT)
    detail = images - haar.project(images)  # spans the null space
    torch.testing.assert_close(operator.forward(detail), torch.zeros_like(haar.pool(images)), **EXACT)


def test_details_are_orthogonal_and_complete() -> None:
    images = white(3, 16, 8)
    parts = haar.details(images)
    assert list(parts) == [(2, 1), (4, 2), (8, 4), (16, 8)]
    torch.testing.assert_close(sum(parts.values()), images, **EXACT)
    for (size, part), (other_size, other) in product(parts.items(), repeat=2):
        if size != other_size:
            assert float((part * other).mean(dim=(-2, -1)).abs().max()) <= 1e-10
    found = haar.energies(images)
    for size, part in parts.items():
        energy = sum(value for (own, _), value in found.items() if own == size)
        torch.testing.assert_close(part.square().mean(dim=(-2, -1)), energy, **EXACT)


def test_derivatives() -> None:
    images = white(2, 8, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: haar.synthesis(haar.analysis(x).tanh(), 2), images)


@pytest.mark.parametrize("function", [haar.pool, haar.project, haar.analysis, haar.synthesis, haar.subbands])
def test_sides_that_cannot_be_halved(function) -> None:
    with pytest.raises(ValueError, match="Images of 6 x 4 pixels can be halved 1 times, got levels=2"):
        function(torch.zeros(6, 4), 2)
