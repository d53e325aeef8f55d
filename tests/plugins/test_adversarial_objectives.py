"""What each discriminator and its opponents minimise: signs, gradients, and a total correlation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn import functional as F

import vaezoo
from vaezoo import BaseVAE, Batch, DataSpec, Options, StepContext
from vaezoo.models.distributions import Delta, diagonal_normal
from vaezoo_adversarial.discriminators import ConvDiscriminator, MLPDiscriminator, cross_entropy
from vaezoo_adversarial.factor_vae import FactorVAELoss, permute_dimensions
from vaezoo_adversarial.options import FactorVAEOptions
from vaezoo_adversarial.vae_gan import feature_distortion
from vaezoo_vanilla.loss import ELBOLoss
from vaezoo_vanilla.options import ELBOOptions

CONTEXT = StepContext(torch.tensor(0), 10, 100)


def build(name: str, **options: Any) -> BaseVAE:
    torch.manual_seed(0)
    small = {"latent_dim": 5, "hidden": (4, 8), "discriminator_hidden": (6, 8)}
    return vaezoo.create_model(name, (1, 12, 10), **{**small, **options})


def images(n: int = 8) -> Tensor:
    return torch.rand(n, 1, 12, 10, generator=torch.Generator().manual_seed(1))


def correlated(n: int, rho: float) -> Tensor:
    """Two unit Gaussians of correlation rho, the second in other units and another place."""
    z = torch.randn(n, 2)
    return torch.stack([z[:, 0], 5 + 3 * (rho * z[:, 0] + math.sqrt(1 - rho**2) * z[:, 1])], 1)


class Copy(BaseVAE):
    """Its latent is the data itself."""

    def __init__(self) -> None:
        super().__init__(Options(), DataSpec(shape=(2,), domain="real"))
        self.latent_shape = (2,)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return Delta(x)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return diagonal_normal(z, torch.ones(()))


Permutation = Callable[[Tensor], Tensor]


def keeps_marginals(permute: Permutation) -> bool:
    z = correlated(500, 0.9)
    return permute(z).sort(0).values.equal(z.sort(0).values)


def breaks_the_joint(permute: Permutation) -> bool:
    z = correlated(5000, 0.9)
    assert abs(torch.corrcoef(z.T)[0, 1] - 0.9) < 0.02
    return bool(abs(torch.corrcoef(permute(z).T)[0, 1]) < 0.06)


class TestPermutation:
    def test_keeps_each_marginal_and_breaks_the_joint(self) -> None:
        assert keeps_marginals(permute_dimensions)
        assert breaks_the_joint(permute_dimensions)

    def test_mistakes_would_be_seen(self) -> None:
        """Inside a sample, as a peer does: the marginals mix. Whole samples: the joint stays."""

        def inside_a_sample(z: Tensor) -> Tensor:
            return z.gather(1, torch.rand_like(z).argsort(1))

        def whole_samples(z: Tensor) -> Tensor:
            return z[torch.randperm(len(z))]

        assert not keeps_marginals(inside_a_sample)
        assert keeps_marginals(whole_samples)
        assert not breaks_the_joint(whole_samples)
        assert not breaks_the_joint(lambda z: z)

    def test_no_dimension_stays_in_place(self) -> None:
        z = torch.arange(1000.0)[:, None].expand(1000, 3)
        moved = permute_dimensions(z)
        assert ((moved == z).sum(0) < 20).all()
        for i, j in ((0, 1), (0, 2), (1, 2)):
            assert (moved[:, i] == moved[:, j]).sum() < 20

    def test_shapes(self) -> None:
        z = torch.randn(6, 3, 2, 2)
        assert permute_dimensions(z).shape == z.shape
        assert permute_dimensions(z[:1]).equal(z[:1])
        assert permute_dimensions(z).sort(0).values.equal(z.sort(0).values)


class TestFactor:
    def test_the_discriminators_density_ratio_is_the_total_correlation(self) -> None:
        """For a Gaussian of correlation rho it is -½ log(1 - rho²)."""
        torch.manual_seed(0)
        rho, model = 0.8, Copy()
        loss = FactorVAELoss(FactorVAEOptions(discriminator_hidden=(64, 64)), model, model.data)
        optimizer = torch.optim.Adam(loss.discriminator.parameters(), lr=3e-3)
        for step in range(500):
            optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / 500)
            optimizer.zero_grad()
            loss.discriminator_loss(model, Batch(correlated(512, rho)), CONTEXT).loss.backward()
            optimizer.step()
        with torch.no_grad():
            estimate = loss.discriminator(correlated(50_000, rho)).mean().item()
        assert estimate == pytest.approx(-0.5 * math.log(1 - rho**2), abs=0.03)

    def test_objective_is_the_negative_elbo_and_gamma_tc(self) -> None:
        model, x = build("factor_vae", gamma=7.0), images()
        torch.manual_seed(3)
        loss, terms = model.loss(model, Batch(x), CONTEXT)
        torch.manual_seed(3)
        reference = ELBOLoss(ELBOOptions(), model, model.data)(model, Batch(x), CONTEXT)
        for name, value in reference.terms.items():
            assert terms[name].equal(value)
        tc = terms["total_correlation"]
        assert tc.shape == (8,)
        assert torch.allclose(loss, reference.loss + 7.0 * tc.mean())

    def test_the_encoder_goes_where_the_discriminator_sees_less_correlation(self) -> None:
        model, x = build("factor_vae"), images()
        torch.manual_seed(3)
        z = model(x).z.detach().requires_grad_()
        tc = model.loss.discriminator(z).mean()
        (slope,) = torch.autograd.grad(tc, z)
        assert model.loss.discriminator(z - 0.01 * slope / slope.norm()).mean() < tc

    def test_the_discriminator_takes_latents_for_latents(self) -> None:
        """Not the other way round: the estimate would have the wrong sign."""
        model, x = build("factor_vae"), images()
        torch.manual_seed(3)
        loss = model.loss.discriminator_loss(model, Batch(x), CONTEXT).loss
        torch.manual_seed(3)
        z = model.encode(x).rsample()
        real, false = model.loss.discriminator(z), model.loss.discriminator(permute_dimensions(z))
        by_hand = -0.5 * (
            torch.sigmoid(real).log().mean() + (1 - torch.sigmoid(false)).log().mean()
        )
        assert torch.allclose(loss, by_hand)


class TestAae:
    def test_main_objective_is_the_distortion(self) -> None:
        model, x = build("aae").eval(), images()
        loss, terms = model.loss(model, Batch(x), CONTEXT)
        distortion = -model.decode(model.encode(x).mean).log_prob(x)
        assert list(terms) == ["distortion"]
        assert torch.allclose(terms["distortion"], distortion)
        assert torch.allclose(loss, distortion.mean())

    def test_the_encoders_gradient_by_hand(self) -> None:
        """d/dz of -log D(z) is -σ(-d) d', an n-th of it for each of n."""
        model, x = build("aae"), images()
        weight = model.encoder[-1].weight
        loss = model.loss.generator_loss(model, Batch(x), CONTEXT).loss
        (ours,) = torch.autograd.grad(loss, weight)
        odds = model.loss.discriminator(model.encode(x).mean)
        (by_hand,) = torch.autograd.grad(odds, weight, -torch.sigmoid(-odds.detach()) / len(x))
        assert torch.allclose(ours, by_hand, atol=1e-8)

    def test_the_discriminator_takes_the_prior_for_real(self) -> None:
        model, x = build("aae"), images()
        torch.manual_seed(3)
        loss = model.loss.discriminator_loss(model, Batch(x), CONTEXT).loss
        torch.manual_seed(3)
        z, wanted = model.encode(x).mean, model.prior().sample(torch.Size((8,)))
        real, false = model.loss.discriminator(wanted), model.loss.discriminator(z)
        by_hand = -F.logsigmoid(real).mean() - F.logsigmoid(-false).mean()
        assert torch.allclose(loss, by_hand)

    def test_draws_the_latents_to_the_prior(self) -> None:
        """Latents that begin far away and narrow end up around 0 with unit spread."""
        from vaezoo.runtime.device import Runtime
        from vaezoo.training.options import TrainOptions
        from vaezoo.training.train_step import TrainStep

        torch.manual_seed(0)
        data = DataSpec(shape=(4,), domain="real")
        model = vaezoo.create_model(
            "aae", data, network="mlp", latent_dim=2, hidden=(32,), discriminator_hidden=(64, 64)
        )
        with torch.no_grad():
            model.encoder[-1].bias.fill_(3.0)
        updates = TrainStep(
            model,
            model.loss,
            TrainOptions(lr=2e-3, schedule="linear"),
            runtime=Runtime(torch.device("cpu"), "fp32"),
            total_steps=600,
            note=print,
        )
        for step in range(600):
            updates(Batch(torch.randn(128, 4)), CONTEXT, step)
        z = model.encode(torch.randn(5000, 4)).mean
        assert z.mean(0).abs().max() < 0.3
        assert ((z.std(0) - 1).abs() < 0.3).all()

    def test_a_gaussian_posterior_keeps_its_elbo(self) -> None:
        model, x = build("vanilla", loss="aae"), images()
        assert [phase.name for phase in model.loss.phases(model)] == [
            "reconstruction",
            "discriminator",
            "encoder",
        ]
        torch.manual_seed(3)
        distortion = model.loss(model, Batch(x), CONTEXT).terms["distortion"]
        torch.manual_seed(3)
        assert distortion.equal(-model(x).likelihood.log_prob(x))


