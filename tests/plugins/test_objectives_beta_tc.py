"""Tests of beta-TCVAE: the parts of the KL against exact mixtures, and unbiased estimates."""

from __future__ import annotations

import itertools
import math
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.distributions import (
    Categorical,
    Distribution,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)

import vaezoo
from small_models import images, run_loss, small_model
from vaezoo.errors import OptionError
from vaezoo.models.distributions import diagonal_normal, kl_divergence
from vaezoo_objectives.aggregate import decompose, importance_weights, pairwise_log_prob

EXAMPLES = 1000


def posteriors(n: int, latents: int, spread: float = 1.0) -> Distribution:
    """n Gaussians whose latents are correlated over the data and have a mean other than 0."""
    generator = torch.Generator().manual_seed(n)
    common = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    own = torch.randn(n, latents, generator=generator, dtype=torch.float64)
    scale = 0.3 + torch.rand(n, latents, generator=generator, dtype=torch.float64)
    return diagonal_normal(spread * (common + 0.5 * own) + 0.7, scale)


def standard(latents: int) -> Distribution:
    zeros = torch.zeros(latents, dtype=torch.float64)
    return diagonal_normal(zeros, torch.ones_like(zeros))


def mixture(q: Distribution) -> Distribution:
    """The exact aggregate posterior of the examples behind q."""
    return MixtureSameFamily(Categorical(torch.ones(len(q.mean)).double()), q)


def marginal(q: Distribution, latent: int) -> Distribution:
    of_one = Normal(q.mean[:, latent], q.stddev[:, latent])
    return MixtureSameFamily(Categorical(torch.ones(len(q.mean)).double()), of_one)


model = partial(small_model, "beta_tc")
run = partial(run_loss, examples=EXAMPLES)


