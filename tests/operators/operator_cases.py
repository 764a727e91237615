"""The one list of operators: a new operator gets all tests by one line here."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ssd.operators import Blur, IdentityOperator, ImplicitOperator, LinearOperator, resize_operator
from ssd.operators.cosine_filter import CosineFilter, cosine_basis, squared_frequencies
from ssd.operators.spectral import SpectralForm


def diagonal_motion(x: torch.Tensor) -> torch.Tensor:
    """A blur that is not separable: the mean of the image and its diagonal neighbour, then every second pixel."""
    return (0.6 * x + 0.4 * x.roll((1, 1), dims=(-2, -1)))[..., ::2, ::2]


OPERATORS: dict[str, LinearOperator] = {
    "identity": IdentityOperator((6, 5)),
    "bilinear": resize_operator((8, 8), (4, 4), "bilinear"),
    "bilinear, non-square": resize_operator((12, 8), (6, 4), "bilinear"),
    "bilinear, odd": resize_operator((9, 7), (5, 4), "bilinear"),
    "bilinear, two levels": resize_operator((6, 4), (3, 2)).compose(resize_operator((12, 8), (6, 4))),
    "area": resize_operator((8, 8), (4, 4), "area"),
    "area, non-square": resize_operator((6, 10), (3, 5), "area"),
    "bicubic": resize_operator((8, 8), (4, 4), "bicubic"),
    "bicubic, odd": resize_operator((9, 11), (5, 6), "bicubic"),
    "lanczos3": resize_operator((12, 12), (6, 6), "lanczos3"),
    "lanczos3, odd": resize_operator((11, 8), (5, 4), "lanczos3"),
    "dct": resize_operator((8, 8), (4, 4), "dct"),
    "dct, odd": resize_operator((9, 7), (4, 3), "dct"),
    "blur": Blur((8, 8), 1.0),
    "blur, odd": Blur((7, 10), 0.7),
    "wide blur": Blur((8, 6), 6.0),
    "blur, then bilinear": resize_operator((8, 12), (4, 6)).compose(Blur((8, 12), 0.8)),
    "bilinear, then blur": Blur((4, 6), 0.5).compose(resize_operator((8, 12), (4, 6))),
    "one pixel less": resize_operator((9, 7), (8, 6), "bilinear"),
    "cosine filter": CosineFilter(cosine_basis((6, 5)), 1 / (1 + squared_frequencies((6, 5)))),
    "implicit": ImplicitOperator(lambda x: F.avg_pool2d(x, 2), (8, 8)),
    "implicit, not separable": ImplicitOperator(diagonal_motion, (6, 8)),
    "implicit of bilinear": Blur((3, 4), 0.4).compose(ImplicitOperator(diagonal_motion, (6, 8))),
}


def tolerance(operator: LinearOperator) -> float:
    """1e-10 in closed form; 1e-6 for the Lanczos fallback."""
    return 1e-10 if isinstance(operator.spectral, SpectralForm) else 1e-6
