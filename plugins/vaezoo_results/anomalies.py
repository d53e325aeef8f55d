"""How well a score sets anomalous examples apart: AUROC and average precision."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def auroc(scores: NDArray[Any], anomalous: NDArray[np.bool_]) -> float:
    """The area under the ROC curve: the chance that an anomalous example has the larger score.

    scores: [n], larger is more unusual. anomalous: bool [n], both kinds occur. A tie counts one
    half (Hanley & McNeil 1982).
    """
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    positive = int(anomalous.sum())
    negative = len(scores) - positive
    return float((ranks[anomalous].sum() - positive * (positive + 1) / 2) / (positive * negative))


def average_precision(scores: NDArray[Any], anomalous: NDArray[np.bool_]) -> float:
    """Σ (R_i − R_{i−1}) P_i over the thresholds, of recall R and precision P.

    scores, anomalous: as for `auroc`.
    """
    values, place = np.unique(-scores, return_inverse=True)
    found = np.bincount(place, anomalous, len(values)).cumsum()
    taken = np.bincount(place, minlength=len(values)).cumsum()
    recall = found / found[-1]
    return float((np.diff(recall, prepend=0.0) * found / taken).sum())
