"""Classes of images with a known geometry, as formulas: what is optimal for them is known, so denoisers can be judged.

C^alpha images have a smooth edge between two smooth backgrounds, both of regularity alpha. Discs are a manifold of
five dimensions, sines a cone of two, the rescaled copies of one image a ray, and shuffled pixels keep the geometry of
any class but not its neighbourhoods. Source: Kadkhodaie, Guth, Simoncelli and Mallat, arXiv:2310.02557, but for the
differences that the functions name.

Values are in [0, 1], in float64. H W are height and width, D = H W. The functions `.._image` are deterministic; where
their numbers come from is `c_alpha_numbers`, `disc_parameters` and `sine_parameters`, functions of (seed, index) alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from ..operators.sizes import Size
from ..seeding import numpy_generator

SINE_PERIODS = 3
"""Periods of a sine across the short side."""

TINY = 1e-12
"""In square pixels: below any distance that matters, and above 0, where a root has no derivative."""


def smoothing_gains(size: Sequence[int]) -> np.ndarray:
    """g[k] = 1 / |k|, in the order of `numpy.fft`; the zero frequency has the gain of its neighbour.

    k counts periods across the longest side, so that images that are not square are as smooth in both directions.

    Parameters
    ----------
    size : sequence of int
        (W,) for a contour, (H, W) for an image.

    Returns
    -------
    np.ndarray
        Of shape `size`.

    Examples
    --------
    >>> smoothing_gains((4,))
    array([1. , 1. , 0.5, 1. ])
    """
    longest = max(size)
    axes = np.meshgrid(*(np.fft.fftfreq(length) * longest for length in size), indexing="ij")
    norm = np.sqrt(sum(axis**2 for axis in axes))
    norm.flat[0] = norm.flat[1]
    return 1 / norm


def smooth(uniform: np.ndarray, alpha: float) -> np.ndarray:
    """White noise made smooth: Re F^-1 g^alpha F u, with u uniform in [-1, 1).

    Parameters
    ----------
    uniform : np.ndarray
        (W,) or (H, W), in [0, 1); u is 2 uniform - 1.
    alpha : float
        The regularity; 0 leaves the noise as it is.

    Returns
    -------
    np.ndarray
        Of the same shape. Its mean is that of u, since the gain of the zero frequency is 1.
    """
    spectrum = np.fft.fftn(2 * uniform - 1) * smoothing_gains(uniform.shape) ** alpha
    return np.fft.ifftn(spectrum).real


def mask_below(contour: np.ndarray, height: int) -> np.ndarray:
    """1 at and below a contour, 0 above it: column j begins at row round(H contour_j) + H // 2.

    A contour may leave the image. The column is then 1 or 0 as a whole; the published code slices from the other end
    where a row is negative.

    Parameters
    ----------
    contour : np.ndarray
        (W,), in units of the height, 0 in the middle.
    height : int

    Returns
    -------
    np.ndarray
        (H, W), 0 or 1.

    Examples
    --------
    >>> mask_below(np.array([-9, 0, 0.25, 9]), 4)
    array([[1., 0., 0., 0.],
           [1., 0., 0., 0.],
           [1., 1., 0., 0.],
           [1., 1., 1., 0.]])
    """
    first_rows = np.round(height * contour) + height // 2
    return (np.arange(height)[:, None] >= first_rows).astype(np.float64)


def rescale(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """An image that is not constant, brought to the range [low, high] by an affine map."""
    least, most = image.min(), image.max()
    return low + (high - low) * (image - least) / (most - least)


def c_alpha_image(
    contour: np.ndarray,
    backgrounds: np.ndarray,
    levels: Sequence[float] | np.ndarray,
    alpha: float,
    beta: float | None = None,
    blur: int = 2,
) -> np.ndarray:
    """A C^alpha image: two smooth backgrounds that meet at a smooth edge.

        x = b1 m + b2 (1 - m),   b1 in [v1, 1] and b2 in [0, v2], or the other way round

    m is the mask below the contour, averaged over blur x blur pixels, with the image mirrored beyond its border.

    Parameters
    ----------
    contour : np.ndarray
        (W,), uniform in [0, 1).
    backgrounds : np.ndarray
        (2, H, W), uniform in [0, 1).
    levels : sequence or array of float
        Three numbers, uniform in [0, 1): a coin that chooses the ranges, v1, v2.
    alpha : float
        The regularity of the contour, positive.
    beta : float, optional
        Of the backgrounds; default: alpha.
    blur : int
        At least 1, which does not blur.

    Returns
    -------
    np.ndarray
        (H, W), in [0, 1].
    """
    coin, low, high = levels
    ranges = [(low, 1.0), (0.0, high)] if coin < 0.5 else [(0.0, high), (low, 1.0)]
    inside, outside = (
        rescale(smooth(uniform, alpha if beta is None else beta), *limits)
        for uniform, limits in zip(backgrounds, ranges, strict=True)
    )
    mask = box_blur(mask_below(smooth(contour, alpha), len(inside)), blur)
    return inside * mask + outside * (1 - mask)


def box_blur(image: np.ndarray, width: int) -> np.ndarray:
    """The mean over width x width pixels, the image (H, W) mirrored beyond its border; an even box lies up and left.

    Examples
    --------
    >>> box_blur(np.array([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]]), 2)
    array([[0.25, 0.25, 0.75],
           [0.25, 0.25, 0.75]])
    """
    before, after = width // 2, (width - 1) // 2
    padded = F.pad(torch.from_numpy(image)[None, None], (before, after, before, after), mode="reflect")
    return F.avg_pool2d(padded, width, stride=1)[0, 0].numpy()


def c_alpha_numbers(seed: int, index: int, size: Size) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The uniform numbers of `c_alpha_image`: contour (W,), backgrounds (2, H, W) and levels (3,).

    They do not depend on alpha, so that image `index` of two classes differs by its smoothness only.
    """
    generator = numpy_generator(seed, "c_alpha", index)
    return generator.random(size[1]), generator.random((2, *size)), generator.random(3)


