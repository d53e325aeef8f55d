"""The classifier that stands in for Inception: named, deterministic, cached, and no more."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

import vaezoo
from vaezoo import BaseVAE, DataSpec, Options, Splits, TensorSplit
from vaezoo.cli.main import main
from vaezoo.data.loader import BatchLoader
from vaezoo.errors import RunError
from vaezoo.evaluation.evaluate import Evaluation, evaluate, select_metrics
from vaezoo.evaluation.metric import EvalContext, MetricUnavailable
from vaezoo.models.distributions import Delta, diagonal_normal
from vaezoo.models.likelihoods import GaussianLikelihood
from vaezoo_fidelity import classifier, distances, inception
from vaezoo_fidelity import metrics as samples
from vaezoo_fidelity.classifier import TrainedClassifier, load_classifier, read_classifier
from vaezoo_files.cache import cache_folder

CPU = torch.device("cpu")


def bars(count: int, seed: int) -> TensorSplit:
    """Bright in one of the four quarters, which is the class: easy to tell."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (count,), generator=generator)
    images = torch.randint(60, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    for image, label in zip(images, labels.tolist(), strict=True):
        row, column = label // 2 * 4, label % 2 * 4
        image[:, row : row + 4, column : column + 4] += 150
    return TensorSplit(images, labels)


def data(**changes: object) -> Splits:
    spec = DataSpec(shape=(1, 8, 8), class_names=("a", "b", "c", "d"), num_examples=600)
    splits = Splits(
        spec=spec,
        train=bars(600, 0),
        validation=bars(200, 1),
        test=bars(200, 2),
        description="made here",
        fingerprint="bars",
    )
    return dataclasses.replace(splits, **changes)  # type: ignore[arg-type]


class Copier(BaseVAE):
    """Draws what it is given: real images of another seed, or something dull."""

    def __init__(self, drawn: Tensor) -> None:
        super().__init__(Options(), data().spec)
        self.latent_shape = (1,)
        self.drawn = drawn
        self.likelihood = GaussianLikelihood(self.data, 0.25, learned=True)
        self.asked: list[int] = []

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return diagonal_normal(x.new_zeros(len(x), 1), x.new_ones(len(x), 1))

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        start = sum(self.asked)
        self.asked.append(len(z))
        return Delta(self.drawn[start : start + len(z)], 3)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier, "_STEPS", 60)
    monkeypatch.setattr(samples, "MIN_EXAMPLES", 100)
    monkeypatch.setattr(inception, "weights_path", lambda: Path("nowhere"))


def trained(splits: Splits) -> TrainedClassifier:
    return load_classifier(splits, "none", CPU, lambda what, done, total: None)


def test_it_learns_and_is_kept() -> None:
    first = trained(data())
    assert first.target == "classes"
    assert first.accuracy > 0.9
    (path,) = (cache_folder() / "classifiers").glob("*.safetensors")
    written = path.stat().st_mtime_ns
    again = trained(data())
    assert again.accuracy == first.accuracy
    assert path.stat().st_mtime_ns == written
    x = torch.rand(5, 1, 8, 8)
    assert torch.equal(first.network(x), again.network(x))
    path.write_bytes(b"damaged")
    anew = trained(data())
    assert torch.equal(first.network(x), anew.network(x))


def test_its_accuracy_is_the_fraction_of_test_examples_that_it_knows() -> None:
    splits = data()
    found = trained(splits)
    test = BatchLoader(splits.test, batch_size=64, device=CPU)
    right = 0
    for batch in test.sequential():
        (logits,) = found.network.logits(batch.x)
        right += int((logits.argmax(1) == batch.y).sum())
    assert found.accuracy == pytest.approx(right / 200)


def test_other_data_has_its_own() -> None:
    trained(data())
    trained(data(fingerprint="others"))
    assert len(list((cache_folder() / "classifiers").glob("*.safetensors"))) == 2


def test_data_without_classes_has_none() -> None:
    with pytest.raises(MetricUnavailable, match="no classes and no known factors"):
        trained(data(spec=dataclasses.replace(data().spec, class_names=())))


def test_it_leaves_the_generators_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    trained(data())
    assert torch.equal(torch.get_rng_state(), before)


def measured(drawn: Tensor, splits: Splits | None, **changes: object) -> Evaluation:
    whole = splits or data()
    batches = BatchLoader(whole.test, batch_size=64, device=CPU)
    setting = EvalContext(
        Copier(drawn), frozenset(), batches, splits=splits, loaded=whole.test, data_name="my_bars"
    )
    setting = dataclasses.replace(setting, **changes)  # type: ignore[arg-type]
    return evaluate(setting, select_metrics(["fid", "kid", "precision", "recall"]))


def test_samples_as_good_as_real_ones_and_bad_ones() -> None:
    real = bars(200, 3).images.float() / 255
    good = measured(real, data()).metrics
    dull = measured(torch.full_like(real, 0.5), data()).metrics
    for name, number in good.items():
        assert number.label == f"{name}[my-bars-classifier]"
        assert number.comparable == dull[name].comparable
        assert "held-out accuracy" in number.note
        assert "200 examples" in number.comparable
    fid = good["fid"].value
    assert fid is not None
    # As near as training images are, which are of the same distribution too.
    assert "training images have" in good["fid"].note
    assert fid < 0.1 * (dull["fid"].value or 0.0)
    assert (good["precision"].value or 0) > 0.8
    assert (good["recall"].value or 0) > 0.8
    assert dull["recall"].value == 0.0