class TestVaeGan:
    def judged(self, model: BaseVAE, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Log-odds and features of images, reconstructions and samples, by one seed's noise."""
        torch.manual_seed(3)
        z = model.encode(x).rsample().detach()
        imagined = model.prior().sample(torch.Size((len(x),)))
        pictures = torch.cat([x, model.decode(torch.cat([z, imagined])).mean])
        odds, features = model.loss.discriminator(pictures)
        return odds.split(len(x)), features.split(len(x))

    def gradients(self, model: BaseVAE, x: Tensor, name: str) -> tuple[Tensor, ...]:
        torch.manual_seed(3)
        value = getattr(model.loss, name)(model, Batch(x), CONTEXT).loss
        return torch.autograd.grad(value, list(model.decoder.parameters()))

    def test_the_decoders_gradient_by_hand(self) -> None:
        """gamma · similarity, and log(1 - D) whose derivative by the log-odds d is -σ(d)."""
        gamma = 0.01
        model, x = build("vae_gan", gamma=gamma), images()
        ours = self.gradients(model, x, "decoder_loss")
        (real, reconstruction, sample), (wanted, features, _) = self.judged(model, x)
        decoder, n = list(model.decoder.parameters()), len(x)
        # In batch norm the odds and features of the images, too, depend on the others.
        slopes = [torch.sigmoid(-real), -torch.sigmoid(reconstruction), -torch.sigmoid(sample)]
        fooling = torch.autograd.grad(
            (real, reconstruction, sample), decoder, [s / n for s in slopes], retain_graph=True
        )
        error = gamma * (features - wanted).detach() / n
        similarity = torch.autograd.grad((features, wanted), decoder, (error, -error))
        for mine, fool, similar in zip(ours, fooling, similarity, strict=True):
            assert torch.allclose(mine, fool + similar, rtol=1e-4, atol=1e-6)
        # The discriminator's sign would be found out: it moves the gradient by twice as much.
        assert max(fool.abs().max() for fool in fooling) > 1e-3

    def test_the_loss_that_does_not_saturate_is_that_of_what_the_decoder_made(self) -> None:
        """-log D of reconstructions and of samples, not of the images (Goodfellow 2014, 3)."""
        model, x = build("vae_gan", gamma=0.5, generator_loss="non_saturating"), images()
        torch.manual_seed(3)
        loss = model.loss.decoder_loss(model, Batch(x), CONTEXT).loss
        (_, reconstruction, sample), (wanted, features, _) = self.judged(model, x)
        similarity = 0.5 * (wanted - features).square().sum(1).mean()
        fooling = -F.logsigmoid(reconstruction).mean() - F.logsigmoid(sample).mean()
        assert torch.allclose(loss, 0.5 * similarity + fooling, rtol=1e-5)

    def test_the_decoder_steps_against_the_discriminator(self) -> None:
        """With gamma = 0 its gradient is exactly minus that of the discriminator's loss."""
        model, x = build("vae_gan", gamma=0.0), images()
        ours = self.gradients(model, x, "decoder_loss")
        cost = cross_entropy(*self.judged(model, x)[0])
        theirs = torch.autograd.grad(cost, list(model.decoder.parameters()))
        for mine, discriminators in zip(ours, theirs, strict=True):
            assert torch.allclose(mine, -discriminators, rtol=1e-4, atol=1e-7)

    def test_a_step_of_the_decoder_costs_the_discriminator(self) -> None:
        model, x = build("vae_gan", gamma=0.0), images()

        def cost() -> float:
            torch.manual_seed(3)
            with torch.no_grad():
                return model.loss.discriminator_loss(model, Batch(x), CONTEXT).loss.item()

        before = cost()
        gradients = self.gradients(model, x, "decoder_loss")
        for parameter, gradient in zip(model.decoder.parameters(), gradients, strict=True):
            with torch.no_grad():
                parameter.sub_(0.05 * gradient)
        assert cost() > before

    def test_the_discriminators_objective_is_of_all_three(self) -> None:
        model, x = build("vae_gan"), images()
        torch.manual_seed(3)
        loss = model.loss.discriminator_loss(model, Batch(x), CONTEXT).loss
        (real, reconstruction, sample), _ = self.judged(model, x)
        by_hand = -F.logsigmoid(real).mean()
        by_hand = by_hand - F.logsigmoid(-reconstruction).mean() - F.logsigmoid(-sample).mean()
        assert torch.allclose(loss, by_hand, rtol=1e-5)

    def test_the_encoder_minimises_rate_and_similarity_and_fools_nobody(self) -> None:
        model, x = build("vae_gan"), images()
        torch.manual_seed(3)
        loss, terms = model.loss(model, Batch(x), CONTEXT)
        torch.manual_seed(3)
        posterior, _, _, likelihood = model(x)
        squares = posterior.mean.square() + posterior.variance - 1 - posterior.variance.log()
        assert torch.allclose(terms["rate"], 0.5 * squares.sum(1), atol=1e-5)
        features = model.loss.discriminator(torch.cat([x, likelihood.mean]))[1]
        away = features[: len(x)] - features[len(x) :]
        assert torch.allclose(terms["feature_distortion"], 0.5 * away.square().sum(1), rtol=1e-4)
        assert torch.allclose(loss, (terms["rate"] + terms["feature_distortion"]).mean())

    def test_similarity_is_the_log_likelihood_of_a_unit_gaussian(self) -> None:
        a, b = torch.randn(4, 9), torch.randn(4, 9)
        log_p = diagonal_normal(b, torch.ones(())).log_prob(a)
        constant = 4.5 * math.log(2 * math.pi)
        assert torch.allclose(feature_distortion(a, b), -log_p - constant, atol=1e-5)


class TestDiscriminators:
    def test_cross_entropy_at_chance(self) -> None:
        zero = torch.zeros(5)
        assert cross_entropy(zero, zero).item() == pytest.approx(2 * math.log(2))
        assert cross_entropy(zero, zero, zero).item() == pytest.approx(3 * math.log(2))

    @pytest.mark.parametrize("size", [1e3, 1e30])
    def test_cross_entropy_does_not_overflow(self, size: float) -> None:
        odds = torch.tensor([size, -size])
        assert cross_entropy(odds, odds).item() == pytest.approx(size, rel=1e-5)

    def test_dense(self) -> None:
        assert MLPDiscriminator(6, (4, 3))(torch.randn(5, 3, 2)).shape == (5,)
        linear = [m for m in MLPDiscriminator(6, (4, 3)).modules() if isinstance(m, nn.Linear)]
        assert [layer.out_features for layer in linear] == [4, 3, 1]

    @pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28), (1, 13, 40), (3, 64, 64)])
    def test_image(self, shape: tuple[int, ...]) -> None:
        odds, features = ConvDiscriminator(DataSpec(shape=shape), (4, 6, 8, 8), 5)(
            torch.rand(2, *shape)
        )
        down = [math.ceil(math.ceil(math.ceil(n / 2) / 2) / 2) for n in shape[1:]]
        assert odds.shape == (2,)
        assert features.shape == (2, 8 * down[0] * down[1])

    def test_the_optimal_discriminator_is_the_log_ratio_of_densities(self) -> None:
        """Goodfellow et al. 2014, proposition 1: of N(1, 1) and N(-1, 1) it is 2 z."""
        torch.manual_seed(0)
        discriminator = nn.Linear(1, 1)
        optimizer = torch.optim.Adam(discriminator.parameters(), lr=0.05)
        for _ in range(400):
            real, false = torch.randn(1024, 1) + 1, torch.randn(1024, 1) - 1
            optimizer.zero_grad()
            cross_entropy(discriminator(real).flatten(), discriminator(false).flatten()).backward()
            optimizer.step()
        assert discriminator.weight.item() == pytest.approx(2.0, abs=0.15)
        assert discriminator.bias.item() == pytest.approx(0.0, abs=0.15)
