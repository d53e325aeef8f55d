"""Relaxed categories: the temperature's course, the closed-form KL, the bound of the real model."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical
from torch.distributions import kl_divergence as kl_of_torch

import vaezoo
from vaezoo import Batch, DataSpec, EncoderDecoderVAE, StepContext
from vaezoo.errors import OptionError
from vaezoo.models.distributions import kl_divergence
from vaezoo_discrete.gumbel import GumbelBottleneck, RelaxedCategories

VARIABLES, CLASSES = 2, 3
CONTEXT = StepContext(torch.tensor(0), 100, 16)


def model(shape: tuple[int, ...] = (6,), **options: Any) -> EncoderDecoderVAE:
    torch.manual_seed(0)
    small = {"latent_dim": VARIABLES, "classes": CLASSES, "network": "mlp", "hidden": (16,)}
    data = DataSpec(shape=shape, domain="binary")
    made = vaezoo.create_model("gumbel_vae", data=data, **small | options)
    assert isinstance(made.bottleneck, GumbelBottleneck)
    return made


def examples(n: int = 5, shape: tuple[int, ...] = (6,)) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(1)).round()


def logits(n: int = 4, scale: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return scale * torch.randn(n, VARIABLES, CLASSES, generator=generator)


def temperatures(gumbel: EncoderDecoderVAE, steps: int) -> list[float]:
    seen = []
    for step in range(steps):
        gumbel.on_train_step(torch.tensor(step))
        seen.append(gumbel.bottleneck.temperature.item())
    return seen


class TestTemperature:
    def test_falls_exponentially_to_its_minimum_and_stays(self) -> None:
        gumbel = model(temperature=2.0, min_temperature=0.5, anneal_steps=10)
        seen = temperatures(gumbel, 15)
        expected = [max(0.5, 2.0 * 4 ** (-step / 10)) for step in range(15)]
        assert seen == pytest.approx(expected, rel=1e-5)
        assert seen[10:] == [0.5] * 5

    def test_moves_with_the_defaults(self) -> None:
        """In a peer the minimum is the first temperature, and annealing never moves."""
        options = model().bottleneck.options
        assert options.min_temperature < options.temperature
        seen = temperatures(model(anneal_steps=5), 6)
        assert seen[0] == options.temperature
        assert seen[-1] == options.min_temperature

    def test_does_not_move_in_evaluation(self) -> None:
        gumbel, x = model(), examples()
        gumbel.on_train_step(torch.tensor(500))
        before = gumbel.bottleneck.temperature.clone()
        assert gumbel.loss is not None
        gumbel.eval()
        for _ in range(3):
            gumbel.loss(gumbel, Batch(x), CONTEXT)
            gumbel.log_likelihood(x, samples=3)
            gumbel.sample(2)
            gumbel.reconstruct(x)
        assert gumbel.bottleneck.temperature.equal(before)

    def test_that_rises_is_refused(self) -> None:
        with pytest.raises(OptionError, match=r"min_temperature 0\.5 is above temp"):
            model(temperature=0.3)

    def test_is_saved_with_the_weights(self) -> None:
        gumbel, again = model(), model()
        gumbel.on_train_step(torch.tensor(1000))
        again.load_state_dict(gumbel.state_dict())
        assert again.bottleneck.temperature.equal(gumbel.bottleneck.temperature)
        assert again.bottleneck.temperature < again.bottleneck.options.temperature


class TestKL:
    def test_is_the_sum_over_classes(self) -> None:
        q, p = RelaxedCategories(logits(), torch.tensor(0.7)), model().prior()
        rate = kl_divergence(q, p, q.rsample())
        probs = logits().softmax(2)
        for n in range(4):
            by_hand = sum(
                probs[n, v, c].item() * math.log(probs[n, v, c].item() * CLASSES)
                for v in range(VARIABLES)
                for c in range(CLASSES)
            )
            assert rate[n].item() == pytest.approx(by_hand, abs=1e-5)

    def test_is_the_same_in_training_and_evaluation(self) -> None:
        gumbel, x = model(), examples()
        relaxed, prior = gumbel.encode(x), gumbel.prior()
        training = kl_divergence(relaxed, prior, relaxed.rsample())
        gumbel.eval()
        hard, prior = gumbel.encode(x), gumbel.prior()
        assert torch.allclose(training, kl_divergence(hard, prior, hard.rsample()), atol=1e-6)

    def test_is_the_one_of_torch(self) -> None:
        q, p = RelaxedCategories(logits(), torch.tensor(0.7)), model().prior()
        uniform = Categorical(logits=torch.zeros(CLASSES))
        expected = kl_of_torch(Categorical(logits=logits()), uniform).sum(1)
        assert torch.allclose(kl_divergence(q, p, q.mean), expected, atol=1e-6)

    def test_runs_from_nothing_to_all_that_a_code_can_say(self) -> None:
        p, most = model().prior(), VARIABLES * math.log(CLASSES)
        even = RelaxedCategories(torch.zeros(1, VARIABLES, CLASSES), torch.tensor(1.0))
        sure = RelaxedCategories(1e3 * torch.eye(CLASSES)[None, :VARIABLES], torch.tensor(1.0))
        assert kl_divergence(even, p, even.mean).abs().max() < 1e-6
        assert kl_divergence(sure, p, sure.mean).item() == pytest.approx(most, abs=1e-5)

    def test_at_a_sample_is_what_it_is_on_average(self) -> None:
        """In evaluation the closed form and the densities that importance weights use agree."""
        gumbel, x = model().eval(), examples()
        q, p = gumbel.encode(x), gumbel.prior()
        z = q.rsample(torch.Size((20_000,)))
        ratio = q.log_prob(z) - p.log_prob(z)
        error = 5 * ratio.std(0) / math.sqrt(20_000) + 1e-5
        assert ((ratio.mean(0) - kl_divergence(q, p, z[0])).abs() < error).all()


class TestSamples:
    @pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
    def test_are_on_the_simplex(self, temperature: float) -> None:
        z = RelaxedCategories(logits(), torch.tensor(temperature)).rsample(torch.Size((100,)))
        assert z.shape == (100, 4, VARIABLES, CLASSES)
        assert (z >= 0).all()
        assert torch.allclose(z.sum(-1), torch.ones(100, 4, VARIABLES), atol=1e-5)

    @pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
    def test_largest_follows_the_probabilities(self, temperature: float) -> None:
        """Proposition 1b of Maddison et al. (2016), at any temperature."""
        torch.manual_seed(0)
        z = RelaxedCategories(logits(), torch.tensor(temperature)).rsample(torch.Size((20_000,)))
        share = torch.nn.functional.one_hot(z.argmax(-1), CLASSES).float().mean(0)
        assert torch.allclose(share, logits().softmax(2), atol=0.02)

    def test_tend_to_one_hot_as_the_temperature_falls(self) -> None:
        """Proposition 1c."""
        torch.manual_seed(0)
        largest = [
            RelaxedCategories(logits(), torch.tensor(t)).rsample(torch.Size((500,))).amax(-1).mean()
            for t in (5.0, 1.0, 0.2, 0.001)
        ]
        assert largest == sorted(largest)
        assert largest[0] < 0.6
        assert largest[-1] > 0.999

    def test_carry_gradients_in_training(self) -> None:
        gumbel, x = model(), examples()
        assert gumbel.loss is not None
        gumbel.loss(gumbel, Batch(x), CONTEXT).loss.backward()
        last = gumbel.encoder[-1].weight
        assert last.grad is not None
        rate = kl_divergence(gumbel.encode(x), gumbel.prior(), gumbel.prior().sample())
        (of_rate,) = torch.autograd.grad(rate.mean(), last)
        assert not torch.allclose(last.grad, of_rate)  # the distortion's came through the sample

    def test_are_one_hot_in_evaluation(self) -> None:
        gumbel = model().eval()
        for z in (
            gumbel.encode(examples()).rsample(torch.Size((50,))),
            gumbel.prior().sample(torch.Size((50,))),
        ):
            assert set(z.unique().tolist()) == {0.0, 1.0}
            assert (z.sum(-1) == 1).all()

    def test_of_the_prior_use_all_classes_alike(self) -> None:
        torch.manual_seed(0)
        share = model().eval().prior().sample(torch.Size((9000,))).mean(0)
        assert torch.allclose(share, torch.full((VARIABLES, CLASSES), 1 / 3), atol=0.02)
        assert model().eval().sample(7).shape == (7, 6)


class TestRelaxedDensity:
    def test_is_equation_10(self) -> None:
        temperature = 0.7
        q = RelaxedCategories(logits(), torch.tensor(temperature))
        z = q.rsample()
        log_p = q.log_prob(z)
        for n in range(4):
            by_hand = 0.0
            for v in range(VARIABLES):
                alpha, at = logits()[n, v].exp().tolist(), z[n, v].tolist()
                top = math.factorial(CLASSES - 1) * temperature ** (CLASSES - 1)
                weights = [a * x**-temperature for a, x in zip(alpha, at, strict=True)]
                tops = [a * x ** (-temperature - 1) for a, x in zip(alpha, at, strict=True)]
                by_hand += math.log(top * math.prod(tops) / sum(weights) ** CLASSES)
            assert log_p[n].item() == pytest.approx(by_hand, abs=1e-3)

    def test_integrates_to_one(self) -> None:
        q = RelaxedCategories(torch.tensor([[0.3, -0.8]]).double(), torch.tensor(0.8).double())
        first = torch.linspace(0, 1, 200_001).double()[1:-1]
        z = torch.stack([first, 1 - first], 1)[:, None]
        assert q.log_prob(z).exp().mean().item() == pytest.approx(1, abs=1e-2)

    def test_is_finite_where_a_coordinate_rounds_to_zero(self) -> None:
        q = RelaxedCategories(logits(scale=300.0), torch.tensor(0.5))
        z = q.rsample()
        assert (z == 0).any()
        assert q.log_prob(z).isfinite().all()

    def test_gives_weights_to_train_by(self) -> None:
        weights = model().log_importance_weights(examples(), samples=4)
        assert weights.shape == (4, 5)
        assert weights.isfinite().all()
        assert weights.requires_grad


class TestBound:
    """In evaluation, against log p(x) by the sum over all nine codes."""

    def exact(self, gumbel: EncoderDecoderVAE, x: Tensor) -> Tensor:
        eye = torch.eye(CLASSES)
        pairs = itertools.product(range(CLASSES), repeat=VARIABLES)
        every = torch.stack([eye[list(pair)] for pair in pairs])
        log_p = torch.stack(
            [gumbel.decode(z[None].expand(len(x), -1, -1)).log_prob(x) for z in every]
        )
        return log_p.logsumexp(0) - math.log(len(every))

    def test_importance_weights_come_to_log_p(self) -> None:
        gumbel, x = model().eval(), examples()
        torch.manual_seed(0)
        estimate = gumbel.log_likelihood(x, samples=5000)
        assert torch.allclose(estimate, self.exact(gumbel, x), atol=0.02)

    def test_reported_elbo_is_below_log_p(self) -> None:
        gumbel, x = model().eval(), examples(1)
        exact = self.exact(gumbel, x)
        many = x.expand(20_000, -1)
        assert gumbel.loss is not None
        torch.manual_seed(0)
        elbo = gumbel.loss(gumbel, Batch(many), CONTEXT).terms["elbo"]
        assert elbo.mean() < exact
        # The gap is the KL to the true posterior over codes, which the sum knows as well.
        q = gumbel.encode(x)
        weights = gumbel.log_importance_weights(x, samples=20_000)
        assert elbo.mean().item() == pytest.approx(weights.mean().item(), abs=0.05)
        assert exact.item() - elbo.mean().item() < 5
        assert q.mean.shape == (1, VARIABLES, CLASSES)


@pytest.mark.parametrize("network", ["conv", "resnet", "mlp", "gated_mlp"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 20)])
def test_networks_and_images(network: str, shape: tuple[int, ...]) -> None:
    gumbel = model(shape, network=network, hidden=(6, 8))
    x = examples(3, shape)
    assert gumbel.loss is not None
    gumbel.loss(gumbel, Batch(x), CONTEXT).loss.backward()
    gumbel.eval()
    assert gumbel.loss(gumbel, Batch(x[:1]), CONTEXT).terms["elbo"].shape == (1,)
    assert gumbel.sample(2).shape == (2, *shape)
    assert gumbel.reconstruct(x).shape == x.shape


def test_terms_are_the_same_at_any_batch_size(
    assert_terms_per_example: Callable[..., None],
) -> None:
    """With certain codes there is no noise, and a term may not depend on its batch."""
    gumbel, x = model().eval(), examples(64)
    with torch.no_grad():
        gumbel.encoder[-1].weight.mul_(1e4)
    assert gumbel.loss is not None
    loss = functools.partial(gumbel.loss, gumbel, context=CONTEXT)
    names = list(loss(Batch(x)).terms)
    assert_terms_per_example(lambda part: loss(Batch(part)), x, names, atol=1e-4)
