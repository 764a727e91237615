"""Bringing small tensors to a device."""

import pytest
import torch

from ssd.operators import Blur, resize_operator
from ssd.operators.placing import like, to_device

from .device_copies import watch_copies_to_meta


def test_on_the_cpu_nothing_is_copied() -> None:
    t = torch.arange(3)
    assert to_device(t, "cpu") is t
    assert like(torch.ones(2), torch.zeros(2)).dtype == torch.float32
    number = torch.ones((), dtype=torch.float64)
    assert like(number, torch.zeros(2, device="meta")) is number


def test_coefficients_take_the_dtype_and_the_device_of_the_images(monkeypatch) -> None:
    copies = watch_copies_to_meta(monkeypatch)
    with copies:
        found = like(torch.ones(2, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float32, device="meta"))
    assert (found.dtype, found.device.type, found.shape) == (torch.float32, "meta", (2, 1))
    assert copies.copies == 1


def test_a_copy_from_ordinary_memory_is_noticed(monkeypatch) -> None:
    """The watch itself: it must see what the other tests rely on."""
    with watch_copies_to_meta(monkeypatch), pytest.raises(AssertionError, match="waits for the device"):
        torch.ones(2).to("meta")
    with watch_copies_to_meta(monkeypatch), pytest.raises(AssertionError, match="ordinary memory"):
        torch.ones(2).to("meta", non_blocking=True)


@pytest.mark.parametrize("operator", [resize_operator((8, 8), (4, 4)), Blur((8, 8), torch.tensor([0.5, 1.0]))])
def test_operators_never_wait_for_the_device(operator, monkeypatch) -> None:
    copies = watch_copies_to_meta(monkeypatch)
    x, y = (torch.zeros(2, 3, *size, device="meta") for size in (operator.in_size, operator.out_size))
    with copies:
        operator.forward(x)
        operator.adjoint(y)
        operator.spectral.gain(lambda lam: lam, y)
        covariance = operator.spectral.covariance(lambda lam: 1 - lam / 2)
        covariance.apply(x)
        covariance.sqrt_apply(x)
    assert copies.copies > 0
