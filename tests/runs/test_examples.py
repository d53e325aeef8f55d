"""Latents and scores of examples: their values, their order, their noise, and what is refused."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import vaezoo
from vaezoo import Split, TensorSplit, VaezooError
from vaezoo.errors import VaezooWarning
from vaezoo.evaluation.accumulators import RunningMoments
from vaezoo.runs.run import Run

SMALL: dict[str, Any] = {
    **{"data": "sprites", "examples": 400, "test": 300, "image_size": 16, "hidden": (8, 8)},
    **{"batch_size": 16, "steps": 2, "device": "cpu"},
}
MODELS: dict[str, dict[str, Any]] = {
    "vanilla": {"latent_dim": 3},
    "cvae": {"latent_dim": 3},
    "vq_vae": {"sampler": "none"},
    "autoencoder": {"latent_dim": 3},
    "iaf": {"latent_dim": 3},
}


@pytest.fixture(scope="module")
def open_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    runs: dict[str, Run] = {}

    def get(name: str) -> Run:
        if name not in runs:
            out = tmp_path_factory.mktemp(name) / "run"
            runs[name] = vaezoo.train(name, out=out, **SMALL, **MODELS[name])
        return runs[name]

    return get


def of_split(run: Run) -> tuple[torch.Tensor, torch.Tensor | None]:
    """All examples of the test split in the data's units, and their classes."""
    batch = run.examples().get(torch.arange(300))
    return batch.x, batch.y


@pytest.mark.parametrize("name", MODELS)
def test_decoding_the_latents_reconstructs(name: str, open_run: Callable[[str], Run]) -> None:
    run = open_run(name)
    x, y = of_split(run)
    z = run.encode(x, y)
    assert z.shape == (300, *run.model.latent_shape)
    parts = zip(x.split(256), (None, None) if y is None else y.split(256), strict=True)
    expected = torch.cat([run.model.reconstruct(*part) for part in parts])
    assert run.decode(z, y).equal(expected)
    assert run.reconstruct(x, y).equal(expected)
    assert z.equal(run.encode())  # the split itself, in its order
    assert z[5:9].equal(run.encode(x[5:9], None if y is None else y[5:9])) or torch.allclose(
        z[5:9], run.encode(x[5:9], None if y is None else y[5:9]), atol=1e-5
    )


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("split", ["test", "validation", "train"])
def test_the_means_of_scores_are_those_of_evaluate(
    name: str, split: Any, open_run: Callable[[str], Run]
) -> None:
    run, names = open_run(name), ("elbo", "log_likelihood", "rate", "distortion", "mse")
    found = run.evaluate(metrics=names, importance_samples=3, seed=4, split=split)
    without = {"autoencoder": "no elbo, log_likelihood, rate, distortion: this model has no ELBO"}
    without["vq_vae"] = "no log_likelihood: this model has no importance weights"
    if name in without:
        with pytest.warns(VaezooWarning, match=without[name]):
            scores = run.score(importance_samples=3, seed=4, split=split)
    else:
        scores = run.score(importance_samples=3, seed=4, split=split)
    known = {n: r.value for n, r in found.metrics.items() if r.value is not None}
    assert scores.keys() == known.keys()
    for key, value in known.items():
        moments = RunningMoments()
        for part in scores[key].split(256):
            moments.update(part)
        if key == "elbo":
            assert float(moments.mean) == pytest.approx(value, rel=1e-12)
        else:
            assert float(moments.mean) == value


def test_the_posterior_of_a_gaussian_is_that_of_torch(open_run: Callable[[str], Run]) -> None:
    run = open_run("vanilla")
    x, _ = of_split(run)
    found = run.encode(x.numpy(), what=("mean", "std", "sample"))
    with torch.no_grad():
        posterior = run.model.encode(x)
    assert all(isinstance(values, np.ndarray) for values in found.values())
    np.testing.assert_allclose(found["mean"], posterior.mean, atol=1e-6)
    np.testing.assert_allclose(found["std"], posterior.base_dist.scale, atol=1e-6)
    # 900 standardised draws of a standard Gaussian
    noise = (found["sample"] - found["mean"]) / found["std"]
    assert abs(noise.mean()) < 4 / 30
    assert abs(noise.std() - 1) < 0.1
    again = run.encode(x.numpy(), what="sample")
    assert (again == found["sample"]).all()
    assert (run.encode(x.numpy(), what="sample", seed=1) != again).all()


