"""What every registered likelihood must do: compiled, without reading from the device, in half."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import vaezoo
from vaezoo import DataSpec, Likelihood, LikelihoodSpec
from vaezoo.plugins.registry import registry

SPECS = [spec for spec in registry().specs("likelihood") if isinstance(spec, LikelihoodSpec)]


def make(spec: LikelihoodSpec, shape: tuple[int, ...] = (3, 4, 4)) -> Likelihood:
    data = DataSpec(shape=shape, domain=spec.domains[-1])
    model: Likelihood = spec.load()(spec.load_options()(), data)
    return model


def example(model: Likelihood, n: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Parameters and data of n examples."""
    torch.manual_seed(0)
    x = torch.rand(n, *model.data.shape)
    if model.data.domain in ("binary", "count"):
        x = (3 * x).round() if model.data.domain == "count" else x.round()
    return torch.randn(n, *model.param_shape), x


def test_all_are_here() -> None:
    assert {spec.name for spec in SPECS} >= {
        "auto",
        "bernoulli",
        "continuous_bernoulli",
        "gaussian",
        "gaussian_learned",
        "laplace",
        "student_t",
        "beta",
        "categorical",
        "discretized_logistic",
        "discretized_logistic_mixture",
        "poisson",
        "negative_binomial",
        "zero_inflated_negative_binomial",
    }


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
@pytest.mark.parametrize("shape", [(3, 4, 4), (5,), (2, 6), (1, 2, 3, 2)])
def test_shapes_and_ranges(spec: LikelihoodSpec, shape: tuple[int, ...]) -> None:
    for domain in spec.domains:
        model = spec.load()(spec.load_options()(), DataSpec(shape=shape, domain=domain))
        params, x = example(model)
        assert model.param_shape[1:] == shape[1:]
        distribution = model(params)
        assert distribution.event_shape == shape
        assert distribution.mean.shape == x.shape
        assert distribution.log_prob(x).shape == (2,)
        assert distribution.sample().shape == x.shape
        if model.data.is_bounded:
            assert ((distribution.mean >= 0) & (distribution.mean <= 1)).all()


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_full(spec: LikelihoodSpec, dtype: torch.dtype) -> None:
    model = make(spec)
    params, x = example(model)
    params = params.to(dtype)
    assert model(params).mean.dtype == torch.float32
    found = model(params).log_prob(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, model(params.float()).log_prob(x))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_nothing_is_read_from_the_device(spec: LikelihoodSpec) -> None:
    """Fake tensors on a pretend device raise when a value is read from them."""
    with FakeTensorMode(), torch.device("cuda"):
        model = make(spec)
        params, x = example(model)
        distribution = model(params)
        for found in (distribution.log_prob(x), distribution.mean):
            assert found.device.type == "cuda"
        if spec.name != "beta":  # torch's draw of a Dirichlet asks for a driver
            assert distribution.sample().device.type == "cuda"


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_compiles_as_one_graph(spec: LikelihoodSpec) -> None:
    model = make(spec)
    params, x = example(model)

    def both(params: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        distribution = model(params)
        return distribution.log_prob(x), distribution.mean

    compiled = torch.compile(both, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(params, x), both(params, x))
    torch._dynamo.reset()


def test_counts_from_a_file_to_samples(tmp_path: Path) -> None:
    """The loss sees counts, samples are whole numbers, reconstructions are means in counts."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(np.exp(rng.normal(2.0, 1.0, (60, 1)) + np.linspace(0, 2, 6)))
    counts[0] = 400
    np.savez(tmp_path / "counts.npz", x=counts)
    result = vaezoo.train(
        "vanilla",
        data="npz",
        root=tmp_path / "counts.npz",
        values="counts",
        network="mlp",
        hidden=(16,),
        latent_dim=2,
        batch_size=16,
        steps=60,
        lr=0.01,
        out=tmp_path / "run",
    )
    run = vaezoo.load_run(result.path)
    assert type(run.model.likelihood).__name__ == "NegativeBinomialLikelihood"
    samples = run.sample(200)
    assert samples.equal(samples.round())
    assert 2 < samples.mean() < 200
    rebuilt = torch.as_tensor(run.reconstruct(counts[1:9]))
    assert not rebuilt.equal(rebuilt.round())
    assert 0.3 < float(rebuilt.mean()) / counts[1:9].mean() < 3
    with pytest.raises(vaezoo.VaezooError, match="whole numbers from 0"):
        run.reconstruct(counts[1:3] + 0.5)
