"""Every operator of the list: linear algebra that must hold exactly."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ssd.operators import Blur, IdentityOperator, ImplicitOperator, LinearOperator, resize_operator
from ssd.operators.kernels import KERNELS, dct_matrix
from ssd.operators.spectral import SpectralForm

from ..numerics import random_walk, relative_error
from .operator_cases import OPERATORS, tolerance

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


def dense_svd(operator: LinearOperator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """U, lambda and V^T of the dense matrix, with V square; lambda padded by zeros for the null space."""
    u, lam, vt = torch.linalg.svd(operator.to_dense())
    lam = torch.where(lam > 1e-13 * lam.max(), lam, 0.0)
    padded = torch.zeros(len(vt), dtype=torch.float64)
    padded[: len(lam)] = lam
    return u, padded, vt


@every_operator
def test_gain_is_that_of_the_dense_decomposition(operator: LinearOperator) -> None:
    def g(lam: torch.Tensor) -> torch.Tensor:
        return lam / (0.3 + lam**2)

    u, lam, vt = dense_svd(operator)
    rank = u.shape[0]
    dense = vt[:rank].T @ torch.diag(g(lam[:rank])) @ u[:, : len(vt[:rank])].T
    y = random_images(operator.out_size)
    expected = (y.flatten(2) @ dense.T).view(2, 3, *operator.in_size)
    torch.testing.assert_close(operator.spectral.gain(g, y), expected, atol=tolerance(operator), rtol=0)


@every_operator
def test_covariance_and_root_are_those_of_the_dense_decomposition(operator: LinearOperator) -> None:
    def f(lam: torch.Tensor) -> torch.Tensor:
        return 1.5 - lam

    _, lam, vt = dense_svd(operator)
    covariance = operator.spectral.covariance(f)
    limit = tolerance(operator)
    torch.testing.assert_close(covariance.to_dense(), vt.T @ torch.diag(f(lam)) @ vt, atol=limit, rtol=0)
    x = random_images(operator.in_size)
    root = vt.T @ torch.diag(f(lam).sqrt()) @ vt
    torch.testing.assert_close(covariance.sqrt_apply(x).flatten(2), x.flatten(2) @ root, atol=limit, rtol=0)


@every_operator
def test_largest_singular_value_and_null_space(operator: LinearOperator) -> None:
    _, lam, _ = dense_svd(operator)
    assert operator.spectral.largest_singular_value() == pytest.approx(float(lam.max()), abs=tolerance(operator))
    if isinstance(operator.spectral, SpectralForm):
        assert operator.spectral.has_null_space == bool((lam == 0).any())
        found = operator.spectral.singular_values.flatten().sort(descending=True).values
        torch.testing.assert_close(found, lam[: len(found)], atol=TOLERANCE, rtol=0)


@every_operator
def test_wrong_size_names_the_right_one(operator: LinearOperator) -> None:
    with pytest.raises(ValueError, match=f"takes images of {operator.in_size[0]} x {operator.in_size[1]}"):
        operator.forward(torch.zeros(1, 3, 99, 98))


# From two pixels on: for an output one pixel wide torch 2.15 fills all rows with the first one.
@given(height=st.integers(2, 20), width=st.integers(2, 20), data=st.data())
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
def test_resizing_is_torch_antialiased_interpolation(kernel: str, height: int, width: int, data) -> None:
    size = (data.draw(st.integers(2, height)), data.draw(st.integers(2, width)))
    x = random_images((height, width))
    expected = F.interpolate(x, size=size, mode=kernel, antialias=True, align_corners=False)
    torch.testing.assert_close(resize_operator((height, width), size, kernel).forward(x), expected, atol=1e-12, rtol=0)


def test_area_is_the_mean_over_blocks() -> None:
    x = random_images((8, 6))
    torch.testing.assert_close(resize_operator((8, 6), (4, 3), "area").forward(x), F.avg_pool2d(x, 2))


def test_area_rows_are_orthogonal() -> None:
    dense = resize_operator((8, 8), (4, 4), "area").to_dense()
    torch.testing.assert_close(dense @ dense.T, torch.eye(16, dtype=torch.float64) / 4)


def test_lanczos_is_that_of_pillow() -> None:
    pixels = np.random.default_rng(0).random((12, 10), dtype=np.float32)
    expected = np.array(Image.fromarray(pixels).resize((5, 6), Image.Resampling.LANCZOS))
    found = resize_operator((12, 10), (6, 5), "lanczos3").forward(torch.from_numpy(pixels))
    # Pillow sums in float32, 12 and 10 products; its fixed weights are rounded once more.
    assert relative_error(found, torch.from_numpy(expected)) < random_walk(torch.float32, 2 * (12 + 10))


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_keeps_a_constant_image_and_contracts(kernel: str) -> None:
    operator = resize_operator((16, 12), (8, 6), kernel)
    constant = operator.forward(torch.ones(16, 12, dtype=torch.float64))
    torch.testing.assert_close(constant, torch.ones(8, 6, dtype=torch.float64), atol=TOLERANCE, rtol=0)
    assert 0.45 < operator.spectral.largest_singular_value() < 0.62


def test_dct_is_the_ideal_low_pass() -> None:
    operator = resize_operator((8, 8), (4, 4), "dct")
    torch.testing.assert_close(operator.spectral.singular_values, torch.full((4, 4), 0.5, dtype=torch.float64))
    c = dct_matrix(8)
    high = (c[5][:, None] * c[1]).view(8, 8)
    assert operator.forward(high).abs().max() < 1e-12
    torch.testing.assert_close(c @ c.T, torch.eye(8, dtype=torch.float64))


def test_blurs_add_up_as_the_heat_equation() -> None:
    one = Blur((8, 6), 0.6).compose(Blur((8, 6), 0.8))
    torch.testing.assert_close(one.to_dense(), Blur((8, 6), 1.0).to_dense())
    torch.testing.assert_close(Blur((8, 6), 0.0).to_dense(), torch.eye(48, dtype=torch.float64))
    point = torch.zeros(1, 1, 33, 33, dtype=torch.float64)
    point[..., 16, 16] = 1
    spread = Blur((33, 33), 2.0).forward(point)[0, 0]
    distance = torch.arange(33, dtype=torch.float64) - 16
    assert float((spread.sum(0) * distance**2).sum()) == pytest.approx(4.0, rel=1e-6)  # variance sigma^2
    with pytest.raises(ValueError, match="cannot be negative"):
        Blur((8, 8), -1.0)


def test_per_image_blurs_and_their_compositions() -> None:
    x, sigma = random_images((8, 6)), torch.tensor([0.5, 2.0])
    down = resize_operator((8, 6), (4, 3))
    together = down.compose(Blur((8, 6), sigma))
    for i in range(2):
        alone = down.compose(Blur((8, 6), float(sigma[i])))
        torch.testing.assert_close(together.forward(x)[i], alone.forward(x[i]))
        f = torch.exp
        torch.testing.assert_close(
            together.spectral.covariance(f).sqrt_apply(x)[i], alone.spectral.covariance(f).sqrt_apply(x[i])
        )


def test_implicit_operator_must_be_linear() -> None:
    with pytest.raises(ValueError, match="needs a linear function"):
        ImplicitOperator(lambda x: x**2, (4, 4))


def test_implicit_operator_works_without_gradients_and_in_float32() -> None:
    operator = ImplicitOperator(lambda x: F.avg_pool2d(x, 2), (8, 8))
    expected = resize_operator((8, 8), (4, 4), "area")
    y = random_images((4, 4)).float()
    with torch.inference_mode():
        assert relative_error(operator.adjoint(y), expected.adjoint(y)) < random_walk(torch.float32, 2 * 8)
        covariance = operator.spectral.covariance(lambda lam: 1 - lam)
        noise = random_images((8, 8)).float()
        closed = expected.spectral.covariance(lambda lam: 1 - lam).sqrt_apply(noise)
        four_sums = random_walk(torch.float32, 4 * 8)
        assert relative_error(covariance.sqrt_apply(noise), closed) < four_sums


def test_composition_is_the_product() -> None:
    first, second = resize_operator((8, 8), (4, 4)), resize_operator((4, 4), (2, 2), "area")
    torch.testing.assert_close(second.compose(first).to_dense(), second.to_dense() @ first.to_dense())
    assert IdentityOperator((4, 4)).compose(first) is first
    assert first.compose(IdentityOperator((8, 8))) is first


def test_float32_result_is_close_to_float64() -> None:
    operator, x = resize_operator((16, 16), (8, 8)), random_images((16, 16))
    rounding = random_walk(torch.float32, 2 * 16)  # two sums of 16 products
    assert relative_error(operator.forward(x.float()), operator.forward(x)) < rounding


def test_unknown_kernel_lists_the_known() -> None:
    with pytest.raises(ValueError, match="sizes differ"):
        resize_operator((8, 8), (4, 4)).compose(ImplicitOperator(lambda x: x, (4, 4)))
    with pytest.raises(ValueError, match=r"'cubic'.*bilinear"):
        resize_operator((8, 8), (4, 4), "cubic")


def test_area_needs_a_whole_factor() -> None:
    with pytest.raises(ValueError, match="whole reduction factor, got 9 -> 4"):
        resize_operator((9, 9), (4, 4), "area")
