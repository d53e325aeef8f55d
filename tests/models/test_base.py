"""Tests of BaseVAE: bounds, samples and labels, on models with known results."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
)

from vaezoo import BaseVAE, Batch, DataSpec, Options, StepContext
from vaezoo.models.distributions import diagonal_normal, kl_divergence, log_mean_exp
from vaezoo.runtime.device import evaluation_mode
from vaezoo_vanilla.loss import ELBOLoss
from vaezoo_vanilla.options import ELBOOptions

NOISE = 0.6
CONTEXT = StepContext(torch.tensor(0), 1, 16)


class OneLatent(BaseVAE):
    """x = w·z + shift + noise with one latent: the posterior and log p(x) are known exactly.

    `widen` and `move` make the posterior wrong by a factor and an offset.
    """

    def __init__(self, values: int = 4, widen: float = 1.0, move: float = 0.0) -> None:
        super().__init__(Options(), DataSpec(shape=(values,), domain="real"))
        self.latent_shape = (1,)
        self.register_buffer("w", torch.linspace(-1.0, 1.5, values))
        self.widen, self.move = widen, move
        self.double()

    def shift(self, y: Tensor | None) -> Tensor:
        return torch.zeros((), dtype=torch.float64)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        variance = 1 / (1 + self.w.square().sum() / NOISE**2)
        mean = variance * ((x - self.shift(y)) @ self.w)[:, None] / NOISE**2
        scale = variance.sqrt().expand_as(mean)
        return diagonal_normal(mean + self.move * scale, self.widen * scale)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return diagonal_normal(z * self.w + self.shift(y), torch.tensor(NOISE))

    def exact(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        covariance = self.w.outer(self.w) + NOISE**2 * torch.eye(len(self.w)).double()
        mean = self.shift(y).expand_as(x)
        return MultivariateNormal(mean, covariance).log_prob(x)


class Shifted(OneLatent):
    """The same, shifted by 3·y: with a wrong label the likelihood is very low."""

    conditional = True

    def shift(self, y: Tensor | None) -> Tensor:
        assert y is not None
        return 3.0 * y[:, None].double()


class MixturePrior(OneLatent):
    """A prior with no closed-form KL: the rate is the single-sample estimate."""

    def prior(self, y: Tensor | None = None) -> Distribution:
        loc = torch.tensor([[-1.0], [2.0]], dtype=torch.float64)
        components = diagonal_normal(loc, torch.full_like(loc, 0.8))
        return MixtureSameFamily(Categorical(torch.tensor([0.3, 0.7]).double()), components)


class LabelledPrior(OneLatent):
    """p(z|y) around 10·y."""

    conditional = True

    def prior(self, y: Tensor | None = None) -> Distribution:
        assert y is not None
        loc = 10.0 * y[:, None].double()
        return diagonal_normal(loc, torch.ones_like(loc))


class Pixels(BaseVAE):
    """Bernoulli images over a spatial latent, its prior away from 0; batch norm has a state."""

    def __init__(self) -> None:
        super().__init__(Options(), DataSpec(shape=(2, 8, 6), domain="binary"))
        self.latent_shape = (3, 4, 3)
        self.encoder = nn.Sequential(nn.Conv2d(2, 6, 2, stride=2), nn.BatchNorm2d(6))
        self.decoder = nn.Sequential(nn.ConvTranspose2d(3, 2, 2, stride=2), nn.BatchNorm2d(2))

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        assert y is None
        loc, raw = self.encoder(x).chunk(2, 1)
        return diagonal_normal(loc, nn.functional.softplus(raw) + 0.1, 3)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        assert y is None
        assert z.shape[1:] == self.latent_shape
        return Independent(Bernoulli(logits=self.decoder(z)), 3)

    def prior(self, y: Tensor | None = None) -> Distribution:
        assert y is None
        return diagonal_normal(torch.full((3, 4, 3), 2.0), torch.ones(3, 4, 3), 3)


def data(n: int = 16) -> Tensor:
    """Real vectors. 16 draws of one latent at a time are whole blocks of torch's generator."""
    return 1.5 * torch.randn(n, 4, generator=torch.manual_seed(3), dtype=torch.float64)


def seeded_weights(model: BaseVAE, x: Tensor, samples: int) -> Tensor:
    torch.manual_seed(0)
    return model.log_importance_weights(x, samples=samples)