@pytest.fixture
def flat(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor]]:
    """Features are the pixels; the distances are known. What was compared."""
    compared: list[tuple[Tensor, Tensor]] = []

    def coverage(real: Tensor, other: Tensor) -> tuple[float, float]:
        compared.append((real, other))
        return (0.5, 0.125) if len(compared) == 1 else (0.75, 0.25)

    monkeypatch.setattr(samples, "_select_network", lambda _: (nn.Flatten(), "flat", "by hand"))
    monkeypatch.setattr(distances, "precision_and_recall", coverage)
    return compared


def test_precision_and_recall_stand_beside_those_of_training_images(
    flat: list[tuple[Tensor, Tensor]],
) -> None:
    drawn = bars(200, 3).images.float() / 255
    splits = data()
    found = measured(3 * drawn - 1, splits).metrics
    training, generated = (other for _, other in flat)
    assert torch.equal(generated, (3 * drawn - 1).clamp(0, 1).flatten(1))
    numbers = torch.linspace(0, 599, 200).long()
    assert torch.equal(training, splits.train.images[numbers].flatten(1) / 255)  # type: ignore[attr-defined]
    assert all(torch.equal(real, splits.test.images.flatten(1) / 255) for real, _ in flat)  # type: ignore[attr-defined]
    assert (found["precision"].value, found["recall"].value) == (0.75, 0.25)
    assert found["precision"].note == "by hand; training images have 0.5"
    assert found["recall"].note == "by hand; training images have 0.125"


def test_training_images_are_not_compared_with_themselves(
    flat: list[tuple[Tensor, Tensor]],
) -> None:
    drawn = bars(200, 3).images.float() / 255
    found = measured(drawn, data(), split_name="train").metrics
    assert [number.note for number in found.values()] == ["by hand"] * len(found)
    assert len(flat) == 1


def test_why_there_is_none() -> None:
    real = bars(200, 3).images.float() / 255
    for splits, note in (
        (None, "it needs the whole data set"),
        (data(test=bars(50, 2)), "it needs 100 examples or more, and this split has 50"),
    ):
        for number in measured(real, splits).metrics.values():
            assert number.value is None
            assert note in number.note


class Quarters(TensorSplit):
    """The same bars, with the row and the column of the bright quarter as their factors."""

    def factors(self, index: Tensor) -> Tensor:
        assert self.labels is not None
        return torch.stack([self.labels[index] // 2, self.labels[index] % 2], 1)


def test_known_factors_have_a_head_each() -> None:
    parts = {
        name: Quarters(split.images, split.labels)
        for name, split in (("train", bars(600, 0)), ("test", bars(200, 2)))
    }
    splits = data(**parts, factor_names=("row", "column"))
    found = trained(splits)
    assert found.target == "factors"
    assert [head.out_features for head in found.network.heads] == [2, 2]
    assert found.accuracy > 0.9
    real = bars(200, 3).images.float() / 255
    number = measured(real, splits).metrics["fid"]
    assert number.label == "fid[my-bars-factors-classifier]"


def test_inception_is_not_at_hand_without_its_weights() -> None:
    assert not inception.is_available(download=False)


class TestCommand:
    SMALL = ("--set", "data.image_size=16", "--set", "data.examples=300", "--set", "data.test=50")

    def test_the_file_holds_the_classifier(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "c.safetensors"
        assert main(["classifier", "sprites", *self.SMALL, "-o", str(out), "--device", "cpu"]) == 0
        assert "a classifier of the factors, held-out accuracy 0." in capsys.readouterr().out
        splits = vaezoo.load_data("sprites", image_size=16, examples=300, test=50)
        x = torch.rand(3, 1, 16, 16)
        network = read_classifier(out, 1)
        torch.testing.assert_close(network(x), trained(splits).network(x))
        assert not network.training
        for layer, before in zip(network.layers(x), (8, 4, 2), strict=True):
            assert layer.shape[2:] == (before, before)
            assert (layer >= 0).all()
        last = network.features(network.body[-2:](network.layers(x)[-1])).relu()
        torch.testing.assert_close(last, network(x))
        with pytest.raises(RunError, match="does not fit the model"):
            read_classifier(out, 3)

    def test_what_it_refuses(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        np.savez(tmp_path / "a.npz", images=np.zeros((50, 8, 8), np.uint8))
        out = ["-o", str(tmp_path / "c.safetensors")]
        for words, said in (
            (["npz", "--root", str(tmp_path / "a.npz"), *out], "the data has no classes"),
            (["sprites", "--set", "image_size=16", *out], "give data.OPTION=VALUE"),
            (["sprites", "-o", str(tmp_path / "c.pt")], ".safetensors"),
        ):
            assert main(["classifier", *words]) == 2
            assert said in capsys.readouterr().err.splitlines()[-1]
