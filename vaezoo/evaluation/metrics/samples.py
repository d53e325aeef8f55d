"""How new images stand to real ones, by the features of a network that is named."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from vaezoo.data.base import Split
from vaezoo.data.loader import BatchLoader
from vaezoo.evaluation import fidelity, inception
from vaezoo.evaluation.classifier import classifier_of
from vaezoo.evaluation.metric import (
    BaseMetric,
    EvalBatch,
    EvalContext,
    Evidence,
    MetricResult,
    MetricState,
    MetricUnavailable,
)

LARGEST = 10_000
"""How many real and how many new images are compared."""
FEWEST = 1000
_AT_ONCE = 256
_NOISE = 2


class Features(MetricState):
    """Features of real images of the split, and of as many new ones."""

    def __init__(self, setting: EvalContext) -> None:
        super().__init__(setting)
        if setting.examples < FEWEST:
            raise MetricUnavailable(
                f"it takes {FEWEST:,} examples, and these are {setting.examples:,}"
            )
        self.network, self.name, self.about = _pick_network(setting)
        self.size = min(setting.examples, LARGEST)
        self._real: list[Tensor] = []
        self._labels: list[Tensor] = []
        # Spread over the split: a part of it may be sorted.
        self._wanted = set(torch.linspace(0, setting.examples - 1, self.size).long().tolist())

    def add(self, view: EvalBatch) -> None:
        rows = [i for i, at in enumerate(view.index.tolist()) if at in self._wanted]
        if rows:
            self._real.append(self.network(view.x[rows]))
            if view.y is not None:
                self._labels.append(view.y[rows])

    @functools.cached_property
    def real(self) -> Tensor:
        return torch.cat(self._real)

    @functools.cached_property
    def generated(self) -> Tensor:
        """Of images from the prior, as many as of real ones, with the labels of those.

        The likelihood's means, which is what samples are shown as; draws of it for binary data,
        whose means would be no such images.
        """
        model, parts = self.setting.model, []
        labels = torch.cat(self._labels) if self._labels else None
        mean = model.data.domain != "binary"
        with self.setting.noise(_NOISE):
            for done in range(0, len(self.real), _AT_ONCE):
                count = min(_AT_ONCE, len(self.real) - done)
                y = None if labels is None else labels[done : done + count]
                x = model.sample(count, y, mean=mean).float()
                parts.append(self.network(x.clamp(0, 1)))
                self.setting.on_progress("new images", done + count, len(self.real))
        return torch.cat(parts)

    @functools.cached_property
    def training(self) -> Tensor | None:
        """Of as many training images: what the model could reach, and what it is compared to."""
        splits = self.setting.splits
        if splits is None or self.setting.split_name == "train":
            return None
        split: Split = splits.train
        size = min(self.size, len(split))
        index = torch.linspace(0, len(split) - 1, size).long()
        measured = self.setting.batches
        batches = BatchLoader(
            split, batch_size=_AT_ONCE, device=measured.device, binarize=measured.binarize
        )
        return torch.cat([self.network(batches.batch(i).x) for i in index.split(_AT_ONCE)])

    def told(
        self, metric: str, value: float, reference: str, spread: float | None = None
    ) -> MetricResult:
        return MetricResult(
            value,
            spread,
            f"standard deviation over {fidelity.SUBSETS} subsets",
            note="; ".join(filter(None, (self.about, reference))),
            label=f"{metric}[{self.name}]",
            network=self.name,
            examples=self.size,
        )

    @functools.cached_property
    def coverage(self) -> tuple[float, float]:
        """Precision and recall."""
        return fidelity.precision_and_recall(self.real, self.generated)

    @functools.cached_property
    def coverage_of_training(self) -> tuple[float, float] | None:
        return (
            None
            if self.training is None
            else fidelity.precision_and_recall(self.real, self.training)
        )


class Fid(BaseMetric):
    collects = (Features,)

    def measure(self, evidence: Evidence) -> MetricResult:
        features = evidence[Features]
        reference = ""
        if features.training is not None:
            best = fidelity.frechet_distance(features.real, features.training)
            reference = f"training images have {best:.3g}"
        value = fidelity.frechet_distance(features.real, features.generated)
        return features.told("fid", value, reference)


class Kid(BaseMetric):
    collects = (Features,)

    def measure(self, evidence: Evidence) -> MetricResult:
        features = evidence[Features]
        generator = torch.Generator().manual_seed(evidence.setting.seed)
        value, spread = fidelity.kernel_distance(features.real, features.generated, generator)
        return features.told("kid", value, "", spread)


class Precision(BaseMetric):
    collects = (Features,)

    def measure(self, evidence: Evidence) -> MetricResult:
        features = evidence[Features]
        best = features.coverage_of_training
        reference = "" if best is None else f"training images have {best[0]:.3g}"
        return features.told("precision", features.coverage[0], reference)


class Recall(BaseMetric):
    collects = (Features,)

    def measure(self, evidence: Evidence) -> MetricResult:
        features = evidence[Features]
        best = features.coverage_of_training
        reference = "" if best is None else f"training images have {best[1]:.3g}"
        return features.told("recall", features.coverage[1], reference)


def _pick_network(setting: EvalContext) -> tuple[nn.Module, str, str]:
    """The network, its name, and a word about it.

    Inception where it is at hand and the images are grey or colour, else a classifier of the data;
    as --features says where that is not auto.
    """
    wanted, data = setting.features, setting.model.data
    fits = data.channels in (1, 3)
    if wanted == "inception" and not fits:
        raise MetricUnavailable(f"Inception sees images of 1 or 3 channels, not {data.channels}")
    if wanted == "inception" or (
        wanted == "auto" and fits and inception.can_have(setting.download)
    ):
        return inception.load(setting.device)
    if setting.splits is None:
        raise MetricUnavailable("it needs the whole data set, to train a classifier on")
    binarize = setting.batches.binarize
    trained = classifier_of(setting.splits, binarize, setting.device, setting.on_progress)
    name = "-".join(filter(None, (setting.data_name.replace("_", "-"), _of(trained.of))))
    return trained.network, name, f"held-out accuracy {trained.accuracy:.3f}"


def _of(what: str) -> str:
    return "classifier" if what == "class_names" else f"{what}-classifier"
