"""Real-valued data is standardised for the model, and all that leaves a run is in its own units."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import vaezoo
from small_jobs import StopAfter
from vaezoo.data import base
from vaezoo.data.spec import DataStatistics
from vaezoo.errors import DataError, OptionError, RunStopped
from vaezoo.runs.evaluation import eval_loader
from vaezoo.runs.run import Run
from vaezoo.runs.train import resume_run
from vaezoo.training.loggers import ProgressCallback
from vaezoo_export.export import make_graph

Array = np.ndarray[Any, Any]
SCALE, SHIFT = 10.0, 5.0
SMALL: dict[str, Any] = {
    **{"data": "npz", "network": "mlp", "hidden": (16,), "latent_dim": 3, "batch_size": 16},
    **{"steps": 12, "log_every": 4, "device": "cpu"},
}


def table(n: int = 80, numel: int = 6) -> Array:
    """Values of two factors and noise, of one range in all columns."""
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((2, numel))
    return rng.standard_normal((n, 2)) @ mixing + 0.1 * rng.standard_normal((n, numel))


def train(
    folder: Path, values: np.ndarray[Any, Any], model: str = "vanilla", **options: Any
) -> Run:
    folder.mkdir(exist_ok=True)
    np.savez(folder / "x.npz", x=values)
    options = {**SMALL, "root": folder / "x.npz", "out": folder / "run", **options}
    return vaezoo.train(model, **options)


@pytest.fixture(scope="module", params=["vectors", "images"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """The same training on x and on 10 x + 5."""
    x = table() if request.param == "vectors" else table(80, 2 * 8 * 8).reshape(80, 2, 8, 8)
    folder = tmp_path_factory.mktemp(request.param)
    return [train(folder / "a", x), train(folder / "b", SCALE * x + SHIFT)]


def lines(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.folder.metrics.read_text().splitlines()]


def test_nats_differ_by_the_logarithm_of_the_scale(pair: list[Run]) -> None:
    """A density in units that are ten times smaller is ten times smaller, for each value."""
    a, b = pair
    nats = a.data_spec.numel * math.log(SCALE)
    for x, y in zip(lines(a), lines(b), strict=True):
        assert y["terms"]["rate"] == pytest.approx(x["terms"]["rate"], rel=1e-3)
        for term, sign in (("elbo", -1), ("distortion", 1), ("loss", 1)):
            assert y["terms"][term] == pytest.approx(x["terms"][term] + sign * nats, rel=1e-4)
    found = [run.evaluate(importance_samples=20) for run in pair]
    assert found[0].elbo is not None
    assert found[0].log_likelihood is not None
    assert found[1].elbo == pytest.approx(found[0].elbo - nats, rel=1e-4)
    assert found[1].log_likelihood == pytest.approx(found[0].log_likelihood - nats, rel=1e-4)


def test_errors_are_in_the_units_of_the_data(pair: list[Run]) -> None:
    a, b = (run.evaluate() for run in pair)
    assert a.mse is not None
    assert b.mse == pytest.approx(a.mse * SCALE**2, rel=1e-3)
    assert b.reconstruction_r2 == pytest.approx(a.reconstruction_r2, rel=1e-3)
    x, _ = pair[1].splits.test.get_batch(torch.arange(20))
    assert b.mse == pytest.approx(float((pair[1].reconstruct(x) - x).square().mean()), rel=1e-3)


def decoder(run: Run) -> Tensor:
    return make_graph(run.model, "decoder")(torch.ones(2, *run.model.latent_shape))[0]


def first_example(run: Run) -> Tensor:
    return run.splits.test.get_batch(torch.arange(1))[0]


LEAVES: dict[str, Callable[[Run], Tensor]] = {
    "sample": lambda run: run.sample(5),
    "reconstruct": lambda run: run.reconstruct(first_example(run)),
    "traverse": lambda run: run.traverse(1, steps=3).rows[0].images,
    "interpolate": lambda run: run.interpolate("0", "1", steps=3).images,
    "its originals": lambda run: run.interpolate("0", "1", steps=3).a,
    "an example": lambda run: run.example("3").x,
    "export": decoder,
}


@pytest.mark.parametrize("what", LEAVES)
def test_what_leaves_a_run_is_in_the_units_of_the_data(pair: list[Run], what: str) -> None:
    a, b = (LEAVES[what](run).detach() for run in pair)
    torch.testing.assert_close(b, SCALE * a + SHIFT, rtol=1e-3, atol=2e-2)


def test_encoders_take_the_units_of_the_data(pair: list[Run]) -> None:
    a, b = (make_graph(run.model, "encoder")(first_example(run)) for run in pair)
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    x = first_example(pair[1]).numpy().astype(np.float64)
    found = torch.as_tensor(pair[1].reconstruct(x))
    torch.testing.assert_close(found, pair[1].reconstruct(first_example(pair[1])))
    with pytest.raises(DataError, match="examples of this data are"):
        pair[1].reconstruct(x[0])
    with pytest.raises(OptionError, match="n: should be greater than 0"):
        pair[1].sample(0)
    for run, (z, _) in zip(pair, (a, b), strict=True):
        torch.testing.assert_close(run.encode_example(run.example("0")), z)


@pytest.mark.parametrize("model", ["sigma_vae", "iwae", "rae", "ladder_vae", "vamp_prior"])
def test_other_models_and_losses_have_the_same_nats(tmp_path: Path, model: str) -> None:
    a = train(tmp_path / "a", table(), model, steps=4, log_every=1)
    b = train(tmp_path / "b", SCALE * table() + SHIFT, model, steps=4, log_every=1)
    nats = 6 * math.log(SCALE)
    for x, y in zip(lines(a), lines(b), strict=True):
        assert y["terms"]["loss"] == pytest.approx(x["terms"]["loss"] + nats, abs=0.02)


@pytest.mark.parametrize(("scale", "shift"), [(255.0, 0.0), (2.0, -1.0), (1000.0, 5000.0)])
def test_images_of_any_range_train_alike(tmp_path: Path, scale: float, shift: float) -> None:
    """Conventions of other programs: 0 to 255, −1 to 1, or counts of a detector."""
    rng = np.random.default_rng(0)
    x = rng.random((80, 1, 8, 8)).round(3)
    x[..., 4:] = x[..., :4]
    run = train(tmp_path / "run", scale * x + shift, steps=60)
    assert run.data_spec.domain == "real"
    drawn = run.sample(200)
    assert float(drawn.mean()) == pytest.approx(scale * 0.5 + shift, abs=0.05 * scale)
    kept = run.data_spec.statistics
    assert kept is not None
    assert kept.minimum == pytest.approx(shift, abs=0.01 * scale)
    assert kept.maximum == pytest.approx(scale + shift, abs=0.01 * scale)


def test_a_table_with_columns_of_all_ranges_is_learned(tmp_path: Path) -> None:
    """Its samples have the mean and the deviation of each column."""
    units = np.array([1.0, 10.0, 100.0, 0.01, 1.0, 1e4])
    x = table(400) * units + np.array([10.0, -50.0, 300.0, 5.0, 1000.0, 0.0])
    run = train(tmp_path / "run", x, latent_dim=2, hidden=(32, 16), steps=1000, lr=3e-3)
    found = run.evaluate()
    assert found.reconstruction_r2 is not None
    assert found.reconstruction_r2 > 0.9
    drawn = run.sample(4000).numpy().astype(np.float64)
    np.testing.assert_allclose((drawn.mean(0) - x.mean(0)) / x.std(0), 0, atol=0.15)
    np.testing.assert_allclose(drawn.std(0) / x.std(0), 1, atol=0.1)


def test_the_table_of_the_report_is_learned_by_default(tmp_path: Path) -> None:
    """10 + noise in five columns, which no two latents could hold."""
    np.savez(tmp_path / "x.npz", x=10 + np.random.default_rng(0).standard_normal((500, 5)))
    options = {"data": "npz", "root": tmp_path / "x.npz", "network": "mlp", "device": "cpu"}
    run = vaezoo.train("vanilla", out=tmp_path / "run", **options, log_every=100)
    assert run.summary["reconstruction_r2"] > 0.9
    drawn, kept = run.sample(20_000), run.data_spec.statistics
    assert kept is not None
    torch.testing.assert_close(drawn.mean(0), torch.tensor(kept.mean), rtol=0.05, atol=0)
    torch.testing.assert_close(drawn.std(0), torch.tensor(kept.std), rtol=0.05, atol=0)


def test_off_gives_the_model_the_values_as_they_are(tmp_path: Path) -> None:
    run = train(tmp_path / "run", SCALE * table() + SHIFT, standardize="off")
    assert run.data_spec.log_det == 0.0
    loader = eval_loader(run.config, run.splits, "test", run.device)
    x, _ = run.splits.test.get_batch(torch.arange(3))
    torch.testing.assert_close(loader.batch(torch.arange(3)).x, x)
    kept = run.data_spec.statistics
    assert kept is not None
    assert (kept.mean, kept.std) == ((0.0,) * 6, (1.0,) * 6)


def test_a_resumed_run_uses_the_statistics_that_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not those of this machine, which may differ in the last bit."""
    x = SCALE * table() + SHIFT
    full = train(tmp_path / "full", x)
    with pytest.raises(RunStopped):
        train(tmp_path / "part", x, callback=StopAfter(5))
    other = DataStatistics(mean=(1.0,) * 6, std=(2.0,) * 6, minimum=0.0, maximum=1.0)
    monkeypatch.setattr(base, "compute_statistics", lambda split: other)
    part = vaezoo.load_run(tmp_path / "part" / "run")
    resumed = resume_run(part.path, part.config, ProgressCallback())
    assert resumed.data_spec == full.data_spec == resumed.splits.spec == resumed.model.data
    for name, value in full.model.state_dict().items():
        assert value.equal(resumed.model.state_dict()[name]), name
    assert lines(full)[-1]["terms"] == lines(resumed)[-1]["terms"]


def test_a_run_from_before_standardisation_stays_as_it_was(tmp_path: Path) -> None:
    run = train(tmp_path / "run", table(), standardize="off")
    before = run.sample(3)
    metadata = json.loads(run.folder.metadata.read_text())
    del metadata["data"]["spec"]["statistics"]
    run.folder.metadata.write_text(json.dumps(metadata))
    again = vaezoo.load_run(run.path)
    assert again.data_spec == replace(run.data_spec, statistics=None)
    torch.testing.assert_close(again.sample(3), before)
