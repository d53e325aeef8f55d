"""The ladder: densities of the packed levels, and a KL against the top-down prior."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution

from vaezoo import DataSpec, create_model
from vaezoo.errors import OptionError
from vaezoo.models.distributions import diagonal_normal, kl_divergence, mode
from vaezoo_hierarchy.ladder import LadderVAE
from vaezoo_hierarchy.top_down import LadderPosterior, TopDownPrior, merge

DATA = DataSpec(shape=(6,), domain="real")


def ladder(sizes: tuple[int, ...] = (4, 3, 2), spread: float = 0.5) -> LadderVAE:
    """A ladder in double precision, its weights moved from where they start."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"network": "mlp", "hidden": (8,), "level_hidden": 8}
    model = create_model("ladder_vae", DATA, latent_dim=sizes[0], upper=sizes[1:], **options)
    assert isinstance(model, LadderVAE)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    return model.double().eval()


def examples(n: int = 5) -> Tensor:
    return torch.randn(n, 6, dtype=torch.float64, generator=torch.manual_seed(1))


def gaussian_kl(q: Distribution, p: Distribution) -> Tensor:
    """By hand: Σ ln σp/σq + (σq² + (μq − μp)²) / 2σp² − ½."""
    ratio = q.variance / p.variance
    square = (q.mean - p.mean).square() / p.variance
    return 0.5 * (ratio + square - 1 - ratio.log()).sum(-1)


def normal_log_prob(x: Tensor, d: Distribution) -> Tensor:
    return torch.distributions.Normal(d.mean, d.stddev).log_prob(x).sum(-1)


