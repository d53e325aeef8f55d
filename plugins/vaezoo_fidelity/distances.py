"""Distances between two sets of features: Fréchet, kernel, precision and recall.

Throughout, real, generated: float [n, d]; computed in double precision.
"""

from __future__ import annotations

import torch
from torch import Tensor

SUBSETS = 100
SUBSET_SIZE = 1000
NEIGHBOURS = 3
_ROWS = 1024
"""How many rows of a matrix of distances are held at once."""


def frechet_distance(real: Tensor, generated: Tensor) -> float:
    """|μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½) of the Gaussians with their moments.

    Heusel et al. 2017, equation 6. It falls with n, by chance alone: compare at equal n.
    """
    a, b = real.double(), generated.double()
    root = _root(torch.atleast_2d(a.T.cov()))
    # Σ₁ Σ₂ has the eigenvalues of Σ₁^½ Σ₂ Σ₁^½, which is symmetric.
    product = torch.linalg.eigvalsh(root @ torch.atleast_2d(b.T.cov()) @ root).clamp(min=0)
    between = (a.mean(0) - b.mean(0)).square().sum()
    spread = a.var(0).sum() + b.var(0).sum() - 2 * product.sqrt().sum()
    return max(0.0, float(between + spread))  # rounding may make it negative


def kernel_distance(
    real: Tensor, generated: Tensor, generator: torch.Generator
) -> tuple[float, float]:
    """Squared MMD of the kernel (x·y / d + 1)³: its mean and standard deviation over subsets.

    Binkowski et al. 2018, section 4: the unbiased estimate, around 0 for two sets of one
    distribution, on SUBSETS random subsets of SUBSET_SIZE, or of half of what there is.
    """
    size = min(SUBSET_SIZE, len(real) // 2, len(generated) // 2)
    found = []
    for _ in range(SUBSETS):
        a, b = (
            x[torch.randperm(len(x), generator=generator)[:size].to(x.device)].double()
            for x in (real, generated)
        )
        found.append(_mmd(a, b))
    values = torch.tensor(found, dtype=torch.float64)
    return float(values.mean()), float(values.std())


def precision_and_recall(real: Tensor, generated: Tensor) -> tuple[float, float]:
    """Kynkäänniemi et al. 2019, equation 2, with 3 neighbours, each from 0 to 1.

    precision: the fraction of generated features that are no farther from some real feature than
    its third nearest real neighbour. recall: the same with real and generated exchanged.
    """
    a, b = real.double(), generated.double()
    return _covered(b, a), _covered(a, b)


def _root(symmetric: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(symmetric)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def _mmd(a: Tensor, b: Tensor) -> float:
    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / x.shape[1] + 1) ** 3

    n = len(a)
    within = [(k.sum() - k.trace()) / (n * (n - 1)) for k in (kernel(a, a), kernel(b, b))]
    return float(within[0] + within[1] - 2 * kernel(a, b).mean())


def _covered(points: Tensor, support: Tensor) -> float:
    """The fraction of points within the radius of some point of the support."""
    radius = torch.cat(
        # The nearest neighbour is the point itself.
        [_distances(rows, support).kthvalue(NEIGHBOURS + 1, 1)[0] for rows in support.split(_ROWS)]
    )
    inside = [(_distances(rows, support) <= radius).any(1) for rows in points.split(_ROWS)]
    return float(torch.cat(inside).double().mean())


def _distances(a: Tensor, b: Tensor) -> Tensor:
    # By matrix products: in double precision they leave a point within 1e-6 of itself.
    return torch.cdist(a, b, compute_mode="use_mm_for_euclid_dist")
