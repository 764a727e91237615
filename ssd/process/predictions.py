"""What a network may predict: the clean image, the noise, or the velocity; each one follows from another and x_t.

For a state x_t and a clean image x_0 of the same size, with a^2 + sigma^2 = 1,

    epsilon = (x_t - a x_0) / sigma,    v = a epsilon - sigma x_0 = (a x_t - x_0) / sigma

(arXiv:2006.11239, equation 9; arXiv:2202.00512, appendix D). Names are diffusers'.
"""

from __future__ import annotations

import torch

PREDICTION_TYPES = ("sample", "epsilon", "v_prediction")


def from_sample(kind: str, x_0: torch.Tensor, x_t: torch.Tensor, a: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """The quantity `kind` of a clean image.

    Parameters
    ----------
    kind : {"sample", "epsilon", "v_prediction"}
    x_0 : torch.Tensor
        Clean images, (B, C, H, W).
    x_t : torch.Tensor
        The state; of the same shape, unless kind is "sample".
    a, sigma : torch.Tensor
        Shape () or (B, 1, 1, 1).

    Raises
    ------
    ValueError
        For an unknown kind, and for noise or velocity where x_0 has another size than x_t.
    """
    _check(kind, x_0, x_t)
    if kind == "epsilon":
        return (x_t - a * x_0) / sigma
    return x_0 if kind == "sample" else (a * x_t - x_0) / sigma


def to_sample(
    kind: str, prediction: torch.Tensor, x_t: torch.Tensor, a: torch.Tensor, sigma: torch.Tensor
) -> torch.Tensor:
    """The clean image that a prediction of `kind` stands for: the inverse of `from_sample`, with its arguments.

    Examples
    --------
    >>> x_t, a, sigma = torch.ones(1, 1, 2, 2), torch.tensor(0.6), torch.tensor(0.8)
    >>> v = from_sample("v_prediction", torch.zeros(1, 1, 2, 2), x_t, a, sigma)
    >>> bool(to_sample("v_prediction", v, x_t, a, sigma).abs().max() < 1e-6)
    True
    """
    _check(kind, prediction, x_t)
    if kind == "epsilon":
        return (x_t - sigma * prediction) / a
    return prediction if kind == "sample" else a * x_t - sigma * prediction


def check_prediction_type(prediction_type: str) -> None:
    """Raise a ValueError for a prediction type that there is not."""
    if prediction_type not in PREDICTION_TYPES:
        raise ValueError(f"prediction_type must be one of {', '.join(PREDICTION_TYPES)}, got {prediction_type!r}.")


def _check(kind: str, image: torch.Tensor, x_t: torch.Tensor) -> None:
    check_prediction_type(kind)
    if kind != "sample" and image.shape[-2:] != x_t.shape[-2:]:
        raise ValueError(
            f"{kind} is not defined where the image grows, from {tuple(x_t.shape[-2:])} to {tuple(image.shape[-2:])}: "
            "x_t and its noise say nothing of the finer details. Predict the sample there."
        )