def check_by_quadrature(d: Distribution, z: Tensor) -> None:
    """A density over the plane has mass 1, and the moments of z, [n, 2], that was drawn from it."""
    axis = torch.linspace(-12, 12, 801, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        weight = d.log_prob(grid[:, None]).exp() * (axis[1] - axis[0]) ** 2
    assert weight.sum().item() == pytest.approx(1, abs=1e-3)
    for feature in (lambda v: v, lambda v: v.square(), lambda v: v.prod(-1, keepdim=True)):
        expected = (weight * feature(grid)).sum(0)
        error = 5 * feature(z).std(0) / len(z) ** 0.5
        assert ((feature(z).mean(0) - expected).abs() < error + 1e-3).all()


class Shifted(TopDownPrior):
    """A top-down prior whose level 0 has its mean moved."""

    def __init__(self, prior: TopDownPrior, by: float) -> None:
        super().__init__(prior.conditionals, prior.top, prior.sizes)
        self.by = by

    def given(self, level: int, above: Tensor) -> Distribution:
        p = super().given(level, above)
        return diagonal_normal(p.mean + self.by, p.stddev) if level == 0 else p


class TestPrior:
    def test_density_is_the_product_of_the_levels(self) -> None:
        model = ladder()
        z = torch.randn(7, 5, 9).double()
        lowest, middle, top = z.split((4, 3, 2), -1)
        by_hand = (
            normal_log_prob(lowest, model.decoder.conditionals[0](middle))
            + normal_log_prob(middle, model.decoder.conditionals[1](top))
            - 0.5 * (top.square() + math.log(2 * math.pi)).sum(-1)
        )
        prior = model.prior()
        assert (prior.batch_shape, prior.event_shape) == ((), (9,))
        assert torch.allclose(prior.log_prob(z), by_hand, rtol=1e-9)

    def test_samples_follow_the_density_and_it_is_one(self) -> None:
        prior = ladder((1, 1), spread=0.3).prior()
        torch.manual_seed(0)
        check_by_quadrature(prior, prior.sample((40_000,)))

    @pytest.mark.parametrize("shape", [(), (5,), (3, 4)])
    def test_samples_have_their_levels_along_the_last_axis(self, shape: tuple[int, ...]) -> None:
        z = ladder().prior().sample(shape)
        assert z.shape == (*shape, 9)
        assert not z.requires_grad

    def test_temperature_narrows_every_level(self) -> None:
        model = ladder()
        cold = model.prior().with_temperature(0.0).sample((3,))
        middle = model.decoder.conditionals[1](torch.zeros(3, 2).double()).mean
        expected = torch.cat(
            [model.decoder.conditionals[0](middle).mean, middle, torch.zeros(3, 2)], -1
        )
        assert torch.allclose(cold, expected)
        half = model.prior().with_temperature(0.5).with_temperature(0.5)
        assert half.levels(cold)[0].stddev.allclose(0.25 * model.prior().levels(cold)[0].stddev)
        assert model.sample(4, temperature=0.3).shape == (4, 6)


class TestPosterior:
    def test_merging_is_bayes(self) -> None:
        """In proportion to the product of both densities, wherever it is looked at."""
        a = diagonal_normal(torch.tensor([1.0, -2.0]).double(), torch.tensor([0.3, 5.0]).double())
        b = diagonal_normal(torch.tensor([4.0, 1.0]).double(), torch.tensor([2.0, 0.1]).double())
        points = torch.randn(20, 2).double()
        product = a.log_prob(points) + b.log_prob(points)
        difference = merge(a, b).log_prob(points) - product
        assert torch.allclose(difference, difference[0].expand(20), atol=1e-9)

    def test_density_is_the_product_of_the_merged_levels(self) -> None:
        model, x = ladder(), examples()
        q = model.encode(x)
        z = torch.randn(7, 5, 9).double()
        lowest, middle, top = z.split((4, 3, 2), -1)
        bottom_up = model.encoder(x)
        by_hand = (
            normal_log_prob(lowest, merge(bottom_up[0], model.decoder.conditionals[0](middle)))
            + normal_log_prob(middle, merge(bottom_up[1], model.decoder.conditionals[1](top)))
            + normal_log_prob(top, bottom_up[2])
        )
        assert (q.batch_shape, q.event_shape) == ((5,), (9,))
        assert torch.allclose(q.log_prob(z), by_hand, rtol=1e-9)

    def test_samples_follow_the_density_and_it_is_one(self) -> None:
        q = ladder((1, 1), spread=0.3).encode(examples(1))
        torch.manual_seed(0)
        check_by_quadrature(q, q.sample((40_000,))[:, 0])

    def test_mode_is_every_levels_mean_given_the_mean_above(self) -> None:
        model, x = ladder(), examples()
        bottom_up = model.encoder(x)
        middle = merge(bottom_up[1], model.decoder.conditionals[1](bottom_up[2].mean)).mean
        lowest = merge(bottom_up[0], model.decoder.conditionals[0](middle)).mean
        expected = torch.cat([lowest, middle, bottom_up[2].mean], -1)
        assert torch.allclose(mode(model.encode(x)), expected)

    def test_gradients_reach_every_level_from_the_sample(self) -> None:
        model = ladder()
        model.encode(examples()).rsample()[:, 0].sum().backward()
        for parameter in (
            *model.encoder.heads.parameters(),
            *model.decoder.conditionals.parameters(),
        ):
            assert parameter.grad is not None
            assert (parameter.grad != 0).any()


class TestRate:
    def test_is_the_sum_of_the_levels_closed_forms_against_the_top_down_prior(self) -> None:
        model, x = ladder(), examples()
        q, prior = model.encode(x), model.prior()
        z = q.rsample()
        _, middle, top = z.split((4, 3, 2), -1)
        bottom_up = model.encoder(x)
        p_lowest, p_middle = (
            model.decoder.conditionals[0](middle),
            model.decoder.conditionals[1](top),
        )
        standard = diagonal_normal(torch.zeros(2).double(), torch.ones(2).double())
        levels = [
            gaussian_kl(merge(bottom_up[0], p_lowest), p_lowest),
            gaussian_kl(merge(bottom_up[1], p_middle), p_middle),
            gaussian_kl(bottom_up[2], standard),
        ]
        assert torch.allclose(kl_divergence(q, prior, z), sum(levels), rtol=1e-9)
        assert torch.allclose(q.level_kls, torch.stack(levels), rtol=1e-9)
        assert q.level_kls.shape == (3, 5)

    def test_is_the_mean_of_the_log_ratio(self) -> None:
        """Whatever it is made of, it must estimate E_q[log q − log p]."""
        q, prior = ladder().encode(examples()), ladder().prior()
        torch.manual_seed(0)
        with torch.no_grad():
            z = q.rsample((20_000,))
            ratio = q.log_prob(z) - prior.log_prob(z)
            rate = q.kl_divergence(prior, z)
        error = 5 * (ratio - rate).std(0) / 20_000**0.5
        assert ((ratio - rate).mean(0).abs() < error).all()
        assert (rate > 0).all()
        assert (rate.std(0) < ratio.std(0)).all()

    @pytest.mark.parametrize("by", [1.0, -1.0, 10.0])
    def test_moving_the_priors_mean_costs_what_the_closed_form_says(self, by: float) -> None:
        """A peer's KL went 0, -4, -400 as the mean went 0, 1, 10."""
        model = ladder()
        q, prior = model.encode(examples()), model.prior()
        z = q.rsample()
        before, after = q.kl_divergence(prior, z), q.kl_divergence(Shifted(prior, by), z)
        mine, theirs = q.levels(z)[0], prior.levels(z)[0]
        growth = (by**2 - 2 * by * (mine.mean - theirs.mean)) / (2 * theirs.variance)
        assert torch.allclose(after - before, growth.sum(-1), rtol=1e-9)
        if abs(by) == 10:
            assert (after > before).all()

    def test_is_zero_where_the_example_says_nothing(self) -> None:
        """A vague upward pass leaves the top-down prior as it is, whatever its mean."""
        model = ladder()
        prior = model.prior()
        vague = [
            diagonal_normal(torch.full((5, n), 3.0).double(), torch.full((5, n), 1e5).double())
            for n in (4, 3)
        ]
        top = diagonal_normal(torch.zeros(5, 2).double(), torch.ones(5, 2).double())
        q = LadderPosterior([*vague, top], prior)
        z = q.rsample()
        assert torch.allclose(q.kl_divergence(prior, z), torch.zeros(5).double(), atol=1e-6)

    def test_level_kls_are_of_the_last_draw(self) -> None:
        q = ladder().encode(examples())
        with pytest.raises(RuntimeError, match="rsample first"):
            _ = q.level_kls
        z = [q.rsample() for _ in range(2)][-1]
        assert torch.allclose(q.level_kls.sum(0), q.kl_divergence(q.prior, z))


class TestModel:
    def test_decoder_sees_the_lowest_level_alone(self) -> None:
        model = ladder()
        z = torch.randn(3, 9).double()
        other = torch.cat([z[:, :4], torch.randn(3, 5).double()], -1)
        assert model.decode(z).mean.equal(model.decode(other).mean)

    def test_one_level_is_a_vae(self) -> None:
        model, x = ladder((4,)), examples()
        q, prior = model.encode(x), model.prior()
        plain = model.encoder(x)[0]
        standard = diagonal_normal(torch.zeros(4).double(), torch.ones(4).double())
        z = q.rsample()
        assert torch.allclose(kl_divergence(q, prior, z), gaussian_kl(plain, standard))
        assert torch.allclose(q.log_prob(z), plain.log_prob(z))
        assert torch.allclose(prior.log_prob(z), standard.log_prob(z))

    def test_generation_is_trained_through_the_decoder_inference_through_the_encoder(self) -> None:
        names = {name.partition(".")[0] for name, _ in ladder().named_parameters()}
        assert names <= {"encoder", "decoder", "likelihood"}

    def test_a_level_of_no_size_is_refused(self) -> None:
        with pytest.raises(OptionError, match="upper: should be greater than or equal to 1"):
            create_model("ladder_vae", DATA, network="mlp", upper="8,0")
