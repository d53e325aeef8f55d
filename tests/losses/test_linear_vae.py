"""Tests that a linear VAE trained by the ELBO is probabilistic PCA (Lucas et al. 2019)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal

from vaezoo import BaseVAE, Batch, DataSpec, Options, StepContext
from vaezoo.models.distributions import diagonal_normal
from vaezoo.models.likelihoods import GaussianLikelihood
from vaezoo_vanilla.loss import ELBOLoss
from vaezoo_vanilla.options import ELBOOptions

EXAMPLES, VALUES, LATENTS = 400, 6, 2
STEPS = 2000


class LinearVAE(BaseVAE):
    """p(x|z) = N(W·z + m, scale²), q(z|x) = N(V·x + n, diagonal): Lucas et al. 2019, section 4."""

    def __init__(self) -> None:
        super().__init__(Options(), DataSpec(shape=(VALUES,), domain="real"))
        self.latent_shape = (LATENTS,)
        self.encoder = nn.Linear(VALUES, LATENTS)
        self.log_scale = nn.Parameter(torch.zeros(LATENTS))
        self.decoder = nn.Linear(LATENTS, VALUES)
        self.likelihood = GaussianLikelihood(
            DataSpec(shape=self.data.shape, domain="real"), 1.0, learned=True
        )
        self.double()

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        loc = self.encoder(x)
        return diagonal_normal(loc, self.log_scale.exp().expand_as(loc))

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return self.likelihood(self.decoder(z))

    def marginal(self) -> Distribution:
        """p(x), in closed form."""
        w, scale = self.decoder.weight, self.likelihood.log_scale.exp()
        covariance = w @ w.T + scale**2 * torch.eye(VALUES).double()
        return MultivariateNormal(self.decoder.bias, covariance)


def correlated() -> Tensor:
    """Data with two strong directions and weak ones, and a mean other than 0."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(EXAMPLES, VALUES, generator=generator, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(VALUES, VALUES, generator=generator).double()).Q
    spread = torch.tensor([3.0, 1.2, 0.6, 0.5, 0.4, 0.3], dtype=torch.float64)
    return (z * spread) @ turn + torch.linspace(-2.0, 2.0, VALUES).double()


def best_log_likelihood(x: Tensor) -> tuple[float, float]:
    """Of probabilistic PCA, nats per example (Tipping & Bishop 1999, equation 8), and its noise.

    Log-determinant and trace come from the eigenvalues of the sample covariance: kept ones, and
    the mean of the dropped ones, which is the noise's variance.
    """
    eigenvalues = torch.linalg.eigvalsh((x - x.mean(0)).T @ (x - x.mean(0)) / len(x)).flip(0)
    noise = eigenvalues[LATENTS:].mean()
    log_det = eigenvalues[:LATENTS].log().sum() + (VALUES - LATENTS) * noise.log()
    return float(-0.5 * (VALUES * math.log(2 * math.pi) + log_det + VALUES)), float(noise)


def train(model: LinearVAE, x: Tensor, beta: float = 1.0) -> list[float]:
    """The mean ELBO every 100 steps from 50 samples of each example: its error is below 0.02."""
    loss = ELBOLoss(ELBOOptions(beta=beta), model, model.data)
    (phase,) = loss.phases(model)
    optimizer = torch.optim.Adam(phase.parameters, lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    step, elbos = torch.zeros((), dtype=torch.int64), []
    for number in range(STEPS):
        output = phase.loss_fn(model, Batch(x), StepContext(step, STEPS, len(x)))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        schedule.step()
        step += 1
        if (number + 1) % 100 == 0:
            with torch.no_grad():
                elbos.append(float(model.log_importance_weights(x, samples=50).mean()))
    return elbos


@pytest.fixture(scope="module")
def trained() -> tuple[LinearVAE, Tensor, list[float]]:
    torch.manual_seed(0)
    x, model = correlated(), LinearVAE()
    return model, x, train(model, x)


def test_the_optimum_by_eigenvalues_is_a_maximum() -> None:
    """The closed form is the log-likelihood of the model of Tipping & Bishop."""
    x = correlated()
    best, noise = best_log_likelihood(x)
    eigenvalues, vectors = torch.linalg.eigh((x - x.mean(0)).T @ (x - x.mean(0)) / len(x))
    w = vectors[:, -LATENTS:] * (eigenvalues[-LATENTS:] - noise).sqrt()

    def at(scale: float, variance: float) -> float:
        covariance = (scale * w) @ (scale * w).T + variance * torch.eye(VALUES).double()
        return float(MultivariateNormal(x.mean(0), covariance).log_prob(x).mean())

    assert at(1.0, noise) == pytest.approx(best, abs=1e-10)
    for scale, variance in ((0.9, noise), (1.1, noise), (1.0, 0.8 * noise), (1.0, 1.2 * noise)):
        assert at(scale, variance) < best - 1e-3


def test_reaches_the_log_likelihood_of_probabilistic_pca(
    trained: tuple[LinearVAE, Tensor, list[float]],
) -> None:
    model, x, _ = trained
    best, noise = best_log_likelihood(x)
    with torch.no_grad():
        reached = float(model.marginal().log_prob(x).mean())
    assert best - 0.01 < reached < best + 1e-9
    assert model.likelihood.log_scale.exp().item() ** 2 == pytest.approx(noise, rel=0.03)


def test_its_elbo_is_tight(trained: tuple[LinearVAE, Tensor, list[float]]) -> None:
    """At the optimum the diagonal posterior is the exact one: no local optimum, no gap."""
    model, x, elbos = trained
    best, _ = best_log_likelihood(x)
    assert abs(elbos[-1] - best) < 0.03
    exact = model.marginal().log_prob(x)
    estimate = model.log_likelihood(x, samples=50)
    assert torch.allclose(estimate, exact, rtol=0, atol=0.1)
    assert abs(float((estimate - exact).detach().mean())) < 0.005


def test_its_elbo_never_passes_the_optimum(
    trained: tuple[LinearVAE, Tensor, list[float]],
) -> None:
    _, x, elbos = trained
    best, _ = best_log_likelihood(x)
    assert len(elbos) == STEPS // 100
    assert max(elbos) < best + 0.02
    assert elbos[0] < elbos[-1] - 0.1


def test_finds_the_principal_directions(trained: tuple[LinearVAE, Tensor, list[float]]) -> None:
    model, x, _ = trained
    found = torch.linalg.qr(model.decoder.weight.detach()).Q
    principal = torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[:LATENTS]
    cosines = torch.linalg.svdvals(principal @ found)
    assert (cosines > 0.999).all()
    assert torch.allclose(model.decoder.bias.detach(), x.mean(0), rtol=0, atol=0.05)


def test_samples_have_the_covariance_of_the_marginal(
    trained: tuple[LinearVAE, Tensor, list[float]],
) -> None:
    model, _, _ = trained
    torch.manual_seed(0)
    samples = model.sample(40_000, mean=False)
    marginal = model.marginal()
    assert isinstance(marginal, MultivariateNormal)
    covariance = marginal.covariance_matrix.detach()
    assert torch.allclose(samples.T.cov(), covariance, rtol=0, atol=0.15)
