"""What every model of the latents, hierarchy and conditional families keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vaezoo import BaseVAE, Batch, DataSpec, StepContext, create_model
from vaezoo.config import build_config, load_config, resolve_components
from vaezoo.models.distributions import kl_divergence, log_mean_exp, mode
from vaezoo.runs.build import build_model
from vaezoo.runtime.device import evaluation_mode, seeded

MODELS: dict[str, dict[str, Any]] = {
    "vamp_prior": {"pseudo_inputs": 6, "pseudo_mean": 0.5, "pseudo_std": 0.1},
    "cvae": {"label_dim": 3},
    "ladder_vae": {"upper": (3, 2), "level_hidden": 12},
    "iaf": {"flow_steps": 2, "flow_hidden": (12,), "context_dim": 5},
    "vmf_vae": {},
}
CLASSES = ("a", "b", "c")
GREY = DataSpec(shape=(1, 28, 28), domain="binary", class_names=CLASSES)
DATA = {
    "grey": GREY,
    "colour": DataSpec(shape=(3, 32, 32), class_names=CLASSES),
    "large": DataSpec(shape=(3, 64, 64), class_names=CLASSES),
    "not square": DataSpec(shape=(2, 12, 19), class_names=CLASSES),
    "vectors": DataSpec(shape=(7,), domain="real", class_names=CLASSES),
}
CPU = torch.device("cpu")
CONTEXT = StepContext(torch.tensor(0), 1, 16)

every_model = pytest.mark.parametrize("name", list(MODELS))


def build(name: str, data: DataSpec = GREY, **options: Any) -> BaseVAE:
    torch.manual_seed(0)
    given = {"network": "mlp", "hidden": (8, 6), "latent_dim": 4, **MODELS[name], **options}
    return create_model(name, data, **given)


def batch(data: DataSpec = GREY, n: int = 5) -> Batch:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(n, *data.shape, generator=generator)
    x = x.round() if data.domain == "binary" else x
    return Batch(x, torch.arange(n) % len(data.class_names))


def loss(model: BaseVAE, of: Batch) -> Any:
    assert model.loss is not None
    return model.loss(model, of, CONTEXT)


@every_model
@pytest.mark.parametrize("network", ["conv", "resnet", "mlp", "gated_mlp"])
@pytest.mark.parametrize("data", list(DATA))
def test_takes_any_network_and_data(name: str, network: str, data: str) -> None:
    spec = DATA[data]
    if not spec.is_image and "mlp" not in network:
        pytest.skip("vectors are for an mlp")
    model, of = build(name, spec, network=network), batch(spec)
    output = loss(model, of)
    output.loss.backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
    assert output.terms["elbo"].shape == (5,)
    model.eval()
    assert model.sample(3, None if of.y is None else of.y[:3]).shape == (3, *spec.shape)
    assert model.reconstruct(*of).shape == of.x.shape
    assert model.log_importance_weights(*of, samples=3).shape == (3, 5)
    assert model(*of).z.shape == (5, *model.latent_shape)


@every_model
@pytest.mark.parametrize("network", ["conv", "mlp"])
def test_an_example_does_not_know_the_others_in_evaluation(name: str, network: str) -> None:
    model, of = build(name, network=network).eval(), batch()
    posterior = model.encode(*of)
    z = posterior.rsample().detach()
    whole = posterior.log_prob(z)
    rate = kl_divergence(posterior, model.prior(model.labels(of.y)), z)
    for i in range(5):
        x, y, z_i = of.x[i : i + 1], of.y[i : i + 1], z[i : i + 1]
        alone = model.encode(x, y)
        assert torch.allclose(mode(alone)[0], mode(posterior)[i], atol=1e-5)
        assert torch.allclose(alone.log_prob(z_i)[0], whole[i], rtol=1e-4, atol=1e-4)
        own_rate = kl_divergence(alone, model.prior(model.labels(y)), z_i)
        assert torch.allclose(own_rate[0], rate[i], rtol=1e-4, atol=1e-4)
        assert torch.allclose(model.reconstruct(x, y)[0], model.reconstruct(*of)[i], atol=1e-5)


@every_model
def test_a_batch_of_one_can_be_evaluated_and_the_smallest_trained_on(name: str) -> None:
    for network in ("conv", "mlp"):
        model = build(name, network=network)
        loss(model, batch(n=model.min_batch_size)).loss.backward()
        assert loss(model.eval(), batch(n=1)).loss.isfinite()


@every_model
@pytest.mark.parametrize("network", ["conv", "mlp"])
def test_state_comes_back_from_a_file(name: str, network: str, tmp_path: Path) -> None:
    model, of = build(name, network=network), batch()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(3):
        loss(model, of).loss.backward()
        optimizer.step()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    other = build(name, network=network)
    other.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
    with evaluation_mode(model, other), torch.no_grad():
        results = []
        for either in (model, other):
            with seeded(0, CPU):
                results.append((either.log_importance_weights(*of, 4), either.sample(5, of.y)))
    assert all(a.equal(b) for a, b in zip(*results, strict=True))


@every_model
def test_evaluation_moves_nothing(name: str) -> None:
    model, of = build(name, network="conv"), batch()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with evaluation_mode(model), torch.no_grad():
        loss(model, of)
        model.log_likelihood(*of, samples=3)
        model.sample(3, of.y[:3])
        model.reconstruct(*of)
    assert all(tensor.equal(before[key]) for key, tensor in model.state_dict().items())


@every_model
def test_one_sample_of_the_weights_estimates_the_elbo_and_many_bound_it_above(name: str) -> None:
    model, of = build(name).eval(), batch(n=3)
    with torch.no_grad(), seeded(0, CPU):
        weights = model.log_importance_weights(*of, samples=4_000)
        elbos = torch.stack([loss(model, of).terms["elbo"] for _ in range(300)])
    error = 5 * (elbos.std(0) / 300**0.5 + weights.std(0) / 4_000**0.5)
    assert ((weights.mean(0) - elbos.mean(0)).abs() < error + 1e-3).all()
    assert (log_mean_exp(weights, 0) > weights.mean(0)).all()


@every_model
def test_overfits_one_batch(name: str) -> None:
    model, of = build(name, hidden=(64,)), batch(n=4)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    elbos = []
    for _ in range(300):
        output = loss(model, of)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        elbos.append(output.terms["elbo"].mean().item())
    # Noise on 784 pixels is 543 nats; what is left must distinguish four examples.
    assert elbos[0] < -500
    assert sum(elbos[-20:]) / 20 > -25
    assert (model.eval().reconstruct(*of).round() - of.x).abs().mean() < 0.02


@every_model
def test_nats_are_summed_in_full_precision_under_autocast(name: str) -> None:
    model, of = build(name, network="conv").eval(), batch()
    with seeded(0, CPU), torch.autocast("cpu", torch.bfloat16):
        output = loss(model, of)
    assert {value.dtype for value in output.terms.values()} == {torch.float32}
    output.loss.backward()
    with torch.no_grad(), seeded(0, CPU):
        exact: Tensor = loss(model, of).terms["elbo"]
    assert torch.allclose(output.terms["elbo"], exact, rtol=0.01)


@every_model
def test_its_config_file_can_be_built(name: str) -> None:
    folder = Path(__file__).parents[2] / "configs"
    (path,) = [p for p in folder.glob("*.yaml") if f"  name: {name}\n" in p.read_text()]
    config_file = load_config(path)
    components = resolve_components({}, config_file)
    config = build_config(components, config_file, {})
    model = build_model(config, GREY)
    assert components.model.name == name
    assert loss(model, batch(n=2)).loss.isfinite()
