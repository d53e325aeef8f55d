"""Tests of IWAE and MIWAE: value, gradient, softmax over K, and DReG's unbiased gradient."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

import vaezoo
from small_models import fit, images, small_model
from vaezoo import BaseVAE, Batch, DataSpec, LossOutput, Options, StepContext
from vaezoo.models.distributions import diagonal_normal
from vaezoo_bounds.importance import IWAELoss, MIWAELoss
from vaezoo_bounds.options import IWAEOptions, MIWAEOptions

CONTEXT = StepContext(torch.tensor(0), 10, 100)
DREG = "doubly_reparameterized"


class Gaussians(BaseVAE):
    """x = w·z + noise, 4 values from 2 latents. Every example has a posterior of its own to train.

    So the gradient of an example's posterior is one estimate, and a batch of equal examples many.
    """

    def __init__(self, batch: int) -> None:
        torch.manual_seed(0)
        super().__init__(Options(), DataSpec(shape=(4,), domain="real"))
        self.latent_shape = (2,)
        self.loc = nn.Parameter(torch.tensor([0.6, -0.4]).repeat(batch, 1))
        self.raw = nn.Parameter(torch.tensor([-0.5, 0.2]).repeat(batch, 1))
        self.w = nn.Parameter(torch.randn(4, 2))
        self.double()

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return diagonal_normal(self.loc, self.raw.exp())

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        mean = z @ self.w.T
        return diagonal_normal(mean, torch.full_like(mean, 0.7))


def equal_examples(n: int) -> Tensor:
    return torch.tensor([1.0, -0.5, 0.3, 0.8], dtype=torch.float64).repeat(n, 1)


def iwae(vae: BaseVAE, samples: int, gradient: str = "standard") -> IWAELoss:
    return IWAELoss(IWAEOptions(samples=samples, gradient=gradient), vae, vae.data)


def miwae(vae: BaseVAE, samples: int, groups: int, gradient: str = "standard") -> MIWAELoss:
    options = MIWAEOptions(samples=samples, groups=groups, gradient=gradient)
    return MIWAELoss(options, vae, vae.data)


def run(loss: IWAELoss, vae: BaseVAE, x: Tensor, seed: int = 1) -> LossOutput:
    torch.manual_seed(seed)
    output: LossOutput = loss(vae, Batch(x), CONTEXT)
    return output


def weights(vae: BaseVAE, x: Tensor, draws: int, seed: int = 1) -> Tensor:
    """The log-weights that a loss uses: [samples, batch]."""
    torch.manual_seed(seed)
    return vae.log_importance_weights(x, samples=draws)


class TestIwae:
    @pytest.mark.parametrize("gradient", ["standard", DREG])
    def test_one_sample_is_the_elbo(self, gradient: str) -> None:
        vae, x = small_model("iwae"), images()
        objective, terms = run(iwae(vae, 1, gradient), vae, x)
        assert torch.allclose(terms["bound"], weights(vae, x, 1)[0], rtol=0, atol=1e-10)
        assert torch.allclose(terms["bound"], terms["elbo"], rtol=0, atol=1e-12)
        assert torch.allclose(objective, -terms["elbo"].mean(), rtol=0, atol=1e-12)

    def test_one_sample_is_the_elbo_loss_in_the_mean(self) -> None:
        """The ELBO loss has its KL in closed form: equal on average over many samples."""
        vae, x = Gaussians(40_000), equal_examples(40_000)
        bound = run(iwae(vae, 1), vae, x).terms["bound"].detach()
        plain = vaezoo.create_model("vanilla", (4,), network="mlp", hidden=(4,)).loss
        assert plain is not None
        torch.manual_seed(3)
        elbo = plain(vae, Batch(x), CONTEXT).terms["elbo"].detach()
        error = math.hypot(float(bound.std()), float(elbo.std())) / math.sqrt(40_000)
        assert abs(float(bound.mean() - elbo.mean())) < 4 * error
        assert error < 0.1

    def test_reports_the_bound_itself(self) -> None:
        """The log of the mean weight: not the gradient's surrogate, and not the ELBO."""
        vae, x = Gaussians(6), equal_examples(6)
        log_weights = weights(vae, x, 7).detach()
        for gradient in ("standard", DREG):
            objective, terms = run(iwae(vae, 7, gradient), vae, x)
            for i in range(6):
                mean = sum(math.exp(float(w)) for w in log_weights[:, i]) / 7
                assert terms["bound"][i].item() == pytest.approx(math.log(mean), abs=1e-9)
            assert torch.allclose(objective, -terms["bound"].mean(), rtol=0, atol=1e-10)
            assert torch.allclose(terms["elbo"], log_weights.mean(0), rtol=0, atol=1e-10)
            assert (terms["bound"] > terms["elbo"]).all()

    def test_grows_with_the_samples_towards_log_p(self) -> None:
        vae, x = Gaussians(2000), equal_examples(2000)
        with torch.no_grad():
            means = [run(iwae(vae, k), vae, x).terms["bound"].mean() for k in (1, 2, 8, 32)]
            covariance = vae.w @ vae.w.T + 0.49 * torch.eye(4)
            exact = torch.distributions.MultivariateNormal(torch.zeros(4).double(), covariance)
            log_p = exact.log_prob(x[0])
        assert (torch.stack(means).diff() > 0.02).all()
        assert means[-1] < log_p + 0.02
        assert means[-1] > log_p - 0.15

    def test_gradient_is_that_of_the_bound(self) -> None:
        """By autograd of log mean exp, and by the formula: weights of a softmax over K, no minus.

        A softmax over the batch, or over minus the weights, gives another gradient.
        """
        vae, x = Gaussians(6), equal_examples(6) + torch.arange(6.0).double()[:, None] / 5
        parameters = [vae.loc, vae.raw, vae.w]
        ours = torch.autograd.grad(run(iwae(vae, 5), vae, x).loss, parameters)
        log_weights = weights(vae, x, 5)
        bound = (log_weights.exp().sum(0) / 5).log().mean()
        of_bound = torch.autograd.grad(-bound, parameters, retain_graph=True)
        shares = (log_weights - log_weights.logsumexp(0)).exp().detach()
        assert torch.allclose(shares.sum(0), torch.ones(6).double())
        formula = torch.autograd.grad(-(shares * log_weights).sum(0).mean(), parameters)
        for mine, a, b in zip(ours, of_bound, formula, strict=True):
            assert torch.allclose(mine, a, rtol=1e-9, atol=1e-12)
            assert torch.allclose(mine, b, rtol=1e-9, atol=1e-12)

    def test_terms_do_not_know_the_batch(self) -> None:
        """With the same noise for each example, batches of 1, 8 and 64 give the same bounds."""
        vae, x, noise = small_model("iwae"), images(64), torch.randn(5, 1, 3).double()
        encode = vae.encode

        def steady(x: Tensor, y: Tensor | None = None) -> Distribution:
            q = encode(x, y)
            q.rsample = lambda shape: q.mean + q.stddev * noise
            return q

        vae.encode = steady
        for gradient in ("standard", DREG):
            objective, whole = run(iwae(vae, 5, gradient), vae, x)
            for size in (1, 8):
                parts = [run(iwae(vae, 5, gradient), vae, part) for part in x.split(size)]
                for name, value in whole.items():
                    pieces = torch.cat([part.terms[name] for part in parts])
                    assert torch.allclose(pieces, value, rtol=0, atol=1e-9), name
                mean = torch.stack([part.loss for part in parts]).mean()
                assert torch.allclose(mean, objective, rtol=0, atol=1e-9)

    def test_without_gradients_few_are_decoded_at_once(self) -> None:
        vae, x, seen = small_model("iwae", samples=40), images(64), []
        decode = vae.decode

        def spy(z: Tensor, y: Tensor | None = None) -> Distribution:
            seen.append(len(z))
            return decode(z, y)

        vae.decode = spy
        with torch.no_grad():
            pieces = run(iwae(vae, 40), vae, x).terms["bound"]
        assert sum(seen) == 40 * 64
        assert max(seen) <= 1024
        # One forward, in pieces that draw the same noise as the whole.
        assert torch.allclose(pieces, run(iwae(vae, 40), vae, x).terms["bound"], atol=1e-9)


