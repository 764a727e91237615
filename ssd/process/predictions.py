"""What a network may predict: the clean image, the noise, the velocity, or what a linear estimate leaves.

Every output F of a network stands for the clean image

    x_hat = offset(x_t) + scale F

For a state x_t and an image x_0 of the same size, with a^2 + sigma^2 = 1,

    sample           offset = 0                      scale = 1
    epsilon          offset = x_t / a                scale = -sigma / a      (arXiv:2006.11239, equation 9)
    v_prediction     offset = a x_t                  scale = -sigma          (arXiv:2202.00512, appendix D)
    preconditioned   offset = the linear estimate    scale = its error's     (`ssd.process.preconditioning`)

The last one alone is defined where the image grows, too; the others are the sample there. Names are diffusers'.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

PREDICTION_TYPES = ("sample", "epsilon", "v_prediction", "preconditioned")


@dataclass(frozen=True)
class Conversion:
    """From a network's output to the clean image, and back.

    Attributes
    ----------
    offset : torch.Tensor or None
        (B, C, H, W); None for 0.
    scale : torch.Tensor
        () or (B, 1, 1, 1), not 0.

    Examples
    --------
    >>> x_t, a, sigma = torch.ones(1, 1, 2, 2), torch.tensor(0.6), torch.tensor(0.8)
    >>> v = conversion("v_prediction", x_t, a, sigma)
    >>> bool(v.to_sample(v.from_sample(torch.zeros(1, 1, 2, 2))).abs().max() < 1e-6)
    True
    """

    offset: torch.Tensor | None
    scale: torch.Tensor

    def to_sample(self, prediction: torch.Tensor) -> torch.Tensor:
        """The clean image that a network's output stands for: (B, C, H, W) for both."""
        return prediction if self.offset is None else self.offset + self.scale * prediction

    def from_sample(self, x_0: torch.Tensor) -> torch.Tensor:
        """The output that stands for a clean image."""
        return x_0 if self.offset is None else (x_0 - self.offset) / self.scale

    def divided(self, factor: float) -> Conversion:
        """The same for images that are `factor` times smaller."""
        return self if factor == 1 or self.offset is None else Conversion(self.offset / factor, self.scale / factor)


def conversion(kind: str, x_t: torch.Tensor, a: torch.Tensor, sigma: torch.Tensor) -> Conversion:
    """That of the sample, the noise or the velocity, of the size of x_t.

    Parameters
    ----------
    kind : {"sample", "epsilon", "v_prediction"}
    x_t : torch.Tensor
        The state, (B, C, H, W).
    a, sigma : torch.Tensor
        Shape () or (B, 1, 1, 1), in the dtype of x_t.

    Raises
    ------
    ValueError
        For another kind.
    """
    scale = output_scale(kind, a, sigma)
    if kind == "sample":
        return Conversion(None, scale)
    return Conversion(x_t / a if kind == "epsilon" else a * x_t, scale)


def output_scale(kind: str, a: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """How far the clean image moves with the output: the scale of `conversion`, with its last arguments."""
    check_prediction_type(kind)
    return {"sample": torch.ones_like(a), "epsilon": -sigma / a, "v_prediction": -sigma}[kind]


def check_prediction_type(prediction_type: str) -> None:
    """Raise a ValueError for a prediction type that there is not."""
    if prediction_type not in PREDICTION_TYPES:
        raise ValueError(f"prediction_type must be one of {', '.join(PREDICTION_TYPES)}, got {prediction_type!r}.")
