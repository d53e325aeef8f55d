"""Embeddings of the latents in a plane: PCA, UMAP and t-SNE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from vaezoo import Splits
from vaezoo.errors import DataError, OptionError, counted, nearest
from vaezoo.evaluation.latents import LatentStats, pca_plane
from vaezoo.io import require_extra
from vaezoo.options import check_arguments
from vaezoo.runs.run import Run

EmbeddingMethod = Literal["pca", "umap", "tsne"]


@dataclass(frozen=True)
class Embedding:
    """Latents of examples as points in a plane.

    points: [n, 2]. index: positions of the examples in the test split.

    by: what `values` are, one whole number an example (-1: unknown), and None without. names: of
    the values 0, 1, ... where they have some. explained_variance: fraction per axis; of PCA only.
    """

    points: Tensor
    index: Tensor
    method: EmbeddingMethod
    by: str | None
    values: Tensor | None
    names: Sequence[str]
    explained_variance: list[float]

    @property
    def title(self) -> str:
        name = {"pca": "PCA", "umap": "UMAP", "tsne": "t-SNE"}[self.method]
        return f"{name} of the latents" + (f", by {self.by}" if self.by else "")

    @property
    def axes(self) -> tuple[str, str]:
        if not self.explained_variance:
            return "", ""
        first, second = (f"{fraction:.0%} of the variance" for fraction in self.explained_variance)
        return first, second

    @property
    def description(self) -> str:
        if not self.explained_variance:
            return "by neighbourhood: distances on it mean little"
        return f"which holds {sum(self.explained_variance):.0%} of their variance"

    def to_dict(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "by": self.by,
            "names": list(self.names),
            "explained_variance": self.explained_variance,
            "examples": self.index.tolist(),
            "points": self.points.tolist(),
            "values": None if self.values is None else self.values.tolist(),
        }


@check_arguments
def embed(
    run: Run,
    examples: PositiveInt = 2000,
    *,
    method: EmbeddingMethod = "pca",
    by: str | None = None,
    seed: NonNegativeInt = 0,
) -> Embedding:
    """The latents of a run's test examples in a plane: see embed_latents."""
    latents = run.latent_statistics(examples)
    return embed_latents(latents, run.splits, method=method, by=by, seed=seed)


def embed_latents(
    latents: LatentStats,
    splits: Splits,
    *,
    method: EmbeddingMethod = "pca",
    by: str | None = None,
    seed: int = 0,
) -> Embedding:
    """An embedding of these examples of the test split.

    by: "class", or the name of a factor; by default the class if the data has any.
    OptionError names those that there are.
    """
    factors = splits.factor_names
    known = [*(["class"] if latents.labels is not None else []), *factors]
    if by is not None and by not in known:
        what = f"this data has {', '.join(known)}" if known else "this data has no labels"
        raise OptionError(f"--by {by}: {what}{nearest(by, known)}")
    by = by or next(iter(known), None)
    points, explained = embed_points(latents.points, method, seed)
    values, names = latents.labels, splits.spec.class_names
    if by in factors and by != "class":
        found = splits.test.factors(latents.index)
        assert found is not None
        values, names = found[:, factors.index(by)].cpu(), ()
    return Embedding(points, latents.index, method, by, values, names, explained)


def embed_points(
    points: Tensor, method: EmbeddingMethod = "pca", seed: int = 0
) -> tuple[Tensor, list[float]]:
    """Points in a plane, [n, 2], and the fraction of the variance along each axis.

    points: [n, values]. pca is linear, and exact; umap (McInnes et al. 2018) and tsne (van der
    Maaten & Hinton 2008) keep neighbours and lose distances, so they have no fractions. They
    need extra packages: MissingExtraError if they are missing.
    """
    if len(points) < 3:
        raise DataError(f"{counted(len(points), 'example')}: too few to embed: give 3 or more")
    if not points.isfinite().all():
        raise DataError("the latents are not finite: the model has diverged")
    if method == "pca":
        plane, explained = pca_plane(points)
        return plane.float(), explained
    what = f"--method {method}"
    if method == "umap":
        umap = require_extra("umap", what, "maps")
        neighbours = min(15, len(points) - 1)
        fit = umap.UMAP(n_components=2, n_neighbors=neighbours, random_state=seed, n_jobs=1)
    else:
        manifold = require_extra("sklearn.manifold", what, "maps")
        perplexity = min(30.0, (len(points) - 1) / 3)
        fit = manifold.TSNE(n_components=2, perplexity=perplexity, random_state=seed, init="pca")
    return torch.from_numpy(np.asarray(fit.fit_transform(points.numpy()), dtype=np.float32)), []
