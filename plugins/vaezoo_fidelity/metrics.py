"""Metrics that compare generated with real images, by the features of a named network."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from vaezoo import MetricState
from vaezoo.data.loader import BatchLoader
from vaezoo.evaluation.metric import (
    MAX_EXAMPLES,
    MIN_EXAMPLES,
    EvalBatch,
    EvalContext,
    MetricResult,
    MetricUnavailable,
)

from . import distances, inception
from .classifier import classifier_name, load_classifier

BATCH_SIZE = 256
_NOISE = 2


class Features(MetricState):
    """Features of real images of the split, and of as many generated ones."""

    def __init__(self, context: EvalContext) -> None:
        super().__init__(context)
        context.require_examples(MIN_EXAMPLES)
        self.network, self.name, self.note = _select_network(context)
        self.size = min(context.num_examples, MAX_EXAMPLES)
        self._real: list[Tensor] = []
        self._labels: list[Tensor] = []
        # Spread over the split: a part of it may be sorted.
        self._wanted = set(torch.linspace(0, context.num_examples - 1, self.size).long().tolist())

    def rows(self, batch: EvalBatch) -> list[int]:
        """The examples of a batch that are compared."""
        return [i for i, at in enumerate(batch.index.tolist()) if at in self._wanted]

    def update(self, batch: EvalBatch) -> None:
        if rows := self.rows(batch):
            self._real.append(self.network(batch.x[rows]))
            if batch.y is not None:
                self._labels.append(batch.y[rows])

    def fid(self) -> MetricResult:
        value = distances.frechet_distance(self.real, self.generated)
        if self.training is None:
            return self.result("fid", value)
        return self.result("fid", value, distances.frechet_distance(self.real, self.training))

    def kid(self) -> MetricResult:
        generator = torch.Generator().manual_seed(self.context.seed)
        value, std = distances.kernel_distance(self.real, self.generated, generator)
        return self.result("kid", value, std=std)

    def precision(self) -> MetricResult:
        reference = self._training_coverage
        return self.result("precision", self._coverage[0], reference and reference[0])

    def recall(self) -> MetricResult:
        reference = self._training_coverage
        return self.result("recall", self._coverage[1], reference and reference[1])

    @functools.cached_property
    def real(self) -> Tensor:
        return torch.cat(self._real)

    @functools.cached_property
    def generated(self) -> Tensor:
        """Of images from the prior, as many as of real ones, with the labels of those.

        The likelihood's means, as samples are shown; draws from it for binary data, whose means
        are no binary images.
        """
        model, parts = self.context.model, []
        labels = torch.cat(self._labels) if self._labels else None
        mean = model.data.domain != "binary"
        with self.context.noise(_NOISE):
            for done in range(0, len(self.real), BATCH_SIZE):
                count = min(BATCH_SIZE, len(self.real) - done)
                y = None if labels is None else labels[done : done + count]
                x = model.sample(count, y, mean=mean).float()
                parts.append(self.network(x.clamp(0, 1)))
                self.context.on_progress("generated images", done + count, len(self.real))
        return torch.cat(parts)

    @functools.cached_property
    def training(self) -> Tensor | None:
        """Of as many training images, as a reference; None if there are none to compare with."""
        splits = self.context.splits
        if splits is None or self.context.split_name == "train":
            return None
        index = torch.linspace(0, len(splits.train) - 1, min(self.size, len(splits.train))).long()
        measured = self.context.batches
        batches = BatchLoader(
            splits.train,
            batch_size=BATCH_SIZE,
            device=measured.device,
            binarize=measured.binarize,
        )
        return torch.cat([self.network(batches.batch(i).x) for i in index.split(BATCH_SIZE)])

    @functools.cached_property
    def _coverage(self) -> tuple[float, float]:
        """Precision and recall."""
        return distances.precision_and_recall(self.real, self.generated)

    @functools.cached_property
    def _training_coverage(self) -> tuple[float, float] | None:
        if self.training is None:
            return None
        return distances.precision_and_recall(self.real, self.training)

    def result(
        self, metric: str, value: float, reference: float | None = None, std: float | None = None
    ) -> MetricResult:
        """A value with its network.

        reference: the value that training images have in place of generated ones.
        """
        trained = "" if reference is None else f"training images have {reference:.3g}"
        return MetricResult(
            value,
            std,
            f"standard deviation over {distances.SUBSETS} subsets",
            note="; ".join(filter(None, (self.note, trained))),
            label=f"{metric}[{self.name}]",
            network=self.name,
            examples=self.size,
        )


def _select_network(context: EvalContext) -> tuple[nn.Module, str, str]:
    """The network, its name, and a note about it.

    Inception if it is available and the images are grey or colour, else a classifier of the data;
    as --features says unless that is auto.
    """
    wanted, data = context.features, context.model.data
    fits = data.channels in (1, 3)
    if wanted == "inception" and not fits:
        raise MetricUnavailable(f"Inception sees images of 1 or 3 channels, not {data.channels}")
    if wanted == "inception" or (
        wanted == "auto" and fits and inception.is_available(context.download)
    ):
        return inception.load(context.device)
    if context.splits is None:
        raise MetricUnavailable("it needs the whole data set, to train a classifier on")
    binarize = context.batches.binarize
    trained = load_classifier(context.splits, binarize, context.device, context.on_progress)
    name = classifier_name(trained, context.data_name)
    return trained.network, name, f"held-out accuracy {trained.accuracy:.3f}"
