"""The Jacobian of a diffusion model's network at one state, and what it says of the levels.

Let g(x_t) be the network's prediction of D_s x_0, s = t - 1, and J_t its Jacobian, (n_s, n_t): square within a level,
tall where the level changes. For the best network (Tweedie's formula, twice)

    J_t = (a_t / sigma_t^2) Cov[D_s x_0, D_t x_0 | x_t]

so that, with S_t = a_t J_t within a level and G_t = a_t D_st J_t at a change, both are symmetric without negative
eigenvalues, Cov[D_t x_0 | x_t] = (sigma_t / a_t)^2 S_t, and

    d_eff(t) = tr S_t (or tr G_t)          directions of the image that the state shows
    nu(t) = |(I - V V^T) J_t|^2 / |J_t|^2  invented detail: what of the step's sensitivity lies outside of the coarse
                                           grid, with D_st = U diag(lambda) V^T
    c(t) = tr V^T S_t V / tr S_t           coverage: what of the shown directions the next coarser level would hold

Channels are flattened beside the pixels; operators act on each. Small images have their Jacobian written out, of large
ones the leading eigenvalues are found by Lanczos iterations and traces by random signs. Ours, after arXiv:2310.02557.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..operators.linear import LinearOperator
from ..operators.sizes import Size
from ..operators.spectral import SpectralForm
from ..process.scale_space import ScaleSpaceProcess
from ..seeding import torch_generator
from .derivatives import (
    LARGEST_DENSE,
    NOTHING,
    DenseMap,
    ImplicitMap,
    LinearMap,
    asymmetry,
    dense_jacobian,
    leading_spectrum,
    probe,
    random_signs,
    spectrum,
)

Predictor = Callable[[torch.Tensor], torch.Tensor]
"""g: (B, C, h, w) -> (B, C, H, W), D_s x_0 from x_t, every image on its own, not clipped, differentiable."""

NUM_LEADING, NUM_PROBES = 16, 64
"""Eigenvalues and random vectors for large images."""


@dataclass(frozen=True)
class LevelJacobian:
    """What the Jacobian at one state says. S is S_t within a level, and G_t at a change.

    Attributes
    ----------
    t : int
    size, target_size : (height, width)
        Of x_t and of x_s.
    d_eff, d_eff_error : float
        tr S, and its standard error: 0 for small images.
    eigenvalues : torch.Tensor
        Of the symmetric part of S, descending: all n_t of small images, else the leading ones.
    vectors : torch.Tensor
        (n_t, k), columns.
    asymmetry : float or None
        |S - S^T| / |S|; None where S is nothing but rounding.
    smallest : float or None
        The smallest eigenvalue, of small images.
    invented : float or None
        nu, at a change.
    coverage : float or None
        c, within a level that has a coarser one.
    affine : float or None
        |g - J x_t| / |g|: 0 for a linear network, and for a bias-free one; None where g is 0.
    prediction : torch.Tensor
        g(x_t), (C, H, W).
    """

    t: int
    size: Size
    target_size: Size
    d_eff: float
    d_eff_error: float
    eigenvalues: torch.Tensor
    vectors: torch.Tensor
    asymmetry: float | None
    smallest: float | None
    invented: float | None
    coverage: float | None
    affine: float | None
    prediction: torch.Tensor

    @property
    def changes(self) -> bool:
        """Whether the step changes the level."""
        return self.size != self.target_size


def level_jacobian(
    process: ScaleSpaceProcess,
    predictor: Predictor,
    x_t: torch.Tensor,
    t: int,
    seed: int = 0,
    largest_dense: int = LARGEST_DENSE,
) -> LevelJacobian:
    """Differentiate a predictor at one state.

    Parameters
    ----------
    process : ScaleSpaceProcess
        Without blur.
    predictor : callable
        g, for this t.
    x_t : torch.Tensor
        (C, h, w), float64.
    t : int
    seed : int
        Of the random vectors for large images.
    largest_dense : int
        Numbers of x_s up to which the Jacobian is written out.
    """
    size, target_size, flat = process.size(t), process.size(t - 1), x_t.flatten()
    prediction = predictor(x_t[None])[0].detach()
    dense = prediction.numel() <= largest_dense

    def function(rows: torch.Tensor) -> torch.Tensor:
        return predictor(rows.view(-1, *x_t.shape)).flatten(1)

    jacobian: LinearMap = DenseMap(dense_jacobian(function, flat)) if dense else ImplicitMap(function, flat)
    down, changes = process.operator(t - 1, t), size != target_size
    square = _Square(jacobian, float(process.signal(t)), down if changes else None)
    coarser = None if changes else next_downsampling(process, t)
    signs = _Signs(seed, t)
    found = _dense_numbers(square, len(flat)) if dense else _probed_numbers(square, len(flat), signs, seed)
    return LevelJacobian(
        t=t,
        size=size,
        target_size=target_size,
        invented=invented_detail(jacobian, down, len(flat), signs if not dense else None) if changes else None,
        coverage=None if coarser is None else coverage(square, coarser, len(x_t), signs if not dense else None),
        affine=_quotient((prediction.flatten() - jacobian.apply(flat[None])[0]).norm(), prediction.norm()),
        prediction=prediction,
        **found,
    )


class _Signs:
    """Random vectors, a function of the seed, the timestep and their purpose."""

    def __init__(self, seed: int, t: int) -> None:
        self._seed, self._t = seed, t

    def of(self, purpose: str, size: int) -> torch.Tensor:
        return random_signs(NUM_PROBES, size, torch_generator(self._seed, purpose, self._t))


class _Square(LinearMap):
    """S = a J or a D J, (n_t, n_t)."""

    def __init__(self, jacobian: LinearMap, scale: float, down: LinearOperator | None) -> None:
        self._jacobian, self._scale, self._down = jacobian, scale, down

    def apply(self, vectors: torch.Tensor) -> torch.Tensor:
        found = self._scale * self._jacobian.apply(vectors)
        return found if self._down is None else _on_rows(self._down.forward, found, self._down.in_size)

    def apply_transposed(self, vectors: torch.Tensor) -> torch.Tensor:
        if self._down is not None:
            vectors = _on_rows(self._down.adjoint, vectors, self._down.out_size)
        return self._scale * self._jacobian.apply_transposed(vectors)


def _dense_numbers(square: LinearMap, size: int) -> dict[str, Any]:
    matrix = square.apply(torch.eye(size, dtype=torch.float64)).T
    found = spectrum(matrix)
    numbers = {"d_eff": float(matrix.trace()), "d_eff_error": 0.0, "asymmetry": asymmetry(matrix)}
    smallest = float(found.eigenvalues[-1])
    return {"eigenvalues": found.eigenvalues, "vectors": found.vectors, "smallest": smallest, **numbers}


def _probed_numbers(square: LinearMap, size: int, signs: _Signs, seed: int) -> dict[str, Any]:
    probed, found = (
        probe(square, signs.of("trace", size)),
        leading_spectrum(square, size, min(NUM_LEADING, size - 1), seed),
    )
    numbers = {"d_eff": probed.trace, "d_eff_error": probed.trace_error, "asymmetry": probed.asymmetry}
    return {"eigenvalues": found.eigenvalues, "vectors": found.vectors, "smallest": None, **numbers}


def _quotient(part: torch.Tensor, whole: torch.Tensor) -> float | None:
    """part / whole, None where the whole is nothing but rounding."""
    return float(part / whole) if float(whole.abs()) > NOTHING else None


def invented_detail(jacobian: LinearMap, down: LinearOperator, size: int, signs: _Signs | None = None) -> float | None:
    """nu of J, (n_s, n_t), for the downsampling from x_s to x_t, in [0, 1]; by random vectors where they are given.

    |J|^2 = sum over a basis of |J z|^2, and E |J z|^2 over random signs.
    """
    vectors = torch.eye(size, dtype=torch.float64) if signs is None else signs.of("invented detail", size)
    columns = jacobian.apply(vectors)
    rows = _on_rows(_singular(down).v.apply_transposed, columns, down.in_size)
    kept = _quotient(rows.square().sum(), columns.square().sum())
    return None if kept is None else 1 - kept


def coverage(square: LinearMap, down: LinearOperator, channels: int, signs: _Signs | None = None) -> float | None:
    """c of S for the downsampling to the next coarser level: 1 where that holds all that is shown.

    tr V^T S V = sum over a basis, or E over random signs, of z^T V^T S V z; and the trace of the rest alike, so that
    for vectors of random signs c is a quotient of two estimates.
    """
    v, (height, width), (fine_height, fine_width) = _singular(down).v, down.out_size, down.in_size
    coarse, fine = channels * height * width, channels * fine_height * fine_width
    inside = torch.eye(coarse, dtype=torch.float64) if signs is None else signs.of("coverage", coarse)
    within = _on_rows(v.apply, inside, down.out_size)
    everything = torch.eye(fine, dtype=torch.float64) if signs is None else signs.of("trace", fine)
    covered, total = (
        (vectors * square.apply(vectors)).sum(dim=1).sum() / (1 if signs is None else len(vectors))
        for vectors in (within, everything)
    )
    return _quotient(covered, total)


def next_downsampling(process: ScaleSpaceProcess, t: int) -> LinearOperator | None:
    """From the level of x_t to the next coarser one, None for the coarsest."""
    starts, level = process.resolution.level_starts, process.level(t)
    return process.operator(starts[level], starts[level + 1]) if level + 1 < len(starts) else None


def _on_rows(operator: Callable[[torch.Tensor], torch.Tensor], rows: torch.Tensor, size: Size) -> torch.Tensor:
    """An operator on every row, (m, C H W), of images of `size`."""
    return operator(rows.reshape(len(rows), -1, *size)).flatten(1)


def _singular(operator: LinearOperator) -> SpectralForm:
    spectral = operator.spectral
    if not isinstance(spectral, SpectralForm):
        raise ValueError(f"The row space of a downsampling needs a closed-form spectrum, got {operator!r}.")
    return spectral
