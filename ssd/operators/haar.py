"""The Haar basis of images: what averaging 2 x 2 pixels keeps, and what it drops.

An image of N x M pixels is a function on the unit square that is constant on every pixel. V is the space of these
functions, V' its subspace with pixels twice as wide, and U, the details, what is orthogonal to V' in V. The Haar
wavelets are an orthonormal basis of U. With the norm of the functions, |f|^2 = mean of the squared pixels,

    coefficients = (orthonormal Haar transform of the pixels) / sqrt(N M),    sum of squares = mean of squared pixels,

and averaging 2 x 2 pixels is the orthogonal projection from V onto V' (theorem 2 of arXiv:2301.08187):

    analysis(pool(image)) = the coarse coefficients of analysis(image).

Coefficients are arranged as the image is, coarse first: those of V' in the first rows and columns, then three sub-bands
of U (horizontal | vertical | diagonal), as in S. Mallat's pyramid:

    V'          vertical
    horizontal  diagonal

Everything is differentiable and keeps dtype and device. Shape letters: H W pixels.
"""

from __future__ import annotations

import math

import torch

from .sizes import Size

ORIENTATIONS = ("horizontal", "vertical", "diagonal")
"""Of details: horizontal ones are differences from row to row, as a horizontal edge has them (PyWavelets' names)."""


def halvings(size: Size) -> int:
    """How often both sides can be halved.

    Examples
    --------
    >>> halvings((32, 16)), halvings((12, 8)), halvings((3, 2))
    (4, 2, 0)
    """
    common = math.gcd(*size)
    return (common & -common).bit_length() - 1