class TestBounds:
    def test_one_sample_is_the_elbo_of_the_same_noise(self) -> None:
        model, x = MixturePrior(widen=1.5), data()
        weights = seeded_weights(model, x, 1)
        torch.manual_seed(0)
        terms = ELBOLoss(ELBOOptions(), model, model.data)(model, Batch(x), CONTEXT).terms
        assert weights.shape == (1, 16)
        assert torch.allclose(weights[0], terms["elbo"], rtol=0, atol=1e-12)

    def test_the_mean_weight_is_the_elbo(self) -> None:
        """The closed-form KL and the weights estimate the same bound."""
        model, x = OneLatent(widen=1.5, move=1.0), data()
        weights = seeded_weights(model, x, 20_000)
        q = model.encode(x)
        rate = kl_divergence(q, model.prior(), q.mean)
        spread = model.w.square().sum() * q.variance[:, 0]
        errors = (x - q.mean * model.w).square().sum(1) + spread
        distortion = errors / (2 * NOISE**2) + 4 * math.log(NOISE * math.sqrt(2 * math.pi))
        error = 5 * weights.std(0) / math.sqrt(len(weights))
        assert ((weights.mean(0) + distortion + rate).abs() < error).all()

    def test_weights_at_given_draws(self) -> None:
        """The weights at the model's own samples, and at others."""
        model, y = Shifted(widen=1.4, move=0.5), torch.arange(16) % 5
        x = data() + 3.0 * y[:, None]
        torch.manual_seed(0)
        expected = model.log_importance_weights(x, y, samples=6)
        torch.manual_seed(0)
        q = model.encode(x, y)
        assert model.log_density_ratio(q, model.prior(y), q.rsample(torch.Size((6,))), x, y).equal(
            expected
        )
        z = torch.full((2, 16, 1), 0.7, dtype=torch.float64)
        joint = model.decode(z[0], y).log_prob(x) + model.prior().log_prob(z[0])
        by_hand = (joint - q.log_prob(z[0])).expand(2, 16)
        assert torch.allclose(
            model.log_density_ratio(q, model.prior(y), z, x, y), by_hand, rtol=0, atol=1e-12
        )

    def test_the_exact_posterior_has_no_gap(self) -> None:
        """Every weight is log p(x), for any sample."""
        model, x = OneLatent(), data()
        weights = seeded_weights(model, x, 50)
        assert torch.allclose(weights, model.exact(x).expand(50, 16), rtol=0, atol=1e-6)
        assert torch.allclose(model.log_likelihood(x, samples=7), model.exact(x), atol=1e-6)

    def test_does_not_fall_with_more_samples(self) -> None:
        """The same samples in larger and larger groups (Burda et al. 2015, theorem 1)."""
        model, x = OneLatent(widen=0.6, move=1.5), data()
        weights = seeded_weights(model, x, 256)
        groups = (weights.unflatten(0, (-1, k)) for k in (1, 4, 16, 64, 256))
        bounds = [log_mean_exp(group, 1).mean() for group in groups]
        assert (torch.stack(bounds).diff() > 1e-3).all()
        assert bounds[-1] < model.exact(x).mean() + 0.05

    def test_log_likelihood_rises_from_the_elbo_to_log_p(self) -> None:
        model, x = OneLatent(widen=1.4, move=1.0), data()
        exact = model.exact(x)
        torch.manual_seed(0)
        elbo = torch.stack([model.log_likelihood(x, samples=1) for _ in range(500)]).mean(0)
        assert (elbo < exact - 0.1).all()
        assert torch.allclose(model.log_likelihood(x, samples=20_000), exact, rtol=0, atol=0.05)

    @pytest.mark.parametrize("chunk", [1, 16, 48, 100, 1600, 10_000])
    def test_log_likelihood_is_the_same_in_chunks(self, chunk: int) -> None:
        model, x = OneLatent(widen=1.4, move=1.0), data()
        expected = log_mean_exp(seeded_weights(model, x, 100), 0)
        torch.manual_seed(0)
        estimate = model.log_likelihood(x, samples=100, chunk_size=chunk)
        assert torch.allclose(estimate, expected, rtol=0, atol=1e-12)

    def test_chunks_bound_what_is_decoded_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model, seen = OneLatent(), []
        decode = model.decode

        def spy(z: Tensor, y: Tensor | None = None) -> Distribution:
            seen.append(len(z))
            return decode(z, y)

        monkeypatch.setattr(model, "decode", spy)
        model.log_likelihood(data(), samples=100, chunk_size=50)
        assert max(seen) == 48
        assert sum(seen) == 100 * 16

    def test_a_hundred_samples_are_drawn_unless_another_number_is_given(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model, x, decoded = OneLatent(), data(3), []
        honest = model.decode
        monkeypatch.setattr(model, "decode", lambda z, y: decoded.append(len(z)) or honest(z, y))
        model.log_likelihood(x)
        model.log_likelihood(x, samples=7)
        assert decoded == [300, 21]

    def test_the_prior_and_the_posterior_are_made_once_for_all_chunks(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model, calls = OneLatent(), []
        for name in ("encode", "prior"):
            whole = getattr(model, name)
            monkeypatch.setattr(
                model, name, lambda *a, n=name, f=whole: (calls.append(n), f(*a))[1]
            )
        model.log_likelihood(data(), samples=100, chunk_size=50)
        assert sorted(calls) == ["encode", "prior"]

    def test_gradients_flow_through_the_weights(self) -> None:
        model, x = OneLatent(move=1.0), data().requires_grad_()
        seeded_weights(model, x, 4).sum().backward()
        assert x.grad is not None
        assert (x.grad.abs() > 0).any()

    def test_spatial_latents_have_one_weight_an_example(self) -> None:
        model = Pixels().eval()
        x = torch.bernoulli(torch.full((5, 2, 8, 6), 0.5))
        weights = seeded_weights(model, x, 3)
        torch.manual_seed(0)
        q = model.encode(x)
        z = q.rsample(torch.Size((3,)))
        by_hand = model.prior().log_prob(z) - q.log_prob(z)
        by_hand = by_hand + torch.stack([model.decode(draw).log_prob(x) for draw in z])
        assert weights.shape == (3, 5)
        assert torch.allclose(weights, by_hand, rtol=1e-5)


class TestLabels:
    def test_reach_conditional_models_in_the_right_order(self) -> None:
        model, y = Shifted(), torch.arange(16) % 5
        x = data() + 3.0 * y[:, None]
        exact = model.exact(x, y)
        weights = model.log_importance_weights(x, y, samples=6)
        assert torch.allclose(weights, exact.expand(6, 16), rtol=0, atol=1e-6)
        assert torch.allclose(model.log_likelihood(x, y, samples=6), exact, atol=1e-6)
        assert (model.log_likelihood(x, y.flip(0), samples=6) - exact).abs().max() > 1.0

    def test_move_samples_and_reconstructions(self) -> None:
        model, y = Shifted(), torch.arange(16)
        samples = model.sample(16, y, temperature=0.0)
        assert torch.allclose(samples, 3.0 * y[:, None].expand(16, 4).double())
        x = samples + data()
        unlabelled = OneLatent().reconstruct(data())
        assert torch.allclose(model.reconstruct(x, y), unlabelled + samples)
        assert torch.allclose(model(x, y).posterior.mean, OneLatent()(data()).posterior.mean)

    def test_never_reach_the_others(self) -> None:
        """Pixels fails at any label."""
        model, y = Pixels().eval(), torch.zeros(4, dtype=torch.int64)
        x = torch.bernoulli(torch.full((4, 2, 8, 6), 0.5))
        model(x, y)
        model.reconstruct(x, y)
        model.sample(4, y)
        model.log_likelihood(x, y, samples=2)
        assert model.labels(y) is None


class TestSamples:
    def test_shapes_and_draws(self) -> None:
        model = Pixels().eval()
        means, draws = model.sample(5), model.sample(5, mean=False)
        assert means.shape == draws.shape == (5, 2, 8, 6)
        assert set(draws.unique().tolist()) == {0.0, 1.0}
        assert ((means > 0) & (means < 1)).all()
        assert not means.requires_grad

    def test_temperature_scales_around_the_priors_mean(self) -> None:
        model = Pixels().eval()
        coldest = model.decode(torch.full((5, 3, 4, 3), 2.0)).mean
        assert torch.allclose(model.sample(5, temperature=0.0), coldest)
        seen = []
        model.register_module("decoder", _Recorder(seen))
        for temperature in (1.0, 0.5):
            torch.manual_seed(0)
            model.sample(5, temperature=temperature)
        assert torch.allclose(seen[1] - 2.0, 0.5 * (seen[0] - 2.0), atol=1e-6)

    def test_come_from_the_prior(self) -> None:
        model = OneLatent()
        torch.manual_seed(0)
        samples = model.sample(20_000, mean=False)
        covariance = model.w.outer(model.w) + NOISE**2 * torch.eye(4).double()
        assert torch.allclose(samples.T.cov(), covariance, rtol=0, atol=0.1)
        assert torch.allclose(samples.mean(0), torch.zeros(4).double(), atol=0.06)

    @pytest.mark.parametrize("temperature", [0.0, 0.01])
    def test_a_prior_with_a_batch_gives_one_sample_each(self, temperature: float) -> None:
        model, y = LabelledPrior(), torch.tensor([2, 0, 1])
        samples = model.sample(3, y, temperature=temperature)
        assert samples.shape == (3, 4)
        assert torch.allclose(samples, 10.0 * y[:, None] * model.w, rtol=0, atol=0.2)

    def test_reconstructions_do_not_move(self) -> None:
        model, x = OneLatent(), data()
        assert model.reconstruct(x).equal(model.reconstruct(x))
        assert model.reconstruct(x).shape == x.shape
        assert model.reconstruct(x).equal(model.encode(x).mean * model.w)

    def test_discrete_latents_of_one_hot_codes(self) -> None:
        class Codes(OneLatent):
            def prior(self, y: Tensor | None = None) -> Distribution:
                return Independent(OneHotCategorical(torch.ones(3, 4)), 1)

            def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
                assert z.shape[1:] == (3, 4)
                return diagonal_normal(z.sum(1), torch.tensor(NOISE))

        assert Codes().sample(6).shape == (6, 4)
        assert (Codes().sample(6).sum(1) == 3).all()


class TestEvaluation:
    def test_leaves_buffers_and_modes_as_they_were(self) -> None:
        model = Pixels()
        model.decoder.eval()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        x = torch.bernoulli(torch.full((4, 2, 8, 6), 0.5))
        loss = ELBOLoss(ELBOOptions(), model, model.data)
        with evaluation_mode(model, loss), torch.no_grad():
            assert not model.encoder[1].training
            output = loss(model, Batch(x), CONTEXT)
            model.log_likelihood(x, samples=2)
            model.sample(3)
            model.reconstruct(x)
        assert not output.loss.requires_grad
        assert model.encoder[1].training
        assert not model.decoder[1].training
        for name, tensor in model.state_dict().items():
            assert tensor.equal(before[name]), name

    def test_what_it_gives_holds_no_graph(self) -> None:
        """Else the activations of every batch would stay in memory."""
        model, x = Pixels().eval(), torch.bernoulli(torch.full((4, 2, 8, 6), 0.5))
        assert model(x).likelihood.mean.requires_grad
        for given in (model.sample(3), model.reconstruct(x), model.log_likelihood(x, samples=2)):
            assert not given.requires_grad

    def test_training_does_move_them(self) -> None:
        model = Pixels()
        model(torch.bernoulli(torch.full((4, 2, 8, 6), 0.5)))
        assert model.get_buffer("encoder.1.num_batches_tracked").item() == 1


class TestInterface:
    @pytest.mark.parametrize("missing", ["encode", "decode"])
    def test_both_directions_are_asked_for(self, missing: str) -> None:
        half = type("Half", (OneLatent,), {missing: getattr(BaseVAE, missing)})
        with pytest.raises(TypeError, match=missing):
            half()

    def test_default_prior_is_standard_and_follows_the_model(self) -> None:
        prior = OneLatent().prior()
        assert prior.event_shape == (1,)
        assert prior.batch_shape == ()
        assert prior.mean.dtype == torch.float64
        assert prior.log_prob(torch.zeros(1)).item() == pytest.approx(-0.5 * math.log(2 * math.pi))
        assert (prior.mean.tolist(), prior.stddev.tolist()) == ([0.0], [1.0])

    def test_forward_is_consistent(self) -> None:
        model, x = OneLatent(), data()
        posterior, z, prior, likelihood = model(x)
        assert isinstance(posterior, Independent)
        assert isinstance(posterior.base_dist, Normal)
        assert z.shape == (16, 1)
        assert likelihood.mean.equal(z * model.w)
        assert prior.event_shape == posterior.event_shape == model.latent_shape

    def test_what_the_model_carries_is_not_in_its_file(self) -> None:
        model = Pixels()
        model.loss = None
        assert not [name for name in model.state_dict() if "loss" in name or "origin" in name]


class _Recorder(nn.Module):
    def __init__(self, seen: list[Tensor]) -> None:
        super().__init__()
        self.seen = seen

    def forward(self, z: Tensor) -> Tensor:
        self.seen.append(z)
        return torch.zeros(len(z), 2, 8, 6)
