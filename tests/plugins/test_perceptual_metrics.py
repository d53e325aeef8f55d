"""The metrics lpips and classifier_distance: means over the examples, and named networks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution

from vaezoo import BaseVAE, DataSpec, Options, Splits, TensorSplit
from vaezoo.data.loader import BatchLoader
from vaezoo.evaluation.evaluate import evaluate, select_metrics
from vaezoo.evaluation.metric import EvalContext, MetricResult
from vaezoo.models.distributions import Delta
from vaezoo_fidelity import classifier
from vaezoo_perceptual import weights
from vaezoo_perceptual.distances import LPIPS, ClassifierDistance, VGG16Features

CPU = torch.device("cpu")
SPEC = DataSpec(shape=(1, 16, 16), class_names=("a", "b"), num_examples=40)


def pictures(count: int, seed: int) -> TensorSplit:
    generator = torch.manual_seed(seed)
    images = torch.randint(256, (count, 1, 16, 16), generator=generator).to(torch.uint8)
    return TensorSplit(images, torch.arange(count) % 2)


SPLITS = Splits(
    spec=SPEC,
    train=pictures(40, 0),
    validation=pictures(10, 1),
    test=pictures(7, 2),
    description="made here",
    fingerprint="perceptual",
)


class Doubler(BaseVAE):
    """Reconstructs an image twice as bright."""

    def __init__(self) -> None:
        super().__init__(Options(), SPEC)
        self.latent_shape = (1, 16, 16)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return Delta(x, 3)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return Delta(2 * z, 3)


def measured(name: str, splits: Splits | None = SPLITS) -> MetricResult:
    batches = BatchLoader(SPLITS.test, batch_size=3, device=CPU)
    context = EvalContext(
        Doubler(), frozenset({"deterministic"}), batches, splits, data_name="dots"
    )
    return evaluate(context, select_metrics([name])).metrics[name]


def test_lpips_is_the_mean_over_the_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    heads = [torch.rand(n) for n in (64, 128, 256, 512, 512)]
    distance = LPIPS(VGG16Features(), heads)
    loaded = weights.LoadedDistance(distance, "lpips_of_unknown_weights_12", b"x")
    monkeypatch.setattr("vaezoo_perceptual.metrics.load_lpips", lambda download: loaded)
    found = measured("lpips")
    x = SPLITS.test.get_batch(torch.arange(7))[0].float() / 255
    expected = distance((2 * x).clamp(max=1), x)
    assert found.value == pytest.approx(expected.mean().item(), rel=1e-5)
    assert found.uncertainty == pytest.approx(expected.std().item() / 7**0.5, rel=1e-4)
    assert found.label == "lpips[vgg16_of_unknown_weights_12]"
    assert "vgg16_of_unknown_weights_12" in found.comparable


def test_without_weights_there_is_no_lpips(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("lpips")
    monkeypatch.setattr(weights, "vgg_path", lambda: tmp_path / "vgg.pth")
    found = measured("lpips")
    assert found.value is None
    assert found.note.startswith("it needs the weights of VGG16, and ")
    assert "does not exist" in found.note


def test_the_classifiers_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier, "_STEPS", 3)
    found = measured("classifier_distance")
    trained = classifier.load_classifier(SPLITS, "none", CPU, lambda what, done, total: None)
    x = SPLITS.test.get_batch(torch.arange(7))[0].float() / 255
    expected = ClassifierDistance(trained.network)((2 * x).clamp(max=1), x)
    assert found.value == pytest.approx(expected.mean().item(), rel=1e-5)
    assert found.label == "classifier_distance[dots-classifier]"
    assert "held-out accuracy" in found.note
    assert measured("classifier_distance", None).note.startswith("it needs the whole data set")
    unlabelled = dataclasses.replace(SPLITS, spec=dataclasses.replace(SPEC, class_names=()))
    assert "no classes" in measured("classifier_distance", unlabelled).note
