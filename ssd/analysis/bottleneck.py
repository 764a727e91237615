"""What a U-Net of average pooling without skips cannot reconstruct (arXiv:2301.08187, theorem 3).

Each layer is followed by a projection on the images of half the size, which drops details (`ssd.operators.haar`). The
decoder undoes the layers, but nothing brings the details back. Shape letters: B images, H W pixels, h w those of one
of the coarser sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment

from ..operators import haar


@dataclass(frozen=True)
class BottleneckBound:
    """Theorem 3 for given images; squared L2 norms per image, means over images.

    Attributes
    ----------
    lower : float
        What the details that are dropped make unavoidable.
    transport : float
        W2^2 between images and reconstructions, as sets of equal weights.
    error : float
        The mean squared error of the reconstructions.
    """

    lower: float
    transport: float
    error: float


def reconstruct(images: torch.Tensor, maps: Sequence[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Down and up a U-Net without skips, of linear layers: project after each, then undo them.

    Parameters
    ----------
    images : torch.Tensor
        (B, H, W), float64.
    maps : sequence of torch.Tensor
        F_j, invertible matrices on the flattened images of every size, finest first: (H W, H W), (H W / 4, H W / 4), ..
        The decoder has their inverses, and repeats pixels.

    Returns
    -------
    reconstructions : torch.Tensor
        (B, H, W); differentiable in images and maps.
    dropped : list of torch.Tensor
        The details of the output of every F_j, (B, h, w) each, which the projection drops.
    """
    state, dropped = images, []
    for matrix in maps:
        output = (state.flatten(1) @ matrix.T).view_as(state)
        dropped.append(output - haar.project(output))
        state = haar.pool(output)
    for matrix in reversed(maps):
        finer = haar.embed(state)
        state = torch.linalg.solve(matrix, finer.flatten(1).T).T.reshape(finer.shape)
    return state, dropped


def bottleneck_bound(images: torch.Tensor, maps: Sequence[torch.Tensor]) -> BottleneckBound:
    """Theorem 3: a U-Net without skips cannot reconstruct the details that its projections drop.

        sum_j E |details of F_j's output|^2 / L_j^2  <=  W2(reconstructions, images)^2  <=  E |x - reconstruction|^2

    L_j is the product of the Lipschitz constants of F_1, .., F_j, the layers passed so far, finest first. For F_j = 1
    all three are equal.

    *Proof.* Let e_j be the difference of two inputs of F_j, one that of an image, the other that of any reconstruction.
    |F_j e_j| <= Lip(F_j) |e_j|, and F_j e_j has the dropped details of the image, since the reconstruction has none,
    beside e_{j+1}, which is orthogonal to them: |e_j|^2 >= (|details|^2 + |e_{j+1}|^2) / Lip(F_j)^2.

    Parameters
    ----------
    images : torch.Tensor
        (B, H, W), float64.
    maps : sequence of torch.Tensor
        F_j, see `reconstruct`.

    Examples
    --------
    >>> images = torch.randn(4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    >>> bound = bottleneck_bound(images, [torch.eye(64, dtype=torch.float64), torch.eye(16, dtype=torch.float64)])
    >>> abs(bound.error - bound.lower) < 1e-12
    True
    """
    reconstructions, dropped = reconstruct(images, maps)
    lower, lipschitz = 0.0, 1.0
    for matrix, details in zip(maps, dropped):
        lipschitz *= float(torch.linalg.matrix_norm(matrix, ord=2))
        lower += float(details.square().mean()) / lipschitz**2
    pairs = torch.cdist(images.flatten(1), reconstructions.flatten(1)).square() / images[0].numel()
    rows, columns = linear_sum_assignment(pairs.detach().numpy())
    transport, error = float(pairs[rows, columns].mean()), float((images - reconstructions).square().mean())
    return BottleneckBound(lower, transport, error)
