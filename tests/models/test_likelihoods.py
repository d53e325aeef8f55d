"""Tests of likelihoods: log-probabilities in nats by hand, means, bits per dimension."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import vaezoo
from vaezoo import DataSpec
from vaezoo.errors import DataError
from vaezoo.models.likelihood import Likelihood
from vaezoo.models.likelihoods import BernoulliLikelihood, GaussianLikelihood
from vaezoo.plugins.registry import registry

BINARY = DataSpec(shape=(1, 2, 2), domain="binary")
UNIT = DataSpec(shape=(3, 4, 2), domain="unit")
REAL = DataSpec(shape=(6,), domain="real")


def make_likelihood(name: str, data: DataSpec, **options: float) -> Likelihood:
    spec = registry().get("likelihood", name)
    made = spec.load()(spec.load_options()(**options), data)
    assert isinstance(made, Likelihood)
    return made


def example(*shape: int) -> tuple[Tensor, Tensor]:
    """A decoder's raw output, and values to score."""
    generator = torch.Generator().manual_seed(0)
    raw = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return raw, torch.rand(shape, generator=generator, dtype=torch.float64)


def fixed(scale: float, domain: str = "unit") -> GaussianLikelihood:
    data = DataSpec(shape=(1, 4, 4), domain=domain)  # type: ignore[arg-type]
    return GaussianLikelihood(data, scale, learned=False).double()


class TestBernoulli:
    def test_by_hand(self) -> None:
        log3 = math.log(3.0)
        logits = torch.tensor([[[[0.0, log3], [-log3, 5.0]]]], dtype=torch.float64)
        x = torch.tensor([[[[1.0, 1.0], [1.0, 0.0]]]], dtype=torch.float64)
        by_hand = math.log(0.5) + math.log(0.75) + math.log(0.25) - math.log(1 + math.exp(5.0))
        assert BernoulliLikelihood(UNIT)(logits).log_prob(x).item() == pytest.approx(
            by_hand, abs=1e-12
        )

    def test_sums_over_the_image(self) -> None:
        raw, x = example(5, 3, 4, 2)
        log_prob = BernoulliLikelihood(UNIT)(raw).log_prob(x)
        p = torch.sigmoid(raw)
        by_hand = (x * p.log() + (1 - x) * (1 - p).log()).sum((1, 2, 3))
        assert log_prob.shape == (5,)
        assert torch.allclose(log_prob, by_hand, rtol=0, atol=1e-10)

    def test_mean_is_the_probability_and_draws_are_binary(self) -> None:
        raw, _ = example(5, 3, 4, 2)
        likelihood = BernoulliLikelihood(UNIT)(raw)
        assert torch.allclose(likelihood.mean, torch.sigmoid(raw), rtol=0, atol=1e-12)
        assert set(likelihood.sample().unique().tolist()) == {0.0, 1.0}

    def test_a_sure_decoder_pays_what_it_says(self) -> None:
        """-200 nats for a wrong pixel at logit 200: there is no epsilon."""
        raw = torch.full((1, 1, 1, 1), 200.0)
        assert BernoulliLikelihood(UNIT)(raw).log_prob(torch.zeros(1, 1, 1, 1)).item() == -200.0


class TestGaussian:
    def test_by_hand(self) -> None:
        raw, x = example(5, 3, 4, 2)
        mean = (torch.tanh(raw) + 1) / 2
        scale = 0.3
        each = -0.5 * ((x - mean) / scale) ** 2 - math.log(scale) - 0.5 * math.log(2 * math.pi)
        log_prob = fixed(scale)(raw).log_prob(x)
        assert log_prob.shape == (5,)
        assert torch.allclose(log_prob, each.sum((1, 2, 3)), rtol=0, atol=1e-4)  # scale is float32

    def test_mean_of_images_is_in_the_unit_range(self) -> None:
        raw = torch.tensor([[-1e4, -1.0, 0.0, 1.0, 1e4]]).double()
        mean = fixed(0.1)(raw).mean
        expected = [0.0, (1 - math.tanh(1)) / 2, 0.5, (1 + math.tanh(1)) / 2, 1.0]
        assert mean.flatten().tolist() == pytest.approx(expected, abs=1e-12)

    def test_mean_of_real_data_is_the_raw_output(self) -> None:
        raw, _ = example(4, 6)
        assert fixed(0.1, "real")(raw).mean.equal(raw)

    def test_weighted_mean_squared_error(self) -> None:
        """Two images of equal scale differ by their squared errors over 2·scale², nothing else."""
        raw, x = example(2, 3, 4, 2)
        likelihood = fixed(0.5)(raw)
        errors = (x - likelihood.mean).square().sum((1, 2, 3))
        difference = likelihood.log_prob(x).diff() + errors.diff() / (2 * 0.5**2)
        assert difference.abs().item() < 1e-6

    def test_learned_scale_is_a_parameter_in_the_file(self) -> None:
        likelihood = GaussianLikelihood(UNIT, 0.2, learned=True)
        assert [name for name, _ in likelihood.named_parameters()] == ["log_scale"]
        assert list(likelihood.state_dict()) == ["log_scale"]
        raw, x = example(3, 3, 4, 2)
        likelihood(raw.float()).log_prob(x.float()).sum().backward()
        assert likelihood.log_scale.grad is not None
        assert likelihood.log_scale.grad.abs().item() > 1.0

    def test_fixed_scale_is_an_option_and_not_in_the_file(self) -> None:
        likelihood = GaussianLikelihood(UNIT, 0.2, learned=False)
        assert list(likelihood.parameters()) == []
        assert list(likelihood.state_dict()) == []
        scale = likelihood(torch.zeros(1, 2)).stddev
        assert torch.allclose(scale, torch.full((1, 2), 0.2))

    def test_best_learned_scale_is_the_root_mean_squared_error(self) -> None:
        raw, x = example(16, 3, 4, 2)
        mse = ((x - (torch.tanh(raw) + 1) / 2) ** 2).mean().item()
        likelihood = GaussianLikelihood(UNIT, 0.9, learned=True).double()
        optimizer = torch.optim.LBFGS(likelihood.parameters(), line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            nats: Tensor = -likelihood(raw).log_prob(x).mean()
            nats.backward()
            return nats

        optimizer.step(closure)
        assert math.exp(likelihood.log_scale.item()) == pytest.approx(math.sqrt(mse), rel=1e-5)

    def test_gradient_of_the_scale_changes_sign_at_the_optimum(self) -> None:
        raw, x = example(16, 3, 4, 2)
        best = 0.5 * math.log(((x - (torch.tanh(raw) + 1) / 2) ** 2).mean())

        def slope(log_scale: float) -> float:
            likelihood = GaussianLikelihood(UNIT, math.exp(log_scale), learned=True).double()
            nn.init.constant_(likelihood.log_scale, log_scale)  # type: ignore[arg-type]
            likelihood(raw).log_prob(x).mean().backward()
            assert isinstance(likelihood.log_scale.grad, Tensor)
            return likelihood.log_scale.grad.item()

        assert abs(slope(best)) < 1e-10
        assert slope(best - 0.1) > 1.0
        assert slope(best + 0.1) < -1.0

    def test_scale_stops_at_a_level_of_grey(self) -> None:
        likelihood = GaussianLikelihood(UNIT, 1e-6, learned=True)
        assert likelihood(torch.zeros(1, 1)).stddev.item() == pytest.approx(1 / 256)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["bernoulli", "gaussian_learned"])
