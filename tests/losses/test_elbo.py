"""Tests of the ELBO loss: the meaning of beta, the sum of the terms, the warm-up."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, MixtureSameFamily
from torch.nn.functional import avg_pool2d, interpolate

from vaezoo import BaseVAE, Batch, DataSpec, LossOutput, Options, StepContext
from vaezoo.errors import OptionError
from vaezoo.losses.elbo import elbo_terms
from vaezoo.models.distributions import diagonal_normal
from vaezoo.models.likelihoods import GaussianLikelihood
from vaezoo.options import parse
from vaezoo_vanilla.loss import ELBOLoss, kl_parts
from vaezoo_vanilla.options import ELBOOptions


class Coarse(BaseVAE):
    """A model that works at 32×32 for any image size: larger images are upsampled.

    Its noise is the same for an image wherever it stands in a batch (`noise` is set by the test).
    """

    def __init__(self, size: int = 32) -> None:
        torch.manual_seed(0)
        super().__init__(Options(), DataSpec(shape=(1, size, size)))
        self.latent_shape = (5,)
        self.encoder = nn.Linear(32 * 32, 10)
        self.decoder = nn.Linear(5, 32 * 32)
        self.likelihood = GaussianLikelihood(
            DataSpec(shape=self.data.shape, domain="unit"), 0.3, learned=False
        )
        self.noise = torch.zeros(5)
        self.double()

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        small = avg_pool2d(x, x.shape[-1] // 32)
        loc, raw = self.encoder(small.flatten(1)).chunk(2, 1)
        posterior = diagonal_normal(loc, raw.exp())
        posterior.rsample = lambda: loc + raw.exp() * self.noise
        return posterior

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        raw = self.decoder(z).unflatten(1, (1, 32, 32))
        return self.likelihood(interpolate(raw, scale_factor=self.data.height // 32))


def images(n: int = 6, size: int = 32) -> Tensor:
    x = torch.rand(n, 1, 32, 32, generator=torch.manual_seed(1), dtype=torch.float64)
    return interpolate(x, scale_factor=size // 32)


def context(step: int = 0, total: int = 100) -> StepContext:
    return StepContext(torch.tensor(step), total, 1000)


def run(
    model: BaseVAE, x: Tensor, *, step: int = 0, total: int = 100, **options: float
) -> LossOutput:
    loss = ELBOLoss(ELBOOptions(**options), model, model.data)
    output: LossOutput = loss(model, Batch(x), context(step, total))
    return output


class TestTerms:
    def test_are_per_example_and_add_up(self) -> None:
        x = images()
        objective, terms = run(Coarse(), x, beta=4.0)
        assert set(terms) == {"elbo", "rate", "distortion"}
        assert {value.shape for value in terms.values()} == {(6,)}
        by_hand = (terms["distortion"] + 4.0 * terms["rate"]).mean()
        assert torch.allclose(objective, by_hand, rtol=0, atol=1e-9)
        assert torch.allclose(terms["elbo"], -(terms["distortion"] + terms["rate"]))

    def test_are_the_formulas_of_the_paper(self) -> None:
        model, x = Coarse(), images()
        model.noise = torch.randn(5).double()
        terms = run(model, x).terms
        q = model.encode(x)
        rate = 0.5 * (q.variance + q.mean**2 - 1 - q.variance.log()).sum(1)
        mean = (torch.tanh(model.decoder(q.mean + q.stddev * model.noise)) + 1) / 2
        scale = model.likelihood.log_scale.exp()
        squared = (x.flatten(1) - mean).square().sum(1) / (2 * scale**2)
        distortion = squared + 32 * 32 * (scale.log() + 0.5 * math.log(2 * math.pi))
        assert torch.allclose(terms["rate"], rate, rtol=0, atol=1e-9)
        assert torch.allclose(terms["distortion"], distortion, rtol=0, atol=1e-9)

    def test_at_beta_one_the_objective_is_the_negative_elbo(self) -> None:
        objective, terms = run(Coarse(), images())
        assert torch.allclose(objective, -terms["elbo"].mean(), rtol=0, atol=1e-12)

    def test_can_be_had_without_the_loss(self) -> None:
        """Also in losses that add terms to the ELBO or weigh its parts."""
        model, x = Coarse(), images()
        expected, terms = run(model, x).terms, elbo_terms(model(x), x)
        assert terms.keys() == expected.keys()
        assert all(terms[name].equal(expected[name]) for name in terms)

    def test_elbo_does_not_know_beta(self) -> None:
        one, four = (run(Coarse(), images(), beta=beta).terms for beta in (1.0, 4.0))
        for name in one:
            assert one[name].equal(four[name])

    def test_are_the_same_at_any_batch_size(self) -> None:
        """A common mistake in other code: KL weights and sums that depend on the batch size."""
        model, x = Coarse(), images(64)
        whole, terms = run(model, x, beta=3.0)
        for size in (1, 8):
            parts = [run(model, part, beta=3.0) for part in x.split(size)]
            for name, value in terms.items():
                pieces = torch.cat([part.terms[name] for part in parts])
                assert torch.allclose(pieces, value, rtol=0, atol=1e-9), name
            objective = torch.stack([part.loss for part in parts]).mean()
            assert torch.allclose(objective, whole, rtol=0, atol=1e-9)


class TestBeta:
    @pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 4.0])
    def test_weighs_nats_against_nats_at_any_image_size(self, beta: float) -> None:
        """Each pixel four times: four times the distortion, the same rate, the same beta."""
        small, large = run(Coarse(), images()), run(Coarse(64), images(size=64))
        assert torch.allclose(large.terms["rate"], small.terms["rate"], rtol=0, atol=1e-12)
        assert torch.allclose(large.terms["distortion"], 4 * small.terms["distortion"])
        trade = 4 * small.terms["distortion"].mean() + beta * small.terms["rate"].mean()
        objective = run(Coarse(64), images(size=64), beta=beta).loss
        assert torch.allclose(objective, trade, rtol=0, atol=1e-8)

    def test_gradient_is_that_of_the_weighted_sum(self) -> None:
        model, x = Coarse(), images()
        parameters = list(model.parameters())
        objective, terms = run(model, x, beta=2.5)
        ours = torch.autograd.grad(objective, parameters, retain_graph=True)
        distortion = torch.autograd.grad(terms["distortion"].mean(), parameters, retain_graph=True)
        rate = torch.autograd.grad(terms["rate"].mean(), parameters, materialize_grads=True)
        for mine, d, r in zip(ours, distortion, rate, strict=True):
            assert torch.allclose(mine, d + 2.5 * r, rtol=1e-9, atol=1e-10)
        assert sum(g.abs().sum() for g in rate) > 0

    def test_rate_has_no_gradient_in_the_decoder(self) -> None:
        model = Coarse()
        run(model, images()).terms["rate"].sum().backward()
        assert model.decoder.weight.grad is None
        assert model.encoder.weight.grad is not None

    def test_zero_beta_is_the_distortion_alone(self) -> None:
        objective, terms = run(Coarse(), images(), beta=0.0)
        assert objective.equal(terms["distortion"].mean())

    @pytest.mark.parametrize("values", [{"beta": -1}, {"warmup": 1.5}, {"beta": "inf"}])
    def test_out_of_range_is_refused(self, values: dict[str, float]) -> None:
        with pytest.raises(OptionError, match=next(iter(values))) as caught:
            parse(ELBOOptions, values, "loss elbo")
        assert "\n" not in str(caught.value)


class TestWarmup:
    def betas(self, warmup: float, total: int, beta: float = 4.0) -> list[float]:
        model = Coarse()
        loss = ELBOLoss(ELBOOptions(beta=beta, warmup=warmup), model, model.data)
        return [float(loss.beta(context(step, total))) for step in range(total + 1)]

    def test_rises_linearly_and_stays(self) -> None:
        expected = [0.8, 1.6, 2.4, 3.2, *[4.0] * 7]
        assert self.betas(0.5, 10) == pytest.approx(expected)

    @pytest.mark.parametrize(
        ("warmup", "total"), [(0.07, 100), (0.3, 1000), (1 / 3, 7), (1.0, 49), (0.01, 10)]
    )
    def test_reaches_its_end_exactly(self, warmup: float, total: int) -> None:
        betas = self.betas(warmup, total)
        first_full = math.ceil(warmup * total - 1e-9)
        assert all(beta == 4.0 for beta in betas[first_full:])
        assert betas == sorted(betas)
        assert all(0 < beta < 4.0 for beta in betas[: max(0, first_full - 1)])

    def test_none_is_full_from_the_start(self) -> None:
        assert self.betas(0.0, 5) == [4.0] * 6

    def test_weighs_the_rate_in_the_objective(self) -> None:
        objective, terms = run(Coarse(), images(), beta=4.0, warmup=0.5, step=9, total=100)
        expected = terms["distortion"].mean() + 0.8 * terms["rate"].mean()
        assert torch.allclose(objective, expected, rtol=0, atol=1e-5)

    def test_does_not_move_in_evaluation(self) -> None:
        """The weight depends on the step only, and only training changes the step."""
        model, x, at = Coarse(), images(), context(step=9)
        loss = ELBOLoss(ELBOOptions(beta=4.0, warmup=0.5), model, model.data)
        state = {name: value.clone() for name, value in loss.state_dict().items()}
        training = loss(model, Batch(x), at).loss
        model.eval()
        loss.eval()
        with torch.no_grad():
            values = [loss(model, Batch(x), at).loss for _ in range(3)]
        assert all(value.equal(training) for value in values)
        assert at.global_step.item() == 9
        assert loss.state_dict() == state


class TestPhases:
    def test_one_of_everything_that_trains(self) -> None:
        model = Coarse()
        model.decoder.bias.requires_grad_(False)
        loss = ELBOLoss(ELBOOptions(), model, model.data)
        (phase,) = loss.phases(model)
        ids = {id(parameter) for parameter in phase.parameters}
        assert ids == {id(p) for p in model.parameters()} - {id(model.decoder.bias)}
        output = phase.loss_fn(model, Batch(images()), context())
        assert output.loss.equal(run(model, images()).loss)


class TestFreeBits:
    """Kingma et al. 2016, equation 15: the maximum is over means of the batch, one per latent."""

    def test_by_hand(self) -> None:
        model, x = Coarse(), images()
        with torch.no_grad():
            q = model.encode(x).base_dist
        each = (q.variance + q.mean.square() - 1 - q.variance.log()).mul(0.5).mean(0)
        free = float(each.median())
        loss, terms = run(model, x, free_bits=free, beta=3.0)
        rate = sum(max(free, float(kl)) for kl in each)
        assert rate > float(each.sum()) + 0.01
        assert float(loss) == pytest.approx(float(terms["distortion"].mean()) + 3.0 * rate)
        _, plain = run(model, x)
        assert all(terms[name].equal(plain[name]) for name in plain)  # the true ones

    def test_a_latent_below_it_gets_no_gradient_from_the_kl(self) -> None:
        model, x = Coarse(), images()
        with torch.no_grad():
            q = model.encode(x).base_dist
        each = (q.variance + q.mean.square() - 1 - q.variance.log()).mul(0.5).mean(0)
        slopes = {}
        for free, beta in ((0.0, 0.0), (float(each.median()) + 1e-6, 1.0)):
            loss, _ = run(model, x, free_bits=free, beta=beta)
            (slopes[beta],) = torch.autograd.grad(loss, model.encoder.bias)
        same = torch.isclose(slopes[0.0], slopes[1.0], rtol=1e-6, atol=1e-12)
        below = each <= each.median()
        assert below.sum() == 3
        assert same.equal(torch.cat([below, below]))

    def test_none_is_the_elbo_to_the_bit(self) -> None:
        model, x = Coarse(), images()
        assert run(model, x, free_bits=0.0)[0].equal(-run(model, x)[1]["elbo"].mean())

    def test_a_channel_of_a_grid_is_one_part(self) -> None:
        loc = torch.randn(4, 3, 2, 2, generator=torch.manual_seed(0))
        posterior = diagonal_normal(loc, torch.ones(()).expand_as(loc), 3)
        prior = diagonal_normal(torch.zeros(3, 2, 2), torch.ones(3, 2, 2), 3)
        parts = kl_parts(posterior, prior)
        assert parts is not None
        torch.testing.assert_close(parts, 0.5 * loc.square().sum((2, 3)))

    def test_without_parts_it_is_of_the_whole_rate(self) -> None:
        class Mixed(Coarse):
            def prior(self, y: Tensor | None = None) -> Distribution:
                one = diagonal_normal(torch.zeros(2, 5).double(), torch.ones(2, 5).double())
                return MixtureSameFamily(Categorical(torch.ones(2).double()), one)

        model, x = Mixed(), images()
        model.encoder.bias.data[:5] = 2.0  # latents far from the prior: the rate is above 0
        _, terms = run(model, x)
        rate = float(terms["rate"].mean())
        for free, paid in ((rate - 0.1, rate), (rate + 0.5, rate + 0.5)):
            loss, _ = run(model, x, free_bits=free)
            assert float(loss) == pytest.approx(float(terms["distortion"].mean()) + paid)

    def test_it_needs_the_whole_batch(self) -> None:
        model = Coarse()
        assert (
            "mean KL"
            in ELBOLoss(ELBOOptions(free_bits=0.1), model, model.data).no_accumulate_reason
        )
        assert not ELBOLoss(ELBOOptions(), model, model.data).no_accumulate_reason