def test_the_elbo_is_that_of_the_sample(open_run: Callable[[str], Run]) -> None:
    run = open_run("vanilla")
    x, _ = of_split(run)
    z, scores = run.encode(what="sample", seed=7), run.score(seed=7)
    with torch.no_grad():
        distortion = -run.model.decode(z).log_prob(x)
        rate = torch.distributions.kl_divergence(run.model.encode(x), run.model.prior())
    torch.testing.assert_close(scores["distortion"], distortion, rtol=1e-5, atol=0)
    torch.testing.assert_close(scores["rate"], rate, rtol=1e-4, atol=1e-6)
    assert scores["elbo"].equal(-scores["rate"].double() - scores["distortion"].double())
    expected = (run.reconstruct(x) - x).square().mean((1, 2, 3))
    torch.testing.assert_close(scores["mse"], expected)


def test_codes_are_indices_or_their_vectors(open_run: Callable[[str], Run]) -> None:
    run = open_run("vq_vae")
    found = run.encode(what=["indices", "mean"])
    assert found["indices"].dtype == torch.int64
    assert found["indices"].shape == (300, *run.model.latent_shape[1:])
    assert run.decode(found["indices"]).equal(run.decode(found["mean"]))
    with pytest.raises(VaezooError, match="numbered from 0 to"):
        run.decode(found["indices"] + 10**6)
    with pytest.raises(VaezooError, match="std: its latents are codes"):
        run.encode(what="std")


def test_drawn_examples_follow_the_seed(open_run: Callable[[str], Run]) -> None:
    run = open_run("vanilla")
    z = torch.zeros(300, 3)
    first = run.decode(z, sample=True, seed=1)
    assert set(first.unique().tolist()) <= {0.0, 1.0}
    assert first.equal(run.decode(z, sample=True, seed=1))
    assert not first.equal(run.decode(z, sample=True, seed=2))
    assert torch.allclose(first.mean(0), run.decode(z[:1])[0], atol=0.15)


def test_classes_of_a_conditional_model(open_run: Callable[[str], Run]) -> None:
    run = open_run("cvae")
    x, y = of_split(run)
    assert y is not None
    assert not run.encode(x, (y + 1) % 3).equal(run.encode(x, y))
    with pytest.raises(VaezooError, match="give y, the class number of each example"):
        run.score(x)
    with pytest.raises(VaezooError, match="give y, the class number of each example"):
        run.decode(torch.zeros(2, 3))
    unknown = TensorSplit(x, torch.where(torch.arange(300) == 270, -1, y))
    with pytest.raises(VaezooError, match="example 270 has no class"):
        run.encode(unknown)
    with pytest.raises(VaezooError, match="the data has other classes"):
        run.encode(replace(run.splits, spec=replace(run.data_spec, class_names=("a", "b", "c"))))