def pool(images: torch.Tensor, levels: int = 1) -> torch.Tensor:
    """Means over squares of 2^levels pixels: (..., H, W) -> (..., H / 2^levels, W / 2^levels).

    Raises
    ------
    ValueError
        When a side cannot be halved that often.
    """
    height, width = _checked(images, levels)
    side = 2**levels
    return images.unflatten(-1, (width // side, side)).unflatten(-3, (height // side, side)).mean(dim=(-3, -1))


def embed(images: torch.Tensor, levels: int = 1) -> torch.Tensor:
    """The same function with smaller pixels: (..., H, W) -> (..., 2^levels H, 2^levels W), by repetition."""
    return images.repeat_interleave(2**levels, dim=-2).repeat_interleave(2**levels, dim=-1)


def project(images: torch.Tensor, levels: int = 1) -> torch.Tensor:
    """The orthogonal projection on the functions with pixels 2^levels times as wide: (..., H, W) -> (..., H, W).

    Examples
    --------
    >>> project(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
    tensor([[3., 3.],
            [3., 3.]])
    """
    return embed(pool(images, levels), levels)


def analysis(images: torch.Tensor, levels: int | None = None) -> torch.Tensor:
    """Haar coefficients of images: (..., H, W) -> (..., H, W), coarse first.

    Parameters
    ----------
    images : torch.Tensor
        (..., H, W).
    levels : int, optional
        How often V is split; default as often as both sides can be halved.

    Raises
    ------
    ValueError
        When a side cannot be halved that often.

    Examples
    --------
    >>> analysis(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
    tensor([[ 3.0000, -1.0000],
            [-1.5000,  0.5000]])
    """
    levels = _levels(images, levels)
    scale = math.sqrt(math.prod(_checked(images, levels)))
    if levels == 0:
        return images / scale
    (a, b), (c, d) = (
        (images[..., row::2, 0::2] / scale, images[..., row::2, 1::2] / scale) for row in (0, 1)
    )  # the four pixels of every square
    coarse = analysis(scale * (a + b + c + d) / 4, levels - 1)
    horizontal, vertical, diagonal = (a + b - c - d) / 2, (a - b + c - d) / 2, (a - b - c + d) / 2
    return torch.cat([torch.cat([coarse, vertical], dim=-1), torch.cat([horizontal, diagonal], dim=-1)], dim=-2)


def synthesis(coefficients: torch.Tensor, levels: int | None = None) -> torch.Tensor:
    """The inverse of `analysis`: (..., H, W) -> (..., H, W)."""
    levels = _levels(coefficients, levels)
    height, width = _checked(coefficients, levels)
    scale = math.sqrt(height * width)
    if levels == 0:
        return coefficients * scale
    rows, columns = height // 2, width // 2
    mean = synthesis(coefficients[..., :rows, :columns], levels - 1)
    horizontal, vertical, diagonal = (
        scale / 2 * coefficients[..., top, left]
        for top, left in (
            (slice(rows, None), slice(columns)),
            (slice(rows), slice(columns, None)),
            (slice(rows, None), slice(columns, None)),
        )
    )
    upper = torch.stack([mean + horizontal + vertical + diagonal, mean + horizontal - vertical - diagonal], dim=-1)
    lower = torch.stack([mean - horizontal + vertical - diagonal, mean - horizontal - vertical + diagonal], dim=-1)
    return torch.stack([upper.flatten(-2), lower.flatten(-2)], dim=-2).flatten(-3, -2)


def coarse(coefficients: torch.Tensor, levels: int = 1) -> torch.Tensor:
    """The coefficients of the functions with pixels 2^levels times as wide: the first rows and columns."""
    height, width = _checked(coefficients, levels)
    return coefficients[..., : height >> levels, : width >> levels]


def subbands(coefficients: torch.Tensor, levels: int | None = None) -> dict[tuple[Size, str], torch.Tensor]:
    """Views of all sub-bands, coarse first.

    Parameters
    ----------
    coefficients : torch.Tensor
        (..., H, W), from `analysis` with the same `levels`.
    levels : int, optional

    Returns
    -------
    dict
        (size, orientation) -> (..., height, width): first the coarsest functions, of orientation "coarse", then the
        details that make functions of `size` of those of half that size. A sub-band of details has half the size.

    Examples
    --------
    >>> list(subbands(torch.zeros(4, 4), levels=1))
    [((2, 2), 'coarse'), ((4, 4), 'horizontal'), ((4, 4), 'vertical'), ((4, 4), 'diagonal')]
    """
    levels = _levels(coefficients, levels)
    height, width = _checked(coefficients, levels)
    found = {((height >> levels, width >> levels), "coarse"): coarse(coefficients, levels)}
    for level in reversed(range(levels)):
        h, w = height >> level, width >> level
        (top, left), (bottom, right) = (slice(h // 2), slice(w // 2)), (slice(h // 2, h), slice(w // 2, w))
        for orientation, rows, columns in zip(ORIENTATIONS, (bottom, top, bottom), (left, right, right)):
            found[(h, w), orientation] = coefficients[..., rows, columns]
    return found


def energies(images: torch.Tensor, levels: int | None = None) -> dict[tuple[Size, str], torch.Tensor]:
    """The sum of squared coefficients by sub-band: (..., H, W) -> (...) each; together mean of squared pixels."""
    return {key: band.square().sum(dim=(-2, -1)) for key, band in subbands(analysis(images, levels), levels).items()}


def details(images: torch.Tensor, levels: int | None = None) -> dict[Size, torch.Tensor]:
    """Images split by resolution, coarse first: {size: (..., H, W)}, orthogonal to each other, together the images.

    The first is the projection on the coarsest functions; each later one what functions of its size have beside those
    of half that size.
    """
    levels = _levels(images, levels)
    height, width = _checked(images, levels)
    projections = [project(images, level) for level in range(levels + 1)]
    found = {(height >> levels, width >> levels): projections[levels]}
    for level in reversed(range(levels)):
        found[height >> level, width >> level] = projections[level] - projections[level + 1]
    return found


def _levels(images: torch.Tensor, levels: int | None) -> int:
    return halvings((images.shape[-2], images.shape[-1])) if levels is None else levels


def _checked(images: torch.Tensor, levels: int) -> Size:
    """The size of images that can be halved `levels` times."""
    height, width = images.shape[-2:]
    if levels < 0 or height % 2**levels or width % 2**levels:
        raise ValueError(
            f"Images of {height} x {width} pixels can be halved {halvings((height, width))} times, got levels={levels}."
        )
    return height, width