def test_half_precision_is_summed_in_full(name: str, dtype: torch.dtype) -> None:
    likelihood = make_likelihood(name, UNIT)
    raw, x = (t.to(dtype) for t in example(2, 3, 64, 64))
    log_prob = likelihood(raw).log_prob(x.float())
    assert log_prob.dtype == torch.float32
    exact = likelihood(raw.double()).log_prob(x.double())
    assert torch.allclose(log_prob.double(), exact, rtol=1e-4)


class TestBitsPerDim:
    def test_binary_by_hand(self) -> None:
        """A fair coin for each pixel is one bit a pixel."""
        likelihood = BernoulliLikelihood(UNIT)
        nats = -likelihood(torch.zeros(1, 1, 2, 2)).log_prob(torch.ones(1, 1, 2, 2)).item()
        assert nats == pytest.approx(4 * math.log(2))
        assert likelihood.bits_per_dim(nats, BINARY) == pytest.approx(1.0)

    def test_unit_counts_the_width_of_a_level(self) -> None:
        """A uniform density on [0, 1], 0 nats, times a level's width 1/255."""
        bits = fixed(0.1).bits_per_dim(0.0, UNIT)
        assert bits is not None
        assert 2.0**-bits == pytest.approx(1 / 255, rel=1e-12)

    def test_unit_by_hand(self) -> None:
        """Each value's density is e^-1.5, its level's probability e^-1.5 / 255."""
        bits = fixed(0.1).bits_per_dim(1.5 * UNIT.numel, UNIT)
        assert bits == pytest.approx(-math.log2(math.exp(-1.5) / 255), rel=1e-12)

    def test_a_nat_less_is_as_many_bits_less_at_any_size(self) -> None:
        for shape in ((1, 8, 8), (3, 16, 8)):
            data = DataSpec(shape=shape, domain="unit")
            a, b = (fixed(0.1).bits_per_dim(nats, data) for nats in (0.0, -data.numel))
            assert a is not None
            assert b is not None
            assert a - b == pytest.approx(1 / math.log(2))

    def test_none_where_it_is_not_the_probability_of_the_data(self) -> None:
        assert BernoulliLikelihood(UNIT).bits_per_dim(100.0, UNIT) is None
        assert fixed(0.1).bits_per_dim(100.0, BINARY) is None
        assert fixed(0.1, "real").bits_per_dim(100.0, REAL) is None


class TestMakeLikelihood:
    @pytest.mark.parametrize(
        ("data", "kind", "learned"),
        [
            (BINARY, BernoulliLikelihood, False),
            (UNIT, GaussianLikelihood, True),
            (REAL, GaussianLikelihood, True),
        ],
    )
    def test_auto_follows_the_domain(
        self, data: DataSpec, kind: type[Likelihood], learned: bool
    ) -> None:
        likelihood = make_likelihood("auto", data)
        assert type(likelihood) is kind
        assert bool(list(likelihood.parameters())) is learned

    def test_by_name(self) -> None:
        bernoulli = make_likelihood("bernoulli", UNIT)
        assert isinstance(bernoulli, BernoulliLikelihood)
        gaussian = make_likelihood("gaussian", BINARY, scale=0.7)
        assert list(gaussian.parameters()) == []
        assert gaussian(torch.zeros(1, 1)).stddev.item() == pytest.approx(0.7)

    def test_bernoulli_on_real_numbers_is_refused(self) -> None:
        with pytest.raises(DataError, match="for binary and unit data, and this data is real"):
            vaezoo.create_model("vanilla", REAL, likelihood="bernoulli", network="mlp")

    def test_real_data_is_not_squashed(self) -> None:
        likelihood = make_likelihood("auto", REAL)
        assert likelihood(torch.full((1, 6), 9.0)).mean.unique().tolist() == [9.0]

    def test_a_likelihood_without_forward_is_abstract(self) -> None:
        class Silent(Likelihood):
            normalised_on = ("unit",)

        with pytest.raises(TypeError, match="forward"):
            Silent()  # type: ignore[abstract]
