"""How alike images are: cosines between them, with each image's own mean taken away or not.

arXiv:2310.02557 writes a normalised inner product; its code takes the mean of each image away first (`centred`), which
two pictures that share no more than their brightness do not survive. A cosine of pixels overstates originality: a
copy that is shifted or slightly deformed has a low one.
"""

from __future__ import annotations

import torch

SMALLEST_NORM = 0.001
"""What a norm of zero is replaced by, as in the published code."""


def cosines(a: torch.Tensor, b: torch.Tensor, centred: bool = True) -> torch.Tensor:
    """The cosine of every image of `a` with every image of `b`.

    Parameters
    ----------
    a, b : torch.Tensor
        (A, C, H, W) and (B, C, H, W).
    centred : bool
        Take each image's mean, over pixels and channels, away first.

    Returns
    -------
    torch.Tensor
        (A, B), in [-1, 1]; 0 for an image whose norm is 0.

    Examples
    --------
    >>> picture = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    >>> round(float(cosines(picture, 5 - picture)), 6), round(float(cosines(picture, 2 * picture + 1)), 6)
    (-1.0, 1.0)
    """
    return _directions(a, centred) @ _directions(b, centred).T


def paired_cosines(a: torch.Tensor, b: torch.Tensor, centred: bool = True) -> torch.Tensor:
    """The cosine of image i of `a` with image i of `b`: (N,), for (N, C, H, W) both."""
    return (_directions(a, centred) * _directions(b, centred)).sum(dim=1)


def off_diagonal(matrix: torch.Tensor) -> torch.Tensor:
    """The entries of a square matrix off its diagonal, (N (N - 1),): pairs of samples from different seeds."""
    return matrix[~torch.eye(len(matrix), dtype=torch.bool, device=matrix.device)]


def _directions(images: torch.Tensor, centred: bool) -> torch.Tensor:
    flat = images.flatten(1)
    if centred:
        flat = flat - flat.mean(dim=1, keepdim=True)
    norms = flat.norm(dim=1, keepdim=True)
    return flat / torch.where(norms == 0, SMALLEST_NORM, norms)
