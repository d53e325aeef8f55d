"""Tests of deterministic autoencoders: reconstruction, samplers, evaluation."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import vaezoo
from small_jobs import SMALL_JOB
from vaezoo import BaseVAE, Batch, DataSpec, StepContext
from vaezoo.cli.main import main
from vaezoo.errors import DataError, OptionError

CONTEXT = StepContext(torch.tensor(0), 10, 100)
SMALL: dict[str, Any] = {"latent_dim": 5, "hidden": (4, 8)}


def build(
    name: str = "autoencoder", shape: tuple[int, ...] = (1, 12, 9), **options: Any
) -> BaseVAE:
    torch.manual_seed(0)
    return vaezoo.create_model(name, shape, **{**SMALL, **options})


def images(n: int = 6, shape: tuple[int, ...] = (1, 12, 9)) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(1))


def passes(model: BaseVAE, times: int = 3) -> Any:
    def batches() -> Iterator[Batch]:
        for seed in range(times):
            yield Batch(torch.rand(40, *model.data.shape, generator=torch.manual_seed(seed)))

    return batches


class TestPoint:
    def test_reconstruction_is_what_is_decoded_of_the_code(self) -> None:
        model, x = build().eval(), images()
        code = model.encode(x).mean
        assert model.reconstruct(x).equal(model.decode(code).mean)
        output = model(x)
        assert output.z.equal(code)
        assert output.likelihood.mean.equal(model.reconstruct(x))

    def test_objective_is_the_squared_error_of_a_unit_of_noise(self) -> None:
        model, x = build(scale=0.5**0.5).eval(), images()
        objective, terms = model.loss(model, Batch(x), CONTEXT)
        errors = (model.reconstruct(x) - x).square().flatten(1).sum(1)
        constant = 0.5 * torch.tensor(torch.pi).log() * model.data.numel
        assert torch.allclose(terms["distortion"], errors + constant, atol=1e-4)
        assert list(terms) == ["distortion"]
        assert torch.allclose(objective, terms["distortion"].mean())

    def test_gradient_is_that_of_the_mean_squared_error(self) -> None:
        model, x = build(scale=0.1), images()
        parameters = [p for p in model.parameters() if p.requires_grad]
        ours = torch.autograd.grad(model.loss(model, Batch(x), CONTEXT).loss, parameters)
        error = F.mse_loss(model(x).likelihood.mean, x)
        theirs = torch.autograd.grad(error, parameters)
        scale = model.data.numel / (2 * 0.1**2)
        for mine, other in zip(ours, theirs, strict=True):
            assert torch.allclose(mine, scale * other, rtol=1e-3, atol=1e-3)

    @pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian_learned"])
    def test_any_likelihood_will_do(self, likelihood: str) -> None:
        model = build(likelihood=likelihood)
        model.loss(model, Batch(images()), CONTEXT).loss.backward()
        assert all(p.grad is not None for p in model.parameters())

    def test_overfits_one_batch(self) -> None:
        model, x = build(latent_dim=16), images(4)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        first = None
        for _ in range(150):
            objective = model.loss(model, Batch(x), CONTEXT).loss
            first = objective.item() if first is None else first
            optimizer.zero_grad()
            objective.backward()
            optimizer.step()
        assert F.mse_loss(model(x).likelihood.mean, x) < 0.1 * x.var()


class TestSampler:
    def test_standard_normal_asks_for_no_pass(self) -> None:
        model = build()

        def never() -> Iterator[Batch]:
            raise AssertionError
            yield

        model.fit_sampler(never())
        assert model.prior().stddev.equal(torch.ones(5))
        assert not [name for name in model.state_dict() if "sampler" in name]

    @pytest.mark.parametrize(
        "options", [{"sampler": "gaussian"}, {"sampler": "gaussian_mixture", "components": 3}]
    )
    def test_samples_before_and_after(self, options: dict[str, Any]) -> None:
        model = build(**options)
        assert model.sample(7).shape == (7, 1, 12, 9)
        assert torch.allclose(model.eval().sampling_prior().mean, torch.zeros(5))
        assert model.sampling_prior().sample().shape == (5,)
        model.fit_sampler(passes(model)())
        assert model.eval().sample(7).shape == (7, 1, 12, 9)
        assert model.sample(2, temperature=0.5).isfinite().all()

    def test_fits_the_codes_of_the_finished_encoder(self) -> None:
        """The latents of evaluation mode: they do not depend on the batch that an image is in."""
        model = build(sampler="gaussian")
        with torch.no_grad():
            for batch in passes(model)():
                model(3 * batch.x)
        state = {name: t.clone() for name, t in model.state_dict().items() if "sampler" not in name}
        model.decoder.eval()
        model.train()
        model.fit_sampler(passes(model)())
        assert model.training
        assert model.encoder.training
        assert all(t.equal(model.state_dict()[name]) for name, t in state.items())
        model.eval()
        codes = torch.cat([model.encode(batch.x).mean for batch in passes(model)()])
        assert torch.allclose(model.sampling_prior().mean, codes.mean(0), atol=1e-5)
        covariance = model.sampler.factors[0] @ model.sampler.factors[0].T
        assert torch.allclose(covariance, codes.T.cov(correction=0), rtol=1e-3, atol=1e-4)

    def test_mixture_draws_codes_like_those_it_was_fitted_to(self) -> None:
        model = build(sampler="gaussian_mixture", components=4).eval()
        model.fit_sampler(passes(model)())
        codes = torch.cat([model.encode(batch.x).mean for batch in passes(model)()])
        drawn = model.sampling_prior().sample(torch.Size((20_000,)))
        spread = codes.std(0)
        assert ((drawn.mean(0) - codes.mean(0)).abs() < 0.1 * spread).all()
        assert ((drawn.std(0) / spread - 1).abs() < 0.1).all()


class TestRun:
    @pytest.mark.parametrize("sampler", ["none", "gaussian", "gaussian_mixture"])
    def test_a_run_is_saved_with_its_sampler(self, tmp_path: Path, sampler: str) -> None:
        run = vaezoo.train("autoencoder", out=tmp_path / "r", sampler=sampler, **SMALL_JOB)
        again = vaezoo.load_run(tmp_path / "r")
        prior = again.model.sampling_prior()
        assert (prior.mean.abs().max() > 1e-3) == (sampler != "none")
        assert again.sample(4).equal(run.sample(4))
        assert again.sample(4).shape == (4, 1, 16, 16)

    @pytest.mark.parametrize(("name", "loss"), [("autoencoder", "reconstruction"), ("rae", "rae")])
    def test_evaluation_shows_a_dash_and_the_reason(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, loss: str
    ) -> None:
        run = vaezoo.train(name, out=tmp_path / "r", **SMALL_JOB)
        assert run.config.components.loss.name == loss
        summary = json.loads((tmp_path / "r" / "summary.json").read_text())
        for number in ("elbo", "rate", "distortion", "bits_per_dim", "log_likelihood"):
            assert summary[number] is None
        assert summary["reconstruction_r2"] is not None
        assert main(["evaluate", str(run.path), "--importance-samples", "3"]) == 0
        lines = capsys.readouterr().out.splitlines()
        rows = {line.split()[0]: line for line in lines}
        assert rows["elbo"].split(maxsplit=2)[1:] == ["-", "this model has no ELBO"]
        assert rows["log_likelihood"].endswith("this model has no importance weights")

    def test_training_ends_with_what_there_is(
        self, in_tmp: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = "--examples 120 --test 24 --image-size 16 --hidden 8,8 --latent-dim 4 --steps 2"
        assert main(["train", "autoencoder", *words.split(), "--batch-size", "16"]) == 0
        lines = capsys.readouterr().out.splitlines()
        found = [line for line in lines if line.startswith("held out")]
        assert len(found) == 1
        assert re.fullmatch(
            r"held out: reconstruction R² -?\d+\.\d{3}; ELBO: this model has no ELBO", found[0]
        )

    def test_a_batch_of_one_is_refused_in_training_and_works_afterwards(
        self, tmp_path: Path
    ) -> None:
        with pytest.raises(OptionError, match="give batch_size 2 or more"):
            vaezoo.train("autoencoder", out=tmp_path / "r", **{**SMALL_JOB, "batch_size": 1})
        model, x = build("rae").eval(), images(3)
        alone = torch.cat([model.reconstruct(one) for one in x.split(1)])
        assert torch.allclose(alone, model.reconstruct(x), atol=1e-6)


@pytest.mark.parametrize("name", ["autoencoder", "rae"])
class TestData:
    @pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 8, 8), (3, 9, 20)])
    @pytest.mark.parametrize("network", ["conv", "resnet", "mlp"])
    def test_images(self, name: str, shape: tuple[int, ...], network: str) -> None:
        model, x = build(name, shape, network=network), images(3, shape)
        assert model.loss(model, Batch(x), CONTEXT).loss.isfinite()
        assert model.reconstruct(x).shape == x.shape
        assert model.sample(2).shape == (2, *shape)

    def test_vectors(self, name: str) -> None:
        data = DataSpec(shape=(7,), domain="real")
        model = vaezoo.create_model(name, data, network="mlp", latent_dim=2, hidden=(6,))
        x = torch.randn(5, 7)
        assert model.loss(model, Batch(x), CONTEXT).loss.isfinite()
        assert model.reconstruct(x).shape == x.shape
        with pytest.raises(DataError, match="give network gated_mlp or mlp"):
            vaezoo.create_model(name, data)


@pytest.mark.parametrize(
    ("model", "loss", "said"),
    [
        ("autoencoder", "elbo", "loss elbo needs a model with elbo"),
        ("vanilla", "rae", "loss rae needs a model with deterministic"),
    ],
)
def test_what_does_not_go_together_is_refused(model: str, loss: str, said: str) -> None:
    with pytest.raises(OptionError, match=said) as caught:
        vaezoo.create_model(model, (1, 16, 16), loss=loss)
    assert "\n" not in str(caught.value)
