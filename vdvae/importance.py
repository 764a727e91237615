"""The importance-weighted bound (Burda et al., arXiv:1509.00519): several draws of the latents make it tighter.

With K draws of the posterior and log w_k = log p(x | z_k) + log p(z_k) - log q(z_k | x),

    bound_K = - E log( (w_1 + .. + w_K) / K ) / dims,

K = 1 is the evidence lower bound. The expectation never rises with K, and it falls to the true -log p(x) / dims. Of the
same draws, split into groups of K, not even the estimate rises from one K to a multiple of it (Jensen's inequality).

Shape letters: B batch, N draws.
"""

from __future__ import annotations

import math

import torch

from .modeling_vdvae import VDVAEModel
from .noise import Generators


@torch.no_grad()
def log_weights(
    model: VDVAEModel, images: torch.Tensor, num_samples: int, generator: Generators = None
) -> torch.Tensor:
    """log w of several draws, (N, B), nats per image, float64.

    Parameters
    ----------
    model : VDVAEModel
    images : torch.Tensor
        (B, C, S, S), integers.
    num_samples : int
        N.
    generator : torch.Generator or sequence of them, optional
        One, or one per image; they go on from draw to draw.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}.")
    draws = (model.elbo(images, generator=generator, sampled_kl=True).elbo.double() for _ in range(num_samples))
    return -torch.stack([draw * model.num_dims for draw in draws])


def importance_weighted_bound(log_weights: torch.Tensor, num_samples: int) -> torch.Tensor:
    """The bound with K = `num_samples`, (B,), nats per image: the mean over the N / K groups of draws.

    Parameters
    ----------
    log_weights : torch.Tensor
        (N, B), of `log_weights`.
    num_samples : int
        K, which divides N.

    Examples
    --------
    >>> draws = torch.tensor([[0.0], [-2.0]])
    >>> [round(float(importance_weighted_bound(draws, k)), 3) for k in (1, 2)]
    [1.0, 0.566]
    """
    if num_samples < 1 or len(log_weights) % num_samples:
        raise ValueError(f"num_samples must divide the {len(log_weights)} draws, got {num_samples}.")
    groups = log_weights.unflatten(0, (-1, num_samples))
    return -(groups.logsumexp(dim=1) - math.log(num_samples)).mean(dim=0)
