"""Every operator of the list: linear algebra that must hold exactly."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd.operators import IdentityOperator, LinearOperator, resize_operator

from .operator_cases import OPERATORS

TOLERANCE = 1e-10
every_operator = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS.keys())


def random_images(size: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@every_operator
def test_adjoint_identity(operator: LinearOperator) -> None:
    x, y = random_images(operator.in_size), random_images(operator.out_size, 1)
    torch.testing.assert_close((operator.forward(x) * y).sum(), (x * operator.adjoint(y)).sum(), atol=TOLERANCE, rtol=0)


@every_operator
def test_dense_form_acts_as_the_operator(operator: LinearOperator) -> None:
    x = random_images(operator.in_size)
    dense = operator.to_dense()
    torch.testing.assert_close(operator.forward(x).flatten(2), x.flatten(2) @ dense.T, atol=TOLERANCE, rtol=0)


@every_operator
def test_spectral_form_reproduces_the_operator(operator: LinearOperator) -> None:
    spectral, x = operator.spectral, random_images(operator.in_size)
    through = spectral.u.apply(spectral.singular_values * spectral.v.apply_transposed(x))
    torch.testing.assert_close(through, operator.forward(x), atol=TOLERANCE, rtol=0)


@every_operator
def test_singular_values_are_those_of_the_dense_form(operator: LinearOperator) -> None:
    expected = torch.linalg.svdvals(operator.to_dense())
    found = operator.spectral.singular_values.flatten().sort(descending=True).values
    torch.testing.assert_close(found, expected[: len(found)], atol=TOLERANCE, rtol=0)
    assert (expected[len(found) :] < TOLERANCE).all()
    rank = int((expected > TOLERANCE).sum())
    assert operator.spectral.has_null_space == (rank < operator.in_size[0] * operator.in_size[1])


@every_operator
def test_singular_bases_are_orthonormal(operator: LinearOperator) -> None:
    spectral = operator.spectral
    z = random_images(tuple(spectral.singular_values.shape))
    for basis in (spectral.u, spectral.v):
        torch.testing.assert_close(basis.apply_transposed(basis.apply(z)), z, atol=TOLERANCE, rtol=0)


@every_operator
def test_wrong_size_names_the_right_one(operator: LinearOperator) -> None:
    with pytest.raises(ValueError, match=f"takes images of {operator.in_size[0]} x {operator.in_size[1]}"):
        operator.forward(torch.zeros(1, 3, 99, 98))


# From two pixels on: for an output one pixel wide torch 2.15 fills all rows with the first one.
@given(height=st.integers(2, 20), width=st.integers(2, 20), data=st.data())
@settings(max_examples=40, deadline=None)
def test_bilinear_is_torch_antialiased_interpolation(height: int, width: int, data: st.DataObject) -> None:
    size = (data.draw(st.integers(2, height)), data.draw(st.integers(2, width)))
    x = random_images((height, width))
    expected = F.interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False)
    torch.testing.assert_close(resize_operator((height, width), size).forward(x), expected, atol=1e-12, rtol=0)


def test_area_is_the_mean_over_blocks() -> None:
    x = random_images((8, 6))
    torch.testing.assert_close(resize_operator((8, 6), (4, 3), "area").forward(x), F.avg_pool2d(x, 2))


def test_area_rows_are_orthogonal() -> None:
    dense = resize_operator((8, 8), (4, 4), "area").to_dense()
    torch.testing.assert_close(dense @ dense.T, torch.eye(16, dtype=torch.float64) / 4)


def test_composition_is_the_product() -> None:
    first, second = resize_operator((8, 8), (4, 4)), resize_operator((4, 4), (2, 2), "area")
    torch.testing.assert_close(second.compose(first).to_dense(), second.to_dense() @ first.to_dense())
    assert IdentityOperator((4, 4)).compose(first) is first
    assert first.compose(IdentityOperator((8, 8))) is first


def test_float32_result_is_close_to_float64() -> None:
    operator, x = resize_operator((16, 16), (8, 8)), random_images((16, 16))
    torch.testing.assert_close(operator.forward(x.float()).double(), operator.forward(x), atol=1e-6, rtol=0)


def test_unknown_kernel_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"'cubic'.*bilinear"):
        resize_operator((8, 8), (4, 4), "cubic")


def test_area_needs_a_whole_factor() -> None:
    with pytest.raises(ValueError, match="whole reduction factor, got 9 -> 4"):
        resize_operator((9, 9), (4, 4), "area")
