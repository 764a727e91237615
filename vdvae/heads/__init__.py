"""Likelihoods of the pixels given what the network says: `make_head` by name.

Every head is a distribution over the grey levels 0..L-1 of a pixel whose probabilities sum to 1; a head has no weights.

Shape letters: B batch, C image channels, H W the image's size, P channels of parameters, U of uniform numbers.
"""

from __future__ import annotations

from typing import Protocol

import torch

from .bernoulli import BernoulliHead
from .gaussian import GaussianHead
from .logistic_mixture import LogisticMixtureHead
from .pixels import COMPATIBILITIES, Compatibility, Pixels
from .published import PublishedLogisticMixtureHead

__all__ = ["LIKELIHOODS", "Compatibility", "Head", "Pixels", "make_head"]

LIKELIHOODS = ("logistic_mixture", "bernoulli", "gaussian")


class Head(Protocol):
    """What all heads have.

    Attributes
    ----------
    num_parameters : int
        P.
    num_uniforms : int
        U.
    """

    num_parameters: int
    num_uniforms: int

    def log_prob(self, parameters: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Log probability of every pixel, all its channels together, in nats.

        Parameters
        ----------
        parameters : torch.Tensor
            (B, P, H, W), the network's output.
        images : torch.Tensor
            (B, C, H, W), integers.

        Returns
        -------
        torch.Tensor
            (B, H, W), float32 or the wider dtype of `parameters`.
        """

    def sample(self, parameters: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
        """Images drawn with given uniform numbers.

        Parameters
        ----------
        parameters : torch.Tensor
            (B, P, H, W).
        uniforms : torch.Tensor
            (B, U, H, W), in [0, 1).

        Returns
        -------
        torch.Tensor
            (B, C, H, W), int64, in the range of the input images.
        """


def make_head(
    likelihood: str,
    in_channels: int,
    levels: int,
    input_levels: int,
    num_mixtures: int,
    compatibility: Compatibility = "exact",
) -> Head:
    """The head of a name.

    Parameters
    ----------
    likelihood : {"logistic_mixture", "bernoulli", "gaussian"}
    in_channels : int
        C; 1 or 3 for the mixture.
    levels : int
        L, the grey levels that the likelihood distinguishes.
    input_levels : int
        The grey levels of the input images, a multiple of L.
    num_mixtures : int
        Components of the mixture.
    compatibility : {"exact", "published"}
        published: the head of the published checkpoints, see `PublishedLogisticMixtureHead`.

    Raises
    ------
    ValueError
        For settings that do not exist or do not fit.
    """
    if likelihood not in LIKELIHOODS:
        raise ValueError(f"likelihood must be one of {', '.join(LIKELIHOODS)}, got {likelihood!r}.")
    if compatibility not in COMPATIBILITIES:
        raise ValueError(f"likelihood_compat must be one of {', '.join(COMPATIBILITIES)}, got {compatibility!r}.")
    pixels = Pixels(levels, input_levels)
    if compatibility == "published" and likelihood != "logistic_mixture":
        raise ValueError(f'likelihood_compat="published" exists for logistic_mixture alone, not for {likelihood}.')
    if likelihood == "bernoulli":
        return BernoulliHead(in_channels, pixels)
    if likelihood == "gaussian":
        return GaussianHead(in_channels, pixels)
    mixture = PublishedLogisticMixtureHead if compatibility == "published" else LogisticMixtureHead
    return mixture(in_channels, num_mixtures, pixels)
