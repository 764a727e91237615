"""Denoisers in closed form: what a perfect network would answer, with its Jacobian.

For y = x + sigma z the best denoiser is f(y) = E[x|y], and its Jacobian is the posterior covariance over sigma^2
(Miyasawa 1961): J = Cov[x|y] / sigma^2, symmetric, with eigenvalues of at least 0; sigma^2 tr J is the expected squared
error.

Images are (B, C, H, W) in all calls, d = C H W; Jacobians are (B, d, d), pixels in row-major order. Unlike bias-free
networks these must be told sigma.
"""

from __future__ import annotations

from typing import Protocol

import torch


class ExactDenoiser(Protocol):
    """What every denoiser here does."""

    def __call__(self, y: torch.Tensor, sigma: float) -> torch.Tensor:
        """The denoised images, (B, C, H, W)."""

    def jacobian(self, y: torch.Tensor, sigma: float) -> torch.Tensor:
        """d f / d y, (B, d, d)."""


class GaussianDenoiser:
    """The best denoiser of Gaussian images, the Wiener filter: f(y) = m + C (C + sigma^2)^-1 (y - m).

    Parameters
    ----------
    mean : torch.Tensor
        m, (C, H, W).
    covariance : torch.Tensor
        C, (d, d), symmetric positive semidefinite.

    Examples
    --------
    >>> white = GaussianDenoiser(torch.zeros(1, 2, 2), torch.eye(4))
    >>> white(torch.full((1, 1, 2, 2), 4.0), sigma=1).flatten().tolist()
    [2.0, 2.0, 2.0, 2.0]
    """

    def __init__(self, mean: torch.Tensor, covariance: torch.Tensor) -> None:
        eigenvalues, self.vectors = torch.linalg.eigh(covariance)
        self.mean, self.eigenvalues = mean, eigenvalues.clamp(min=0)

    @classmethod
    def fitted(cls, images: torch.Tensor) -> GaussianDenoiser:
        """The best affine denoiser of N images (N, C, H, W): Gaussian with their mean and biased covariance."""
        centred = (images - images.mean(dim=0)).flatten(1)
        return cls(images.mean(dim=0), centred.T @ centred / len(images))

    def __call__(self, y: torch.Tensor, sigma: float) -> torch.Tensor:
        coefficients = (y - self.mean).flatten(1) @ self.vectors
        return self.mean + ((coefficients * self.shrinkage(sigma)) @ self.vectors.T).view_as(y)

    def shrinkage(self, sigma: float) -> torch.Tensor:
        """What each principal component is multiplied by, lam / (lam + sigma^2): (d,), ascending."""
        return self.eigenvalues / (self.eigenvalues + sigma**2)

    def jacobian(self, y: torch.Tensor, sigma: float) -> torch.Tensor:
        matrix = (self.vectors * self.shrinkage(sigma)) @ self.vectors.T
        return matrix.expand(len(y), -1, -1)

    def sample(self, z: torch.Tensor) -> torch.Tensor:
        """Images of this Gaussian, m + C^1/2 z with the symmetric root, from white noise (B, C, H, W)."""
        root = (self.vectors * self.eigenvalues.sqrt()) @ self.vectors.T
        return self.mean + (z.flatten(1) @ root).view_as(z)


class EmpiricalDenoiser:
    """The best denoiser of data that consist of N images: the memoriser.

        f(y) = sum_i w_i x_i,   w = softmax(-|y - x_i|^2 / (2 sigma^2)),   J = Cov_w[x] / sigma^2

    Its samples are the N images, and the rank of J is at most N - 1.

    Parameters
    ----------
    images : torch.Tensor
        (N, C, H, W).

    Examples
    --------
    >>> black_or_white = EmpiricalDenoiser(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1))
    >>> black_or_white(torch.tensor([[[[0.5]]], [[[0.9]]]]), sigma=0.1).flatten().tolist()
    [0.5, 1.0]
    """

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images.flatten(1)

    def weights(self, y: torch.Tensor, sigma: float) -> torch.Tensor:
        """The posterior probability of each image: (B, N)."""
        # |y|^2 is the same for all images, so that the softmax does not need it.
        agreement = y.flatten(1) @ self.images.T - self.images.square().sum(dim=1) / 2
        return torch.softmax(agreement / sigma**2, dim=1)

    def __call__(self, y: torch.Tensor, sigma: float) -> torch.Tensor:
        return (self.weights(y, sigma) @ self.images).view_as(y)

    def jacobian(self, y: torch.Tensor, sigma: float) -> torch.Tensor:
        weights = self.weights(y, sigma)
        centred = self.images - (weights @ self.images)[:, None]  # (B, N, d)
        return torch.einsum("bn,bni,bnj->bij", weights, centred, centred) / sigma**2
