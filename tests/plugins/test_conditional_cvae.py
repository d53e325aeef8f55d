"""Tests of the conditional VAE: labels reach every part, have an effect, and may be unknown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from vaezoo import Batch, DataSpec, StepContext, create_model
from vaezoo.cli.main import main
from vaezoo.errors import DataError
from vaezoo.models.distributions import diagonal_normal, kl_divergence
from vaezoo_conditional.model import ConditionalVAE
from vaezoo_conditional.networks import one_hot

CLASSES = ("left", "right", "top", "bottom")
IMAGE = DataSpec(shape=(1, 8, 8), domain="binary", class_names=CLASSES)
VECTORS = DataSpec(shape=(6,), domain="real", class_names=CLASSES)
CONTEXT = StepContext(torch.tensor(0), 1, 16)
UNKNOWN = torch.full((5,), -1)


def model(data: DataSpec = IMAGE, **options: Any) -> ConditionalVAE:
    torch.manual_seed(0)
    given = {"network": "mlp", "hidden": (32,), "latent_dim": 3, "label_dim": 5, **options}
    built = create_model("cvae", data, **given)
    assert isinstance(built, ConditionalVAE)
    return built


def halves(n: int) -> Batch:
    """Images with one noisy white half, which one depends on the class; the rest is black."""
    generator = torch.Generator().manual_seed(2)
    y = torch.arange(n) % 4
    mask = torch.zeros(4, 1, 8, 8)
    mask[0, ..., :4] = mask[1, ..., 4:] = mask[2, :, :4] = mask[3, :, 4:] = 0.9
    return Batch(torch.bernoulli(mask[y], generator=generator), y)


def train(built: ConditionalVAE, batch: Batch, steps: int = 150) -> ConditionalVAE:
    optimizer = torch.optim.Adam(built.parameters(), lr=5e-3)
    assert built.loss is not None
    for _ in range(steps):
        optimizer.zero_grad()
        built.loss(built, batch, CONTEXT).loss.backward()
        optimizer.step()
    return built.eval()


@pytest.fixture(scope="module")
def trained() -> ConditionalVAE:
    return train(model(), halves(256), steps=400)


class TestLabelsAreUsed:
    @pytest.mark.parametrize("network", ["conv", "resnet", "mlp", "gated_mlp"])
    @pytest.mark.parametrize("data", [IMAGE, VECTORS])
    def test_by_encoder_and_decoder(self, network: str, data: DataSpec) -> None:
        if data is VECTORS and "mlp" not in network:
            return
        built = model(data, network=network).eval()
        x, z = torch.rand(4, *data.shape), torch.randn(4, 3)
        y, other = torch.arange(4), torch.tensor([1, 2, 3, 0])
        for answer in (
            lambda label: built.encode(x, label).mean,
            lambda label: built.decode(z, label).mean,
        ):
            change = (answer(y) - answer(other)).flatten(1).abs().amax(1)
            assert (change > 1e-4).all()
            assert answer(y).equal(answer(y))

    def test_each_example_by_its_own(self) -> None:
        built = model().eval()
        x, y = torch.rand(4, 1, 8, 8), torch.tensor([3, 1, 0, 2])
        order = torch.tensor([2, 0, 3, 1])
        assert torch.allclose(built.encode(x[order], y[order]).mean, built.encode(x, y).mean[order])

    def test_right_labels_beat_wrong_ones(self, trained: ConditionalVAE) -> None:
        x, y = halves(64)
        torch.manual_seed(0)
        right = trained.log_likelihood(x, y, samples=50).mean()
        for shift in (1, 2, 3):
            wrong = trained.log_likelihood(x, (y + shift) % 4, samples=50).mean()
            assert right - wrong > 5

    def test_samples_are_of_the_class_asked_for(self, trained: ConditionalVAE) -> None:
        patterns = torch.stack([halves(64).x[i::4].mean(0) for i in range(4)])
        for label in range(4):
            samples = trained.sample(20, torch.full((20,), label))
            distance = (samples[:, None] - patterns).square().flatten(2).mean(2)
            assert (distance.argmin(1) == label).float().mean() > 0.9

    def test_importance_weights_keep_labels_with_their_examples(
        self, trained: ConditionalVAE
    ) -> None:
        x, y = halves(12)
        together = trained.log_importance_weights(x, y, samples=400).mean(0)
        alone = torch.cat(
            [trained.log_importance_weights(x[i : i + 1], y[i : i + 1], 400) for i in range(12)],
            1,
        )
        error = 6 * alone.std(0) / 400**0.5
        assert ((together - alone.mean(0)).abs() < error + 0.05).all()


class TestPrior:
    def test_standard_for_every_class(self) -> None:
        prior = model(prior="standard").prior(torch.arange(4))
        assert prior.batch_shape == ()
        assert (prior.mean.tolist(), prior.stddev.tolist()) == ([0.0] * 3, [1.0] * 3)

    def test_learned_starts_standard_and_comes_to_differ(self, trained: ConditionalVAE) -> None:
        start = model().prior(torch.arange(4))
        assert start.batch_shape == (4,)
        assert start.mean.equal(torch.zeros(4, 3))
        assert start.stddev.equal(torch.ones(4, 3))
        means = trained.prior(torch.arange(4)).mean
        assert (torch.pdist(means) > 0.01).all()

    def test_learned_is_what_the_rate_is_measured_against(self) -> None:
        built = model()
        assert built.prior_table is not None
        with torch.no_grad():
            built.prior_table.weight.normal_()
        x, y = halves(8)
        q, table = built.encode(x, y), built.prior_table.weight.T[y]
        p = diagonal_normal(table[:, :3], (0.5 * table[:, 3:]).exp())
        by_hand = 0.5 * (
            (q.variance + (q.mean - p.mean).square()) / p.variance
            - 1
            - (q.variance / p.variance).log()
        ).sum(1)
        assert torch.allclose(kl_divergence(q, built.prior(y), q.mean), by_hand, rtol=1e-4)
        assert built.sample(4, torch.arange(4), temperature=0.0).shape == (4, 1, 8, 8)


class TestUnknown:
    def test_is_a_row_of_zeros(self) -> None:
        rows = one_hot(torch.tensor([2, -1, 0]), 3)
        assert rows.tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]

    def test_is_the_same_as_no_labels(self, trained: ConditionalVAE) -> None:
        x, z = halves(5).x, torch.randn(5, 3)
        assert trained.encode(x, UNKNOWN).mean.equal(trained.encode(x).mean)
        assert trained.decode(z, UNKNOWN).mean.equal(trained.decode(z).mean)
        assert trained.prior(UNKNOWN).mean.equal(trained.prior().mean.expand(5, 3))
        assert trained.prior(UNKNOWN).stddev.equal(trained.prior().stddev.expand(5, 3))
        assert trained.sample(5).shape == trained.reconstruct(x).shape == x.shape

    def test_is_none_of_the_classes(self, trained: ConditionalVAE) -> None:
        z = torch.randn(1, 3)
        unknown = trained.decode(z).mean
        known = trained.decode(z.expand(4, 3), torch.arange(4)).mean
        assert ((known - unknown).abs().flatten(1).amax(1) > 1e-3).all()

    def test_can_be_trained_on(self) -> None:
        x, y = halves(64)
        half_known = torch.where(torch.arange(64) < 32, y, -1)
        built = train(model(), Batch(x, half_known))
        assert built.log_likelihood(x, UNKNOWN.new_full((64,), -1), samples=20).mean() > -30
        assert built.log_likelihood(x, y, samples=20).mean() > -30


def test_data_without_classes_is_refused() -> None:
    with pytest.raises(DataError, match=r"^model cvae needs class labels, and this data has none$"):
        model(DataSpec(shape=(1, 8, 8)))


def test_an_image_network_on_vectors_is_refused_in_the_datas_numbers() -> None:
    with pytest.raises(DataError, match="vectors of 6 values: give network gated_mlp or mlp"):
        model(VECTORS, network="conv")


def test_the_command_line_draws_a_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "run")
    sizes = ["--examples", "80", "--test", "16", "--image-size", "16", "--batch-size", "16"]
    tiny = ["--hidden", "8,8", "--latent-dim", "3", "--epochs", "1", "--device", "cpu"]
    assert main(["train", "cvae", *sizes, *tiny, "--out", run]) == 0
    pictures = []
    for label in ("0", "2"):
        out = tmp_path / f"{label}.png"
        assert main(["sample", run, "--class", label, "-n", "4", "-o", str(out)]) == 0
        pictures.append(out.read_bytes())
    assert pictures[0] != pictures[1]
    capsys.readouterr()
    assert main(["sample", run, "--class", "3", "-n", "4", "-o", str(tmp_path / "x.png")]) == 2
    assert capsys.readouterr().err == "vaezoo: --class 3: classes are numbered from 0 to 2\n"
