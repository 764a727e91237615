"""The moments of a data set that a preconditioned prediction needs: the mean colour, and every level's variance."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from ..process.preconditioning import DataMoments
from ..process.scale_space import ScaleSpaceProcess


def data_moments(images: Iterable[torch.Tensor], process: ScaleSpaceProcess) -> DataMoments:
    """Moments of images, at the sizes of a process.

    Parameters
    ----------
    images : iterable of torch.Tensor
        (C, H, W) each, in [-1, 1], of the full resolution; at least one.
    process : ScaleSpaceProcess

    Raises
    ------
    ValueError
        When all images are of one colour, or there are none.

    Examples
    --------
    >>> from ssd import SSDScheduler
    >>> process = SSDScheduler(sample_size=4, num_levels=2).process
    >>> checkers = [sign * torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(2, 2)[None] for sign in (1, -1)]
    >>> halves = [sign * torch.tensor([1.0, 1.0, -1.0, -1.0]).repeat(4, 1)[None] for sign in (1, -1)]
    >>> found = data_moments(checkers + halves, process)
    >>> found.mean, [round(variance, 2) for variance in found.variances]
    ((0.0,), [1.0, 0.26])
    """
    starts = process.resolution.level_starts
    count, sums, squares = 0, [torch.zeros(())] * len(starts), [torch.zeros(())] * len(starts)
    for image in images:
        small = [image.to(torch.float64)[None]]
        small += [process.degrade(small[0], start) / process.image_scale(start) for start in starts[1:]]
        sums = [total + size.mean(dim=(0, 2, 3)) for total, size in zip(sums, small)]  # per channel
        squares = [total + size.square().mean(dim=(0, 2, 3)) for total, size in zip(squares, small)]
        count += 1
    if not count:
        raise ValueError("There are no images to measure the moments of.")
    mean = sums[0] / count
    variances = [
        float((square / count - 2 * mean * total / count + mean.square()).mean())
        for square, total in zip(squares, sums)
    ]
    if min(variances) <= 0:
        raise ValueError("All images have one and the same colour: there is nothing to learn from them.")
    return DataMoments(tuple(mean.tolist()), tuple(variances))