class Counted(Split):
    """Random images that count how many of them are alive."""

    def __init__(self, count: int) -> None:
        self.count, self.alive, self.most = count, 0, 0

    def __len__(self) -> int:
        return self.count

    def get_batch(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        x = (index[:, None] * 37 + torch.arange(256)).remainder(251).view(-1, 1, 16, 16)
        self.alive += len(x)
        self.most = max(self.most, self.alive)
        x = x.to(torch.uint8)
        weakref.finalize(x, self._gone, len(x))
        return x, None

    def _gone(self, count: int) -> None:
        self.alive -= count

    def names(self, index: torch.Tensor) -> list[str]:
        return [f"{i}.png" for i in index.tolist()]


def test_batches_are_released_and_in_order(open_run: Callable[[str], Run]) -> None:
    run, split = open_run("vanilla"), Counted(256 * 12 + 5)
    gc.collect()
    seen, names = [], []
    for batch in run.examples(split).encode(["mean"]):
        seen.append(batch.index)
        names += batch.names or []
    assert torch.cat(seen).equal(torch.arange(len(split)))
    assert names == [f"{i}.png" for i in range(len(split))]
    assert split.most <= 3 * 256


def test_processes_share_the_batches_in_turn(
    open_run: Callable[[str], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, split = open_run("vanilla"), Counted(256 * 4 + 9)
    alone = [batch.values["sample"] for batch in run.examples(split).encode(["sample"], seed=3)]
    sent: list[list[Any]] = []

    def gather(found: Any) -> list[Any]:
        sent[-1].append(found)
        return []

    monkeypatch.setattr("vaezoo.runs.examples.gather_objects", gather)
    monkeypatch.setattr("vaezoo.runs.examples.world_size", lambda: 2)
    for rank in (0, 1):
        monkeypatch.setattr("vaezoo.runs.examples.rank", lambda rank=rank: rank)
        sent.append([])
        assert not list(run.examples(split).encode(["sample"], seed=3))
    in_turn = [found for pair in zip(*sent, strict=True) for found in pair]
    assert in_turn.pop() is None  # the fifth batch is the last
    assert all(a.equal(b.values["sample"]) for a, b in zip(alone, in_turn, strict=True))


def test_factors_and_labels_are_those_of_the_split(open_run: Callable[[str], Run]) -> None:
    run = open_run("vanilla")
    batches = list(run.examples(split="train").encode(["mean"]))
    factors = run.splits.train.factors(torch.arange(100))
    assert factors is not None
    assert torch.cat([b.factors for b in batches if b.factors is not None]).equal(factors)
    assert torch.cat([b.labels for b in batches if b.labels is not None]).equal(factors[:, 0])
    assert all(b.names is None for b in batches)


WRONG: list[tuple[str, Callable[[Run], Any], str]] = [
    ("vanilla", lambda run: run.encode(what="indices"), "indices: the latents .* are no codes"),
    ("vanilla", lambda run: run.encode(what=()), "what names nothing"),
    ("vanilla", lambda run: run.encode(what="median"), "should be"),
    ("vanilla", lambda run: run.encode(np.zeros((2, 3, 16, 16))), "are n×1×16×16, not 2×3×16×16"),
    ("vanilla", lambda run: run.encode(np.zeros((0, 1, 16, 16))), "there are no examples"),
    ("vanilla", lambda run: run.encode(Counted(5), [0]), "a split has its own classes"),
    (
        "vanilla",
        lambda run: run.encode(TensorSplit(torch.zeros(2, 4))),
        "the data is torch.float32 of shape",
    ),
    ("vanilla", lambda run: run.score(importance_samples=-1), "importance_samples"),
    ("vanilla", lambda run: run.decode(np.zeros((2, 4))), "are n×3, not 2×4"),
    ("vanilla", lambda run: run.decode(np.float32(1)), "are n×3, not one number"),
    ("vanilla", lambda run: run.decode(np.full((2, 3), np.nan)), "hold NaN or infinity"),
    ("vanilla", lambda run: run.decode("z"), "z is no array of numbers: str"),
    ("autoencoder", lambda run: run.encode(what="std"), "its posterior is a point"),
    ("iaf", lambda run: run.encode(what="std"), "has no closed form"),
]


@pytest.mark.parametrize(("name", "call", "said"), WRONG)
def test_what_does_not_fit_is_refused(
    name: str, call: Callable[[Run], Any], said: str, open_run: Callable[[str], Run]
) -> None:
    with pytest.raises(VaezooError, match=said) as caught:
        call(open_run(name))
    assert "\n" not in str(caught.value)


def test_data_of_another_kind_is_refused(open_run: Callable[[str], Run]) -> None:
    run = open_run("vanilla")
    other = vaezoo.load_data("sprites", examples=60, test=12, image_size=32)
    with pytest.raises(
        VaezooError, match="of images of 1×16×16, binary; the data is of images of 1×32×32, binary"
    ):
        run.encode(other)
    grey = replace(run.splits, spec=replace(run.data_spec, domain="unit"))
    with pytest.raises(VaezooError, match=r"1×16×16, binary; the data is of .*, unit"):
        run.score(grey)
    same = vaezoo.load_data("sprites", examples=500, test=9, image_size=16)
    assert run.encode(same).shape == (9, 3)
