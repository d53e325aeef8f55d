"""Tests of all models of both plugins: shapes, networks, batches of one, half precision."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

import vaezoo
from small_jobs import SMALL_JOB
from vaezoo import Batch, DataSpec, StepContext
from vaezoo.cli.main import main
from vaezoo.config import build_config, load_config, resolve_components
from vaezoo.runs.run import Run

NAMES = ["beta_tc", "dip_vae", "info_vae", "wae_mmd", "capacity", "sigma_vae", "iwae", "miwae"]
CONFIGS = Path(__file__).parents[2] / "configs"
CONTEXT = StepContext(torch.tensor(3), 10, 100)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("shape", "domain", "network"),
    [
        ((1, 28, 28), "unit", "conv"),
        ((3, 32, 32), "unit", "resnet"),
        ((3, 13, 20), "unit", "conv"),
        ((1, 16, 16), "binary", "mlp"),
        ((5,), "real", "gated_mlp"),
    ],
)
def test_takes_a_step_and_looks_at_a_last_batch_of_one(
    name: str, shape: tuple[int, ...], domain: str, network: str
) -> None:
    torch.manual_seed(0)
    spec = DataSpec(shape=shape, domain=domain, num_examples=100)
    model = vaezoo.create_model(name, spec, network=network, hidden=(8, 8), latent_dim=3)
    loss = model.loss
    assert loss is not None
    (phase,) = loss.phases(model)
    x = torch.rand(4, *shape).round() if domain == "binary" else torch.rand(4, *shape)
    objective, terms = phase.loss_fn(model, Batch(x), CONTEXT)
    objective.backward(inputs=list(phase.parameters))
    assert objective.isfinite()
    assert all(value.shape in ((4,), ()) for value in terms.values())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.encoder.parameters())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.decoder.parameters())
    assert all(p.grad.isfinite().all() for p in phase.parameters if p.grad is not None)
    model.eval()
    loss.eval()
    with torch.no_grad():
        objective, terms = loss(model, Batch(x[:1]), CONTEXT)
        assert objective.isfinite()
        assert all(value.isfinite().all() for value in terms.values())
        assert model.sample(2).shape == (2, *shape)


@pytest.mark.parametrize("name", NAMES)
def test_sums_nats_in_full_precision_under_autocast(name: str) -> None:
    torch.manual_seed(0)
    model = vaezoo.create_model(name, (1, 16, 16), network="mlp", hidden=(16,), latent_dim=3)
    assert model.loss is not None
    x, values = torch.rand(16, 1, 16, 16), []
    for enabled in (False, True):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            objective, terms = model.loss(model, Batch(x), CONTEXT)
        assert objective.dtype == torch.float32
        assert {value.dtype for value in terms.values()} == {torch.float32}
        values.append(float(objective.detach()))
    assert values[1] == pytest.approx(values[0], rel=0.03)


def test_what_is_in_the_lists() -> None:
    models = {spec.name: spec for spec in vaezoo.list_models()}
    losses = {spec.name for spec in vaezoo.list_losses()}
    for name in NAMES:
        spec = models[name]
        assert spec.base == "vanilla"
        assert spec.loss_name == name
        assert name in losses
        assert spec.target == models["vanilla"].target
        assert ({"elbo", "importance"} <= {*spec.tags}) is (name != "wae_mmd")


@pytest.mark.parametrize("name", NAMES)
def test_its_config_file_is_valid(name: str) -> None:
    """Every option in it is known and in range, and the model has the name of the file."""
    given = load_config(CONFIGS / f"{name}.yaml")
    components = resolve_components({}, given)
    assert components.model.name == components.loss.name == name
    config = build_config(components, given, {})
    written = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    assert config.to_dict()["loss"].items() >= written["loss"].items()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("vanilla", "--loss", "sigma_vae", "--likelihood", "bernoulli"), "gaussian_learned"),
        (("beta_tc", "--estimator", "strange"), "estimator"),
        (("info_vae", "--alpha", "2"), "alpha"),
        (("wae_mmd", "--scales", "1,-1"), "scales"),
        (("iwae", "--samples", "0"), "samples"),
        (("capacity", "--rise", "1.5"), "rise"),
        (("dip_vae", "--dip-type", "iii"), "dip-type"),
    ],
)
def test_bad_options_cost_a_line(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
) -> None:
    assert main(["train", *arguments, "--examples", "50", "--test", "10"]) == 2
    errors = capsys.readouterr().err.strip()
    assert says in errors
    assert "Traceback" not in errors
    assert len(errors.splitlines()) == 1
    assert not (in_tmp / "runs").exists() or not [*(in_tmp / "runs").iterdir()]


def test_the_scale_of_the_wasserstein_entry_is_the_root_of_a_half() -> None:
    spec = {spec.name: spec for spec in vaezoo.list_models()}["wae_mmd"]
    assert spec.part_options["likelihood"]["scale"] == math.sqrt(0.5)
    assert spec.parts["likelihood"] == "gaussian"
    likelihood = vaezoo.create_model("wae_mmd", (1, 16, 16)).likelihood
    assert likelihood(torch.zeros(1, 1, 16, 16)).stddev.flatten()[0] == pytest.approx(0.5**0.5)


@pytest.mark.parametrize("name", ["sigma_vae", "capacity", "info_vae"])
def test_a_resumed_run_is_bit_equal(
    name: str, tmp_path: Path, assert_resumes: Callable[..., Run]
) -> None:
    """A resumed run is equal: state of the loss (a scale), the step, random numbers (the prior)."""
    job = {**SMALL_JOB, "network": "mlp", "hidden": (8,), "latent_dim": 2, "epochs": 2}
    assert_resumes(vaezoo.train(name, out=tmp_path / "whole", **job), 5, **job)