def disc_image(parameters: torch.Tensor, size: Size) -> torch.Tensor:
    """A disc, antialiased: x = bg + (fg - bg) clip(r - dist + 1/2, 0, 1), dist from the centres of the pixels.

    Ours in that the coverage of a pixel is a formula, which has derivatives; the published code draws with matplotlib.

    Parameters
    ----------
    parameters : torch.Tensor
        (5,): centre y and x, radius, all in pixels from the upper left corner; foreground, background.
    size : (height, width)

    Returns
    -------
    torch.Tensor
        (H, W), between foreground and background.
    """
    centre_y, centre_x, radius, foreground, background = parameters
    rows, columns = (torch.arange(side, dtype=parameters.dtype) + 0.5 for side in size)
    square = (rows[:, None] - centre_y) ** 2 + (columns - centre_x) ** 2
    coverage = (radius - square.clamp_min(TINY).sqrt() + 0.5).clamp(0, 1)
    return background + (foreground - background) * coverage


def disc_parameters(seed: int, index: int, size: Size) -> torch.Tensor:
    """Parameters (5,) of `disc_image`, so that the whole disc is inside the image.

    The centre is uniform in the image without a margin of an eighth, the radius from a sixteenth of the short side to
    the nearest border, the two values are in [0, 1).
    """
    y, x, share, foreground, background = numpy_generator(seed, "disc", index).random(5)
    centre = [side / 8 + 0.75 * side * number for side, number in zip(size, (y, x))]
    smallest = min(size) / 16
    largest = min(min(place, side - place) for side, place in zip(size, centre))
    radius = smallest + share * (largest - smallest)
    return torch.tensor([*centre, radius, foreground, background], dtype=torch.float64)


def sine_image(parameters: torch.Tensor, size: Size) -> torch.Tensor:
    """A plane wave about the middle grey: x = 1/2 + a/2 cos(2 pi f (u sin phi + v cos phi)).

    u and v are the distances down and right of the middle; f makes `SINE_PERIODS` periods on the short side. 2 x - 1
    is a cone of two dimensions: with an image it holds all positive multiples of it. Which two parameters vary is ours.

    Parameters
    ----------
    parameters : torch.Tensor
        (2,): amplitude a in [0, 1] and direction phi.
    size : (height, width)

    Returns
    -------
    torch.Tensor
        (H, W), in [0, 1].
    """
    amplitude, direction = parameters
    down, right = (torch.arange(side, dtype=parameters.dtype) + (1 - side) / 2 for side in size)
    along = down[:, None] * direction.sin() + right * direction.cos()
    return 0.5 + amplitude / 2 * (2 * math.pi * SINE_PERIODS / min(size) * along).cos()


def sine_parameters(seed: int, index: int) -> torch.Tensor:
    """Parameters (2,) of `sine_image`: an amplitude in (0, 1], a direction in [0, pi)."""
    amplitude, turn = numpy_generator(seed, "sine", index).random(2)
    return torch.tensor([1 - amplitude, math.pi * turn], dtype=torch.float64)


def rescaled_image(scale: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """One image, darker: scale (1,) times image (H, W). Of one dimension; the tangent is x / |x|."""
    return scale * image


def pixel_permutation(seed: int, size: Size) -> torch.Tensor:
    """A permutation of the D pixels, (D,) integers, for `shuffle`; its `argsort` undoes it."""
    return torch.from_numpy(numpy_generator(seed, "shuffle").permutation(size[0] * size[1]))


def shuffle(images: torch.Tensor, permutation: torch.Tensor) -> torch.Tensor:
    """Images (.., H, W) with their pixels in another order, the same for all.

    Examples
    --------
    >>> images = torch.arange(24.0).reshape(2, 3, 4)
    >>> order = pixel_permutation(0, (3, 4))
    >>> bool((shuffle(shuffle(images, order), order.argsort()) == images).all())
    True
    """
    return images.flatten(-2)[..., permutation].reshape(images.shape)
