"""What the best denoiser does near a manifold of images, for small noise: it projects on the tangent space.

Let x(theta) be images with p parameters, and y = x + sigma z. While sigma is small against the curvature, the
posterior of x given y is Gaussian in the tangent space at x, with covariance sigma^2 Q Q^T, Q (D, p) an orthonormal
basis of it. So the Jacobian of the best denoiser, J = Cov[x|y] / sigma^2 (Miyasawa 1961), has p eigenvalues 1, whose
eigenvectors span the tangent space, the others are 0, and the squared error is p sigma^2 (arXiv:2310.02557). Discs have
p = 5, sines 2, the rescaled copies of one image 1.

Images are tensors of any shape, flattened to D pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import subspace_angles

from ...seeding import torch_generator

ImageOf = Callable[[torch.Tensor], torch.Tensor]
"""From parameters (p,) to an image, differentiable."""

PROPOSAL_WIDTH = 1.3
"""Standard deviation from which `local_posterior` draws, in units of the posterior's."""


def jacobian_of_parameters(image_of: ImageOf, parameters: torch.Tensor) -> torch.Tensor:
    """d x / d theta, (D, p), by automatic differentiation."""
    return torch.func.jacfwd(lambda theta: image_of(theta).flatten())(parameters)


def tangent_basis(image_of: ImageOf, parameters: torch.Tensor) -> torch.Tensor:
    """An orthonormal basis Q of the tangent space at an image, (D, p): the QR factor of the derivatives.

    Parameters
    ----------
    image_of : callable
        Such as `lambda theta: disc_image(theta, size)`.
    parameters : torch.Tensor
        (p,), where the derivatives are linearly independent.

    Examples
    --------
    >>> from ssd.data.image_classes import disc_image, disc_parameters
    >>> tangent_basis(lambda theta: disc_image(theta, (16, 16)), disc_parameters(0, 0, (16, 16))).shape
    torch.Size([256, 5])
    """
    return torch.linalg.qr(jacobian_of_parameters(image_of, parameters))[0]


def principal_angles(first: torch.Tensor, second: torch.Tensor) -> np.ndarray:
    """The angles between the spans of two sets of columns, (D, p) and (D, q): min(p, q) radians, descending."""
    return subspace_angles(first.detach().cpu().numpy(), second.detach().cpu().numpy())


@dataclass(frozen=True)
class LocalPosterior:
    """What `local_posterior` found.

    Attributes
    ----------
    mean : torch.Tensor
        E[x|y] in the shape of the images: the best denoiser's answer.
    eigenvalues : torch.Tensor
        (num,), those of the best denoiser's Jacobian Cov[x|y] / sigma^2, descending; the others of the D are 0. Their
        sum is its expected squared error over sigma^2.
    vectors : torch.Tensor
        (D, p), the eigenvectors of the first p.
    effective_count : float
        1 / sum of squared weights: how many equally likely images would be as informative.
    """

    mean: torch.Tensor
    eigenvalues: torch.Tensor
    vectors: torch.Tensor
    effective_count: float


def local_posterior(
    image_of: ImageOf, parameters: torch.Tensor, noise: torch.Tensor, sigma: float, num: int = 1000, seed: int = 0
) -> LocalPosterior:
    """The best denoiser at y = x + sigma noise, from many images near x, by importance sampling. Ours.

    The prior is flat in the tangent coordinates at x, as every smooth prior is at a small scale. Images are drawn at
    theta + R^-1 u, with d x / d theta = Q R and u Gaussian about sigma Q^T noise, and weigh

        w proportional to exp(-|y - x(theta)|^2 / (2 sigma^2)) / q(u),   q the density that u was drawn from

    Parameters
    ----------
    image_of : callable
    parameters : torch.Tensor
        theta, (p,), float64.
    noise : torch.Tensor
        Standard normal, in the shape of the image.
    sigma : float
        Small against the curvature, else the images that are drawn miss most of the posterior: `effective_count` tells.
    num : int
        How many images are drawn.
    seed : int
    """
    q, r = torch.linalg.qr(jacobian_of_parameters(image_of, parameters))
    x = image_of(parameters)
    y = (x + sigma * noise).flatten()
    white = torch.randn(num, len(parameters), generator=torch_generator(seed, "posterior"), dtype=parameters.dtype)
    coordinates = sigma * (q.T @ noise.flatten() + PROPOSAL_WIDTH * white)
    moved = parameters + torch.linalg.solve_triangular(r, coordinates.T, upper=True).T
    images = torch.func.vmap(image_of)(moved).flatten(1)
    log_weights = white.square().sum(1) / 2 - (images - y).square().sum(1) / (2 * sigma**2)
    weights = log_weights.softmax(0)
    mean = weights @ images
    deviations = (images - mean) * weights.sqrt()[:, None] / sigma  # of them J is the Gram matrix, D x D
    eigenvalues, left = torch.linalg.eigh(deviations @ deviations.T)  # the same without zeros, num x num
    vectors = deviations.T @ left.flip(1)[:, : len(parameters)]
    return LocalPosterior(
        mean.view_as(x), eigenvalues.flip(0), vectors / vectors.norm(dim=0), 1 / float(weights.square().sum())
    )