class TestDoublyReparameterized:
    """Tucker et al. 2018: the same mean gradient, with less noise in the encoder."""

    COPIES = 60_000

    def estimates(self, loss: str, gradient: str, seed: int) -> tuple[Tensor, Tensor]:
        """One gradient estimate for each equal example: of loc and raw, [copies, 4]; and of w."""
        vae, x = Gaussians(self.COPIES), equal_examples(self.COPIES)
        made = iwae(vae, 8, gradient) if loss == "iwae" else miwae(vae, 4, 2, gradient)
        objective = run(made, vae, x, seed).loss
        loc, raw, w = torch.autograd.grad(objective, [vae.loc, vae.raw, vae.w])
        return torch.cat([loc, raw], 1) * self.COPIES, w

    @pytest.mark.parametrize("loss", ["iwae", "miwae"])
    def test_encoders_gradient_has_the_same_mean_and_less_variance(self, loss: str) -> None:
        standard, _ = self.estimates(loss, "standard", 1)
        doubly, _ = self.estimates(loss, DREG, 2)
        variance = standard.var(0) + doubly.var(0)
        error = (variance / self.COPIES).sqrt()
        assert ((standard.mean(0) - doubly.mean(0)).abs() < 4.5 * error).all()
        assert (standard.mean(0).abs() > 10 * error).any()
        assert (doubly.var(0) < 0.7 * standard.var(0)).all()

    def test_decoders_gradient_is_the_bounds_own(self) -> None:
        _, standard = self.estimates("iwae", "standard", 1)
        _, doubly = self.estimates("iwae", DREG, 1)
        assert torch.allclose(standard, doubly, rtol=1e-9, atol=1e-12)

    def test_encoders_gradient_is_the_papers_formula(self) -> None:
        """Equal to w̃_k² · ∂log w_k/∂z_k · ∂z_k/∂φ with a detached posterior density."""
        vae, x = Gaussians(3), equal_examples(3)
        ours = torch.autograd.grad(run(iwae(vae, 6, DREG), vae, x).loss, [vae.loc, vae.raw])
        torch.manual_seed(1)
        z = vae.encode(x).rsample((6,))
        noise = ((z - vae.loc) / vae.raw.exp()).detach()
        at = z.detach().requires_grad_()
        still = diagonal_normal(vae.loc.detach(), vae.raw.detach().exp())
        log_weights = vae.log_density_ratio(still, vae.prior(), at, x)
        (path,) = torch.autograd.grad(log_weights.sum(), at)
        shares = log_weights.softmax(0).detach().unsqueeze(2)
        by_loc = (shares.square() * path).sum(0)
        by_raw = (shares.square() * path * noise * vae.raw.exp()).sum(0)
        for mine, by_hand in zip(ours, (by_loc, by_raw), strict=True):
            assert torch.allclose(mine, -by_hand / 3, rtol=1e-8, atol=1e-12)

    def test_has_no_noise_at_the_exact_posterior(self) -> None:
        """log w is then the same for every z: the path gradient is 0."""
        vae, x = Gaussians(5), equal_examples(5)
        with torch.no_grad():
            vae.w.copy_(torch.tensor([[1.0, 0.0], [0.5, 0.0], [0.0, 2.0], [0.0, -1.0]]))
            precision = 1 + (vae.w.square() / 0.49).sum(0)
            vae.loc.copy_((x @ vae.w / 0.49) / precision)
            vae.raw.copy_(-0.5 * precision.log().expand(5, 2))
        for parameter in (vae.loc, vae.raw):
            for samples in (1, 4):
                doubly = run(iwae(vae, samples, DREG), vae, x).loss
                standard = run(iwae(vae, samples), vae, x).loss
                assert torch.autograd.grad(doubly, parameter)[0].abs().max() < 1e-6
                assert torch.autograd.grad(standard, parameter)[0].abs().max() > 0.01

    def test_spatial_latents(self) -> None:
        class Spatial(Gaussians):
            def __init__(self) -> None:
                super().__init__(3)
                self.latent_shape = (2, 1, 1)

            def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
                loc, scale = self.loc.view(3, 2, 1, 1), self.raw.exp().view(3, 2, 1, 1)
                return diagonal_normal(loc, scale, 3)

            def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
                return super().decode(z.flatten(1), y)

        flat, spatial, x = Gaussians(3), Spatial(), equal_examples(3)
        expected = torch.autograd.grad(run(iwae(flat, 4, DREG), flat, x).loss, flat.loc)[0]
        ours = torch.autograd.grad(run(iwae(spatial, 4, DREG), spatial, x).loss, spatial.loc)
        assert torch.allclose(ours[0], expected, rtol=1e-9, atol=1e-12)

    def test_trains_a_decoder_under_a_frozen_encoder(self) -> None:
        vae = small_model("iwae", gradient=DREG).requires_grad_(False)
        vae.decoder.requires_grad_(True)
        assert vae.loss is not None
        vae.loss(vae, Batch(images()), CONTEXT).loss.backward()
        assert all(p.grad is not None for p in vae.decoder.parameters())