class TestExactMixture:
    """A batch of the whole data set leaves nothing to estimate."""

    def parts(self, q: Distribution, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n, latents = q.mean.shape
        prior = standard(latents).log_prob(z)
        return decompose(pairwise_log_prob(q, z), importance_weights("stratified", n, n), prior)

    def test_each_part_is_that_of_the_mixture(self) -> None:
        q = posteriors(7, 3)
        z = q.rsample()
        information, correlation, dimensions = self.parts(q, z)
        joint = mixture(q).log_prob(z)
        marginals = torch.stack([marginal(q, d).log_prob(z[:, d]) for d in range(3)])
        assert torch.allclose(information, q.log_prob(z) - joint, rtol=0, atol=1e-9)
        assert torch.allclose(correlation, joint - marginals.sum(0), rtol=0, atol=1e-9)
        by_hand = marginals.sum(0) - standard(3).log_prob(z)
        assert torch.allclose(dimensions, by_hand, rtol=0, atol=1e-9)

    def test_the_parts_add_up_to_the_kl(self) -> None:
        """On average over many samples: the identity of Chen et al. 2018, equation 2."""
        q = posteriors(7, 3)
        draws = [self.parts(q, q.rsample()) for _ in range(2000)]
        sums = torch.stack([torch.stack(parts).sum(0) for parts in draws]).mean(1)
        exact = kl_divergence(q, standard(3), q.mean).mean()
        error = sums.std() / math.sqrt(len(sums))
        assert (sums.mean() - exact).abs() < 4 * error
        assert error < 0.02 * exact

    def test_information_is_nothing_when_all_are_one_and_log_n_when_far_apart(self) -> None:
        same = diagonal_normal(torch.ones(7, 3).double(), torch.ones(7, 3).double())
        information = self.parts(same, same.rsample())[0]
        assert torch.allclose(information, torch.zeros(7).double(), atol=1e-9)
        far = diagonal_normal(100.0 * torch.arange(7.0).double()[:, None].expand(7, 3), same.stddev)
        information = self.parts(far, far.rsample())[0]
        assert torch.allclose(information, torch.full((7,), math.log(7)).double(), atol=1e-9)

    def test_total_correlation_of_a_known_gaussian(self) -> None:
        """Means from a correlated Gaussian and equal noise: the aggregate is Gaussian as well."""
        of_means = torch.tensor([[2.0, 1.2, 0.0], [1.2, 1.0, 0.0], [0.0, 0.0, 0.5]]).double()
        torch.manual_seed(0)
        means = MultivariateNormal(torch.zeros(3).double(), of_means).sample((1500,))
        q = diagonal_normal(means, torch.full_like(means, 0.6))
        covariance = of_means + 0.36 * torch.eye(3)
        exact = 0.5 * (covariance.diagonal().log().sum() - covariance.logdet())
        correlation = self.parts(q, q.rsample())[1]
        assert exact > 0.25
        # A finite mixture is a little more than the Gaussian that it is drawn from.
        assert correlation.mean().item() == pytest.approx(float(exact), abs=0.06)

    def test_independent_latents_have_none(self) -> None:
        torch.manual_seed(0)
        means = torch.randn(1500, 2, dtype=torch.float64)
        q = diagonal_normal(means, torch.full_like(means, 0.6))
        assert self.parts(q, q.rsample())[1].mean().abs() < 0.04


class TestEstimates:
    @pytest.mark.parametrize(("batch", "examples"), [(1, 9), (2, 9), (4, 9), (9, 9), (64, 50_000)])
    def test_stratified_weights_add_up_to_one(self, batch: int, examples: int) -> None:
        own, other = importance_weights("stratified", batch, examples)
        assert own + (batch - 1) * other == pytest.approx(1.0, abs=1e-12)
        assert own == pytest.approx(1 / examples) or batch == 1

    @pytest.mark.parametrize("batch", [2, 3, 5])
    def test_stratified_is_unbiased(self, batch: int) -> None:
        """Over all batches with an example, the mean estimate at its sample is q(z) exactly.

        Weights in a column, a wrong N, or a weight that counts more than once all break this.
        """
        examples, latents = 6, 3
        q = posteriors(examples, latents)
        torch.manual_seed(0)
        z = q.rsample()
        pairs = pairwise_log_prob(q, z)
        prior = torch.zeros(batch, dtype=torch.float64)
        joints: list[list[Tensor]] = [[] for _ in range(examples)]
        of_first: list[list[Tensor]] = [[] for _ in range(examples)]
        for chosen in itertools.combinations(range(examples), batch):
            index = torch.tensor(chosen)
            weights = importance_weights("stratified", batch, examples)
            of_batch = pairs[index][:, index]
            joint = q.log_prob(z)[index] - decompose(of_batch, weights, prior).mutual_information
            # With one latent alone, the product of the marginals is its density.
            first = decompose(of_batch[:, :, :1], weights, prior).dimension_kl
            for row, example in enumerate(chosen):
                joints[example].append(joint[row].exp())
                of_first[example].append(first[row].exp())
        mean_joint = torch.stack([torch.stack(values).mean() for values in joints])
        mean_first = torch.stack([torch.stack(values).mean() for values in of_first])
        assert torch.allclose(mean_joint, mixture(q).log_prob(z).exp(), rtol=1e-9)
        assert torch.allclose(mean_first, marginal(q, 0).log_prob(z[:, 0]).exp(), rtol=1e-9)

    def test_weighted_is_the_papers_formula(self) -> None:
        """Chen et al. 2018, equation 3, as a double loop."""
        q = posteriors(5, 2)
        z = q.rsample()
        pairs = pairwise_log_prob(q, z)
        parts = decompose(pairs, importance_weights("weighted", 5, 80), z.new_zeros(5))
        for i in range(5):
            joint, marginals = 0.0, [0.0, 0.0]
            for j in range(5):
                logs = [
                    float(Normal(q.mean[j, d], q.stddev[j, d]).log_prob(z[i, d])) for d in (0, 1)
                ]
                joint += math.exp(sum(logs)) / (80 * 5)
                marginals = [
                    m + math.exp(log) / (80 * 5) for m, log in zip(marginals, logs, strict=True)
                ]
            both = math.log(marginals[0]) + math.log(marginals[1])
            assert float(parts.dimension_kl[i]) == pytest.approx(both)
            assert float(parts.total_correlation[i]) == pytest.approx(math.log(joint) - both)

    def test_weighted_is_below_in_the_mean(self) -> None:
        examples, batch = 6, 3
        q = posteriors(examples, 2)
        z = q.rsample()
        pairs, below = pairwise_log_prob(q, z), []
        for chosen in itertools.product(range(examples), repeat=batch):
            index = torch.tensor(chosen)
            weights = importance_weights("weighted", batch, examples)
            parts = decompose(pairs[index][:, index], weights, z.new_zeros(batch))
            below.append((q.log_prob(z)[index] - parts.mutual_information)[0])
        assert torch.stack(below).mean() < mixture(q).log_prob(z).mean()

    @pytest.mark.parametrize("estimator", ["stratified", "weighted"])
    def test_a_batch_of_one_is_finite(self, estimator: str) -> None:
        vae = model(estimator=estimator)
        objective, terms = run(vae, images(1))
        objective.backward()
        assert all(value.isfinite().all() for value in terms.values())
        assert all(
            p.grad is not None and p.grad.isfinite().all()
            for p in vae.parameters()
            if p.numel() > 1
        )

    def test_a_batch_of_one_sees_the_kl_and_no_correlation(self) -> None:
        terms = run(model(), images(1)).terms
        assert terms["mutual_information"].item() == pytest.approx(0.0, abs=1e-12)
        assert terms["total_correlation"].item() == pytest.approx(0.0, abs=1e-12)

    def test_spatial_latents_are_so_many_latents(self) -> None:
        flat = posteriors(5, 12)
        spatial = diagonal_normal(flat.mean.view(5, 3, 2, 2), flat.stddev.view(5, 3, 2, 2), 3)
        z = flat.rsample()
        pairs = pairwise_log_prob(spatial, z.view(5, 3, 2, 2))
        assert pairs.equal(pairwise_log_prob(flat, z))
        assert pairs[1, 3, 4].equal(Normal(flat.mean[3, 4], flat.stddev[3, 4]).log_prob(z[1, 4]))


class TestObjective:
    def test_with_all_weights_one_is_the_elbo(self) -> None:
        x = images()
        ours = run(model(beta=1.0), x).loss
        torch.manual_seed(0)
        plain = vaezoo.create_model("vanilla", (1, 8, 8), network="mlp", hidden=(16,), latent_dim=3)
        assert torch.allclose(ours, run(plain.double(), x).loss, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("name", ["mutual_information", "total_correlation", "dimension_kl"])
    def test_each_weight_weighs_its_own_part(self, name: str) -> None:
        flag = {"mutual_information": "alpha", "total_correlation": "beta", "dimension_kl": "gamma"}
        weights = {"alpha": 1.0, "beta": 1.0, "gamma": 1.0, flag[name]: 4.0}
        objective, terms = run(model(**weights), images())
        expected = (terms["distortion"] + terms["rate"] + 3.0 * terms[name]).mean()
        assert torch.allclose(objective, expected, rtol=0, atol=1e-10)

    def test_gradient_is_that_of_the_weighted_parts(self) -> None:
        vae = model(alpha=0.5, beta=3.0, gamma=2.0)
        encoder = list(vae.encoder.parameters())
        objective, terms = run(vae, images())
        ours = torch.autograd.grad(objective, encoder, retain_graph=True)
        sums = {"distortion": 1.0, "rate": 1.0, "mutual_information": -0.5}
        sums |= {"total_correlation": 2.0, "dimension_kl": 1.0}
        weighed = sum(weight * terms[name].mean() for name, weight in sums.items())
        for mine, by_hand in zip(ours, torch.autograd.grad(weighed, encoder), strict=True):
            assert torch.allclose(mine, by_hand, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("examples", [8, 1000, 50_000])
    def test_n_is_the_number_of_training_examples(self, examples: int) -> None:
        """Equal to a double loop over the batch, with N from the context only."""
        vae, x = model(), images()
        terms = run(vae, x, examples=examples).terms
        torch.manual_seed(1)
        q, z, _, _ = vae(x)
        for i in range(8):
            density = 0.0
            for j in range(8):
                weight = 1 / examples if i == j else (examples - 1) / (examples * 7)
                one = Normal(q.mean[j], q.stddev[j]).log_prob(z[i]).sum()
                density += weight * one.exp().item()
            information = q.log_prob(z)[i].item() - math.log(density)
            assert float(terms["mutual_information"][i]) == pytest.approx(information, abs=1e-9)

    def test_elbo_knows_no_weights(self) -> None:
        one, other = run(model(beta=1.0), images()).terms, run(model(beta=9.0), images()).terms
        for name in ("elbo", "rate", "distortion"):
            assert one[name].equal(other[name])
        assert torch.allclose(one["elbo"], -one["rate"] - one["distortion"])

    def test_dependent_latents_are_refused_in_a_line(self) -> None:
        vae = model()

        def encode(x: Tensor, y: Tensor | None = None) -> Distribution:
            return MultivariateNormal(torch.zeros(len(x), 3).double(), torch.eye(3).double())

        vae.encode = encode
        with pytest.raises(OptionError, match="independent latents") as caught:
            run(vae, images())
        assert "\n" not in str(caught.value)
