"""Metrics of reconstructions by perceptual distances, each named with its network."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

from torch import Tensor

from vaezoo.errors import DataError, OptionError
from vaezoo.evaluation.metric import (
    EvalBatch,
    EvalContext,
    ExampleMoments,
    MetricResult,
    MetricUnavailable,
)
from vaezoo_fidelity.classifier import classifier_name, load_classifier

from .distances import ClassifierDistance, PerceptualDistance
from .weights import MissingWeightsError, check_data, load_lpips


class _Distances(ExampleMoments):
    """The distance between each example and its reconstruction, clamped to [0, 1]."""

    def __init__(self, context: EvalContext) -> None:
        super().__init__(context)
        self.distance, self.network, self.note = self.load(context)
        self.distance.to(context.device)

    @abstractmethod
    def load(self, context: EvalContext) -> tuple[PerceptualDistance, str, str]:
        """The distance, the name of its network, and a note. MetricUnavailable if it is missing."""

    def measure(self, batch: EvalBatch) -> Tensor:
        return self.distance(batch.reconstruction.clamp(0, 1), batch.original)

    def labelled(self, metric: str) -> MetricResult:
        label = f"{metric}[{self.network}]"
        return replace(self.mean(), label=label, network=self.network, note=self.note)


class LPIPSMetric(_Distances):
    """LPIPS, with weights on disk or, if the evaluation may download, with those of the net."""

    def load(self, context: EvalContext) -> tuple[PerceptualDistance, str, str]:
        try:
            check_data("lpips", context.model.data)
            found = load_lpips(download=context.download)
        except MissingWeightsError as error:
            raise MetricUnavailable(f"it needs {error.problem}") from None
        except (DataError, OptionError) as error:
            raise MetricUnavailable(str(error).partition(": give ")[0]) from None
        return found.distance, found.name.replace("lpips", "vgg16"), ""

    def lpips(self) -> MetricResult:
        return self.labelled("lpips")


class ClassifierDistanceMetric(_Distances):
    """The distance by the convolutions of the classifier that stands in for Inception in fid."""

    def load(self, context: EvalContext) -> tuple[PerceptualDistance, str, str]:
        if context.splits is None:
            raise MetricUnavailable("it needs the whole data set, to train a classifier on")
        binarize = context.batches.binarize
        found = load_classifier(context.splits, binarize, context.device, context.on_progress)
        note = f"held-out accuracy {found.accuracy:.3f}"
        return ClassifierDistance(found.network), classifier_name(found, context.data_name), note

    def classifier_distance(self) -> MetricResult:
        return self.labelled("classifier_distance")