class TestMiwae:
    @pytest.mark.parametrize("gradient", ["standard", DREG])
    def test_one_group_is_the_iwae(self, gradient: str) -> None:
        vae, x = small_model("iwae"), images()
        parameters = [*vae.encoder.parameters(), *vae.decoder.parameters()]
        ours = run(miwae(vae, 6, 1, gradient), vae, x)
        theirs = run(iwae(vae, 6, gradient), vae, x)
        assert ours.loss.equal(theirs.loss)
        assert ours.terms["bound"].equal(theirs.terms["bound"])
        for a, b in zip(
            torch.autograd.grad(ours.loss, parameters),
            torch.autograd.grad(theirs.loss, parameters),
            strict=True,
        ):
            assert a.equal(b)

    @pytest.mark.parametrize("gradient", ["standard", DREG])
    def test_one_sample_is_the_elbo_of_m_draws(self, gradient: str) -> None:
        """A logarithm over M instead of K would give the bound of six."""
        vae, x = Gaussians(8), equal_examples(8)
        objective, terms = run(miwae(vae, 1, 6, gradient), vae, x)
        expected = weights(vae, x, 6).mean(0)
        assert torch.allclose(terms["bound"], expected, rtol=0, atol=1e-10)
        assert torch.allclose(terms["elbo"], expected, rtol=0, atol=1e-10)
        assert torch.allclose(objective, -expected.mean(), rtol=0, atol=1e-10)

    @pytest.mark.parametrize("gradient", ["standard", DREG])
    def test_many_samples_in_one_group_are_no_elbo(self, gradient: str) -> None:
        """A softmax over M gives the plain ELBO here."""
        vae, x = Gaussians(50), equal_examples(50)
        terms = run(miwae(vae, 64, 1, gradient), vae, x).terms
        assert (terms["bound"] - terms["elbo"]).min() > 0.3

    def test_is_the_mean_of_its_groups_bounds(self) -> None:
        vae, x = Gaussians(4), equal_examples(4)
        terms = run(miwae(vae, 3, 2), vae, x).terms
        w = weights(vae, x, 6).exp()
        by_hand = 0.5 * ((w[0:3].sum(0) / 3).log() + (w[3:6].sum(0) / 3).log())
        assert torch.allclose(terms["bound"], by_hand, rtol=0, atol=1e-10)

    @pytest.mark.parametrize("gradient", ["standard", DREG])
    def test_lies_between_the_elbo_and_the_iwae_of_all_draws(self, gradient: str) -> None:
        vae, x = Gaussians(30), equal_examples(30)
        bound = run(miwae(vae, 4, 3, gradient), vae, x).terms["bound"]
        log_weights = weights(vae, x, 12)
        assert (bound > log_weights.mean(0)).all()
        assert (bound < (log_weights.exp().mean(0)).log()).all()

    def test_groups_lessen_the_noise_of_the_encoder(self) -> None:
        """The encoder's signal-to-noise ratio: 8 bounds of 8 samples against 1 of 64."""
        ratios = []
        for samples, groups in ((64, 1), (8, 8)):
            vae, x = Gaussians(4000), equal_examples(4000)
            objective = run(miwae(vae, samples, groups), vae, x).loss
            (gradient,) = torch.autograd.grad(objective, vae.raw)
            ratios.append((gradient.mean(0).abs() / gradient.std(0)).mean())
        assert ratios[1] > 1.5 * ratios[0]


class TestTraining:
    @pytest.mark.parametrize(
        ("name", "options"),
        [("iwae", {}), ("iwae", {"gradient": DREG}), ("miwae", {}), ("miwae", {"gradient": DREG})],
    )
    def test_the_bound_rises(self, name: str, options: dict[str, object]) -> None:
        vae = small_model(name, **options).float()
        x = images(32).float()
        bounds = [terms["bound"].mean() for terms in fit(vae, x, 60, 0.01)]
        assert bounds[-1] > bounds[0] + 2.0
        assert torch.stack(bounds).isfinite().all()
