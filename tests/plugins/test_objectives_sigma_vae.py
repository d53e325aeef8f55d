"""Tests of sigma-VAE: the loss is the minimum over scales, and the ELBO is a bound."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

import vaezoo
from small_models import images, run_loss, small_model
from vaezoo import BaseVAE
from vaezoo.errors import OptionError
from vaezoo.models.distributions import diagonal_normal
from vaezoo.models.likelihoods import GaussianLikelihood
from vaezoo.runtime.device import evaluation_mode

VALUES = 64


model = partial(small_model, "sigma_vae")
run = partial(run_loss, total=100, examples=1000)


def means(vae: BaseVAE, x: Tensor) -> Tensor:
    """The reconstructions in `run`."""
    torch.manual_seed(1)
    mean: Tensor = vae(x).likelihood.mean
    return mean


def own_scale(vae: BaseVAE) -> float:
    assert isinstance(vae.likelihood, GaussianLikelihood)
    return float(vae.likelihood.log_scale.detach().exp())


class TestObjective:
    def test_is_the_least_over_all_scales(self) -> None:
        """The Gaussian NLL on a fine grid of scales: the minimum is equal to the loss."""
        vae, x = model(), images()
        objective, terms = run(vae, x)
        mean, nlls = means(vae, x), []
        for scale in torch.linspace(0.05, 1.0, 4001, dtype=torch.float64):
            nlls.append(-diagonal_normal(mean, scale.expand_as(mean), 3).log_prob(x).mean())
        least = torch.stack(nlls).min()
        distortion = objective - terms["rate"].mean()
        assert (distortion <= least).item()
        assert torch.allclose(distortion, least, rtol=0, atol=1e-4)

    def test_is_the_papers_closed_form(self) -> None:
        vae, x = model(), images()
        objective, terms = run(vae, x)
        error = (x - means(vae, x)).square().mean()
        expected = VALUES / 2 * (2 * math.pi * math.e * error).log() + terms["rate"].mean()
        assert torch.allclose(objective, expected, rtol=0, atol=1e-9)
        assert torch.allclose(terms["best_scale"], error.sqrt(), rtol=0, atol=1e-12)

    def test_gradient_is_that_of_the_closed_form(self) -> None:
        """The detached scale does not change the gradient: at the optimum its gradient is 0."""
        vae, x = model(), images()
        parameters = [*vae.encoder.parameters(), *vae.decoder.parameters()]
        ours = torch.autograd.grad(run(vae, x).loss, parameters)
        torch.manual_seed(1)
        posterior, _, prior, likelihood = vae(x)
        error = (x - likelihood.mean).square().mean()
        rate = torch.distributions.kl_divergence(posterior, prior).mean()
        exact = torch.autograd.grad(VALUES / 2 * error.log() + rate, parameters)
        for mine, by_hand in zip(ours, exact, strict=True):
            assert torch.allclose(mine, by_hand, rtol=1e-8, atol=1e-10)

    def test_does_not_run_away_on_what_it_paints_perfectly(self) -> None:
        vae, x = model(), images(2)
        decoded = vae.likelihood
        vae.decode = lambda z, y=None: decoded(torch.atanh(2 * x.clamp(0.01, 0.99) - 1))
        objective, terms = run(vae, x.clamp(0.01, 0.99))
        assert terms["best_scale"].item() == pytest.approx(1 / 256)
        assert objective.isfinite()

    def test_works_on_a_batch_of_one(self) -> None:
        vae = model()
        objective, _ = run(vae, images(1))
        objective.backward()
        assert all(p.grad.isfinite().all() for p in vae.parameters() if p.grad is not None)


class TestOwnScale:
    """The model's own scale, which its ELBO, its samples and its weights use."""

    def test_is_a_plain_mean_at_first(self) -> None:
        vae = model()
        variances = []
        for step in range(5):
            terms = run(vae, images(8) / (step + 1), step).terms
            variances.append(terms["best_scale"].square())
            assert own_scale(vae) ** 2 == pytest.approx(float(torch.stack(variances).mean()))

    def test_follows_what_changes(self) -> None:
        vae = model()
        for step in range(100):
            run(vae, images(8), step)
        before, dark = own_scale(vae), images(8) * 0.1
        for step in range(100, 800):
            best = run(vae, dark, step).terms["best_scale"]
        assert own_scale(vae) == pytest.approx(float(best), rel=0.01)
        assert abs(before - own_scale(vae)) > 0.02

    def test_does_not_move_in_evaluation(self) -> None:
        vae = model()
        assert vae.loss is not None
        before = own_scale(vae)
        with evaluation_mode(vae, vae.loss), torch.no_grad():
            run(vae, images())
        assert own_scale(vae) == before
        run(vae, images())
        assert own_scale(vae) != before

    def test_is_what_the_reported_elbo_is_of(self) -> None:
        """A scale that is fitted to the batch gives a better number, which is not a bound."""
        vae, x = model(), images()
        objective, terms = run(vae, x, step=50)
        scale = torch.tensor(0.25).double()  # where it starts; moved after this step only
        density = diagonal_normal(means(vae, x), scale.expand_as(x), 3)
        assert torch.allclose(terms["distortion"], -density.log_prob(x), rtol=0, atol=1e-6)
        assert torch.allclose(terms["elbo"], -terms["distortion"] - terms["rate"])
        assert (-objective > terms["elbo"].mean()).item()

    def test_is_saved_and_never_trained(self) -> None:
        vae = model()
        assert vae.loss is not None
        (phase,) = vae.loss.phases(vae)
        assert [*map(id, phase.parameters)] == [*map(id, vae.parameters())]
        assert "likelihood.log_scale" not in dict(vae.named_parameters())
        learned = vaezoo.create_model(
            "vanilla", (1, 8, 8), network="mlp", hidden=(16,), latent_dim=3
        )
        assert vae.state_dict().keys() == learned.state_dict().keys()

    def test_terms_of_examples_do_not_know_the_batch(
        self, assert_terms_per_example: Callable[..., None]
    ) -> None:
        vae, x = model(logvar_range=(-60.0, -59.0)).eval(), images(64)
        assert vae.loss is not None
        vae.loss.eval()
        names = ("elbo", "rate", "distortion")
        loss = partial(run, vae)
        assert_terms_per_example(loss, x, names, mean_loss=False, rtol=0, atol=1e-6)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_a_likelihood_without_a_scale_to_set_is_refused(likelihood: str) -> None:
    with pytest.raises(OptionError, match="give likelihood gaussian_learned") as caught:
        model(likelihood=likelihood)
    assert "\n" not in str(caught.value)
