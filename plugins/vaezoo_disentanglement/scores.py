"""Disentanglement scores of a representation with known factors.

Throughout, codes: float [examples, latents], factors: int64 [examples, factors], on the CPU. A
factor that has a single value among the examples is in no score.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BINS = 20
"""Cells of equal width for each latent, in mutual information (Locatello et al. 2019, appendix)."""
VOTES = 800
VOTERS = 64
TREES = 50


def varying(factors: Tensor) -> Tensor:
    """The factors that have more than one value, their values numbered from 0."""
    columns = [c.unique(return_inverse=True)[1] for c in factors.T if len(c.unique()) > 1]
    return torch.stack(columns, 1) if columns else factors.new_empty(len(factors), 0)


def mutual_information(codes: Tensor, factors: Tensor) -> Tensor:
    """I(z_i; v_k) of each latent's cell with each factor, nats: [latents, factors].

    From the frequencies of BINS cells between a latent's smallest and largest value. They overstate
    it by about (BINS − 1)(values − 1) / 2n.
    """
    binned = [_cells(column) for column in codes.T.double()]
    values = [(column, int(column.max()) + 1) for column in factors.T]
    rows = [[_information(cells, *value) for value in values] for cells in binned]
    return torch.tensor(rows, dtype=torch.float64).view(codes.shape[1], factors.shape[1])


def entropies(factors: Tensor) -> Tensor:
    """H(v_k) in nats: [factors]."""
    shares = [column.bincount().double() / len(column) for column in factors.T]
    return torch.stack([torch.special.entr(share).sum() for share in shares])


def mig(information: Tensor, entropy: Tensor) -> float:
    """Mutual information gap (Chen et al. 2018, equation 6): from 0 to 1.

    For each factor the lead of the most informative latent over the second, by the factor's
    entropy; the mean over factors. With a single latent the second has 0.
    """
    best = information.sort(0, descending=True)[0]
    second = best[1] if len(best) > 1 else torch.zeros_like(best[0])
    return float(((best[0] - second) / entropy).mean())


def modularity(information: Tensor) -> float:
    """How much each latent depends on one factor alone (Ridgeway & Mozer 2018, equation 2).

    For each latent 1 − Σ_{k not the best} I(z_i; v_k)² / (I_max² (K − 1)), the mean over latents.
    From 0 to 1; 1 where there is a single factor.
    """
    squares = information.square()
    best = squares.max(1)[0]
    others = max(1, information.shape[1] - 1)
    rest = (squares.sum(1) - best) / (best * others)
    return float((1 - torch.where(best > 0, rest, 1.0)).mean())


def sap(codes: Tensor, factors: Tensor, generator: torch.Generator) -> float:
    """Separated attribute predictability (Kumar et al. 2017, section 3).

    For each factor, how much better the best single latent predicts its value than the second: by
    the balanced accuracy, on the other half of the examples, of as many thresholds as the values
    need. The mean over factors, from 0 to 1 − 1/values.
    """
    from sklearn.tree import DecisionTreeClassifier

    learn, test = _halves(len(codes), generator)
    seed = _seed(generator)
    gaps = []
    for factor in factors.T.numpy():
        accuracies = []
        for latent in codes.T.numpy():
            tree = DecisionTreeClassifier(
                max_leaf_nodes=int(factor.max()) + 1, class_weight="balanced", random_state=seed
            )
            tree.fit(latent[learn, None], factor[learn])
            guess = tree.predict(latent[test, None])
            accuracies.append(_balanced_accuracy(guess, factor[test]))
        best = sorted([0.0, *accuracies])
        gaps.append(best[-1] - best[-2] if len(accuracies) > 1 else best[-1])
    return sum(gaps) / len(gaps)


def dci(codes: Tensor, factors: Tensor, generator: torch.Generator) -> tuple[float, float, float]:
    """Disentanglement, completeness and informativeness (Eastwood & Williams 2018, section 2).

    A random forest for each factor learns to predict its value from all latents, on half of the
    examples; its importances are R_ik. Informativeness is its accuracy on the other half.
    """
    from sklearn.ensemble import RandomForestClassifier

    learn, test = _halves(len(codes), generator)
    x = codes.numpy()
    importance, accuracy = [], []
    for factor in factors.T.numpy():
        # Every latent at each split: of a part of them, the best may be one without information.
        forest = RandomForestClassifier(
            n_estimators=TREES, max_features=None, random_state=_seed(generator)
        )
        forest.fit(x[learn], factor[learn])
        importance.append(torch.from_numpy(forest.feature_importances_))
        accuracy.append(float((forest.predict(x[test]) == factor[test]).mean()))
    relative = torch.stack(importance, 1)
    return disentanglement(relative), completeness(relative), sum(accuracy) / len(accuracy)


def disentanglement(importance: Tensor) -> float:
    """Σ_i ρ_i (1 − H_K(R_i· / Σ_k R_ik)), ρ_i each latent's fraction of the importance.

    importance: [latents, factors], not negative. H_K is in units of log K: from 0 to 1.
    """
    return float((_concentration(importance, 1) * _share(importance.sum(1))).sum())


def completeness(importance: Tensor) -> float:
    """The same over latents: how much each factor depends on a single one."""
    return float((_concentration(importance, 0) * _share(importance.sum(0))).sum())


def factor_vae_score(codes: Tensor, factors: Tensor, generator: torch.Generator) -> float:
    """Kim & Mnih 2018, section 3.1: from about 1/factors to 1.

    A vote: of VOTERS examples that share the value of one factor, the latent whose variance is the
    smallest fraction of its variance over all examples. A majority classifier learns from VOTES
    votes which factor a latent stands for; the score is its accuracy on as many new votes. Every
    latent must vary.
    """
    scale = codes.double().var(0)
    groups = [
        [g for v in range(int(column.max()) + 1) if len(g := (column == v).nonzero()[:, 0]) > 1]
        for column in factors.T
    ]

    def vote() -> tuple[int, int]:
        factor = _pick(len(groups), generator)
        group = groups[factor][_pick(len(groups[factor]), generator)]
        chosen = group[torch.randperm(len(group), generator=generator)[:VOTERS]]
        return int((codes[chosen].double().var(0) / scale).argmin()), factor

    counts = torch.zeros(codes.shape[1], len(groups))
    for _ in range(VOTES):
        counts[vote()] += 1
    guess = counts.argmax(1)
    votes = [vote() for _ in range(VOTES)]
    return sum(int(guess[latent]) == factor for latent, factor in votes) / VOTES


def _cells(column: Tensor) -> Tensor:
    low, high = column.min(), column.max()
    if low == high:
        return torch.zeros(len(column), dtype=torch.int64)
    return ((column - low) / (high - low) * BINS).long().clamp(max=BINS - 1)


def _information(cells: Tensor, values: Tensor, count: int) -> float:
    joint = (cells * count + values).bincount(minlength=BINS * count).view(BINS, count).double()
    joint = joint / joint.sum()
    entropy = torch.special.entr
    of_each = entropy(joint.sum(0)).sum() + entropy(joint.sum(1)).sum()
    return max(0.0, float(of_each - entropy(joint).sum()))


def _concentration(importance: Tensor, dim: int) -> Tensor:
    """1 − the entropy of the fractions along a dimension, in units of its maximum."""
    count = importance.shape[dim]
    total = importance.sum(dim, keepdim=True)
    shares = torch.where(total > 0, importance / total, 1 / count)
    if count < 2:
        return torch.ones_like(total.squeeze(dim))
    return 1 - torch.special.entr(shares).sum(dim) / math.log(count)


def _share(values: Tensor) -> Tensor:
    return values / values.sum()


def _halves(count: int, generator: torch.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    order = torch.randperm(count, generator=generator).numpy()
    return order[: count // 2], order[count // 2 :]


def _balanced_accuracy(guess: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """The mean over values of the accuracy for that value."""
    values = sorted({int(v) for v in truth})
    return sum(float((guess[truth == v] == v).mean()) for v in values) / len(values)


def _pick(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))


def _seed(generator: torch.Generator) -> int:
    return _pick(2**31 - 1, generator)
