"""Fréchet distances of reconstructions, and of images between two encoded ones, to real images."""

from __future__ import annotations

import torch
from torch import Tensor

from vaezoo.evaluation.metric import EvalBatch, EvalContext, MetricResult
from vaezoo.models.distributions import mode, project_to_prior

from .distances import frechet_distance
from .metrics import BATCH_SIZE, Features

_NOISE = 5
"""The stream of each batch's noise for draws of binary images."""
_ROWS = 1024
"""How many rows of a matrix of distances are held at once."""


class ReconstructionFeatures(Features):
    """Features of real images of the split, and of their reconstructions.

    The reconstructions are the likelihood's means; draws for binary data, as of generated images.
    """

    def __init__(self, context: EvalContext) -> None:
        super().__init__(context)
        self._reconstructed: list[Tensor] = []

    def update(self, batch: EvalBatch) -> None:
        super().update(batch)
        if rows := self.rows(batch):
            images = batch.reconstruction[rows].clamp(0, 1)
            if self.context.model.data.domain == "binary":
                with batch.noise(_NOISE):
                    images = torch.bernoulli(images)
            self._reconstructed.append(self.network(images))

    def rfid(self) -> MetricResult:
        value = frechet_distance(self.real, torch.cat(self._reconstructed))
        return self.result("rfid", value)


class InterpolatedFeatures(Features):
    """Features of real images, and of images decoded halfway from each latent to its nearest.

    The latents are the modes of the posteriors of the images that are compared. Each has its
    nearest neighbour among the others, by the Euclidean distance; between the two lies `middle`.
    """

    def __init__(self, context: EvalContext) -> None:
        super().__init__(context)
        self._latents: list[Tensor] = []

    def update(self, batch: EvalBatch) -> None:
        super().update(batch)
        if rows := self.rows(batch):
            self._latents.append(mode(batch.posterior)[rows].float())

    def ifid(self) -> MetricResult:
        model, z = self.context.model, torch.cat(self._latents)
        labels = torch.cat(self._labels) if self._labels else None
        between = middle(z, z[nearest_others(z.flatten(1))])
        parts = []
        for index in torch.arange(len(z), device=z.device).split(BATCH_SIZE):
            y = None if labels is None else labels[index]
            likelihood = model.decode(project_to_prior(model.prior(y), between[index]), y)
            with self.context.noise(_NOISE):
                binary = model.data.domain == "binary"
                x = likelihood.sample() if binary else likelihood.mean
            parts.append(self.network(x.float().clamp(0, 1)))
            self.context.on_progress("interpolated images", int(index[-1]) + 1, len(z))
        return self.result("ifid", frechet_distance(self.real, torch.cat(parts)))


def nearest_others(points: Tensor) -> Tensor:
    """The number of the nearest other point of each: float [n, d], n ≥ 2 -> int64 [n]."""
    found = []
    for index in torch.arange(len(points), device=points.device).split(_ROWS):
        distances = torch.cdist(points[index], points)
        distances.scatter_(1, index[:, None], torch.inf)
        found.append(distances.argmin(1))
    return torch.cat(found)


def middle(a: Tensor, b: Tensor) -> Tensor:
    """The spherical interpolation of a and b at ½ (Shoemake 1985): [n, *latent_shape] each.

    (a + b) / (2 cos(ω / 2)) with the angle ω between them; half of that sum where one is 0 or both
    are opposite, which have no arc.
    """
    cosine = torch.nn.functional.cosine_similarity(a.flatten(1), b.flatten(1))
    scale = torch.where(cosine > -1 + 1e-6, (2 + 2 * cosine).sqrt(), 2.0)
    zero = (a.flatten(1).norm(dim=1) * b.flatten(1).norm(dim=1)) == 0
    scale = torch.where(zero, 2.0, scale)
    return (a + b) / scale.view(-1, *[1] * (a.dim() - 1))
