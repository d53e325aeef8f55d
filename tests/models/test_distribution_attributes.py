"""docs/distributions.md: each attribute is removed, and the effect is what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution

from vaezoo import BaseVAE, Batch, DataSpec, Options, StepContext
from vaezoo.errors import OptionError
from vaezoo.evaluation.latents import latent_kls, prior_mean, prior_quantiles
from vaezoo.evaluation.metric import EvalContext, MetricUnavailable
from vaezoo.models.distributions import (
    BaseDistribution,
    diagonal_normal,
    independent,
    kl_divergence,
    project_to_prior,
    sample_prior,
)
from vaezoo_metrics.codes import CodeCounts
from vaezoo_objectives.aggregate import pairwise_log_prob
from vaezoo_objectives.dip_vae import DIPVAELoss
from vaezoo_objectives.options import DIPVAEOptions

PAGE = Path(__file__).parents[2] / "docs" / "distributions.md"
N = 3


def standard(shape: Any) -> Tensor:
    return torch.randn(*shape, N)


POSTERIOR: dict[str, Any] = {
    "rsample": lambda self, shape=(): 0.5 + standard((*shape, *self.batch_shape)),
    "log_prob": lambda self, z: -0.5 * z.square().sum(-1),
    "mode": property(lambda self: torch.full((*self.batch_shape, N), 7.0)),
    "mean": property(lambda self: torch.full((*self.batch_shape, N), 5.0)),
    "variance": property(lambda self: torch.full((*self.batch_shape, N), 2.0)),
    "covariance_matrix": property(lambda self: 2 * torch.eye(N).expand(*self.batch_shape, N, N)),
    "kl_divergence": lambda self, prior, z: torch.full(self.batch_shape, 11.0),
    "indices": property(lambda self: torch.zeros(*self.batch_shape, 2, dtype=torch.long)),
    "num_codes": 4,
}
PRIOR: dict[str, Any] = {
    "sample": lambda self, shape=(): standard((*shape, *self.batch_shape)),
    "log_prob": lambda self, z: -0.5 * z.square().sum(-1),
    "with_temperature": lambda self, t: diagonal_normal(9 * torch.ones(N), 1e-6 * torch.ones(N)),
    "mean": property(lambda self: torch.full((N,), 3.0)),
    "icdf": lambda self, levels: levels.expand(-1, N) + 100,
    "project": lambda self, z: z / z.norm(dim=-1, keepdim=True),
}


def posterior(*removed: str, batch: int = 4) -> Distribution:
    kept = {name: value for name, value in POSTERIOR.items() if name not in removed}
    return type("Posterior", (BaseDistribution,), kept)((batch,), (N,))


def prior(*removed: str) -> Distribution:
    kept = {name: value for name, value in PRIOR.items() if name not in removed}
    return type("Prior", (BaseDistribution,), kept)((), (N,))


class Toy(BaseVAE):
    """The posterior and the prior that it is given; it decodes a latent to itself."""

    def __init__(self, q: Distribution, p: Distribution) -> None:
        super().__init__(Options(), DataSpec(shape=(N,), domain="real"))
        self.latent_shape = (N,)
        self.q, self.p = q, p

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return self.q

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return diagonal_normal(z, torch.ones_like(z))

    def prior(self, y: Tensor | None = None) -> Distribution:
        return self.p


X = torch.zeros(4, N)
BATCH, CONTEXT = Batch(X), StepContext(torch.tensor(0), 10, 100)


def toy(*removed: str, of_prior: tuple[str, ...] = ()) -> Toy:
    return Toy(posterior(*removed), prior(*of_prior))


def dip(model: BaseVAE, dip_type: Any = "ii") -> Tensor:
    options = DIPVAEOptions(dip_type=dip_type)
    return DIPVAELoss(options, model, model.data)(model, BATCH, CONTEXT).loss


def code_use(q: Distribution) -> float | None:
    class Seen:
        posterior = q

    context: EvalContext = None  # type: ignore[assignment]
    counts = CodeCounts(context)
    counts.update(Seen())  # type: ignore[arg-type]
    return counts.code_use().value


def refused(call: Any) -> str:
    with pytest.raises(OptionError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestPosterior:
    def test_rsample(self) -> None:
        assert toy()(X).z.shape == (4, N)
        with pytest.raises(NotImplementedError):
            toy("rsample")(X)

    def test_log_prob(self) -> None:
        assert toy().log_importance_weights(X, samples=2).shape == (2, 4)
        with pytest.raises(NotImplementedError):
            toy("log_prob").log_importance_weights(X, samples=2)
        toy("log_prob")(X)  # the KL of its own needs no density
        z = toy()(X).z
        assert kl_divergence(posterior("log_prob"), prior(), z).equal(torch.full((4,), 11.0))

    def test_mode(self) -> None:
        assert toy().reconstruct(X).equal(torch.full((4, N), 7.0))
        assert toy("mode").reconstruct(X).equal(torch.full((4, N), 5.0))

    def test_mean(self) -> None:
        assert toy("mean").reconstruct(X).equal(torch.full((4, N), 7.0))
        neither = toy("mean", "mode")
        assert not neither.reconstruct(X).equal(neither.reconstruct(X))
        assert dip(toy(), "i").isfinite()
        assert "mean" in refused(lambda: dip(toy("mean"), "i"))

    def test_variance(self) -> None:
        class Part(torch.distributions.Laplace):
            @property
            def variance(self) -> Tensor:
                raise NotImplementedError

        for part, known in ((torch.distributions.Laplace, True), (Part, False)):
            model = Toy(independent(part(torch.zeros(4, N), torch.ones(4, N))), prior())
            if known:
                assert dip(model).isfinite()
            else:
                assert "covariance" in refused(lambda m=model: dip(m))

    def test_covariance_matrix(self) -> None:
        assert dip(toy()).isfinite()
        assert "covariance" in refused(lambda: dip(toy("covariance_matrix")))
        assert dip(toy("covariance_matrix"), "i").isfinite()

    def test_kl_divergence(self) -> None:
        z = toy()(X).z
        assert kl_divergence(posterior(), prior(), z).equal(torch.full((4,), 11.0))
        q, p = posterior("kl_divergence"), prior()
        assert kl_divergence(q, p, z).equal(q.log_prob(z) - p.log_prob(z))

    @pytest.mark.parametrize("name", ["indices", "num_codes"])
    def test_codes(self, name: str) -> None:
        assert code_use(posterior()) == 0.25
        with pytest.raises(MetricUnavailable, match="no codes"):
            code_use(posterior(name))

    def test_a_sampler_is_fitted_to_indices_or_to_latents(self) -> None:
        class Recorder:
            def fit(self, latents: Tensor, y: Tensor | None) -> None:
                self.shape = tuple(latents.shape)

        for removed, shape in (((), (4, 2)), (("indices",), (4, N))):
            model, recorder = toy(*removed), Recorder()
            model.sampler = recorder  # type: ignore[assignment]
            model.fit_sampler([BATCH])
            assert recorder.shape == shape

    def test_base_dist(self) -> None:
        z, p = torch.zeros(4, N), diagonal_normal(torch.zeros(N), torch.ones(N))
        q = diagonal_normal(torch.ones(4, N), torch.ones(4, N))
        each = latent_kls(q, p)
        assert each is not None
        assert each.equal(torch.full((4, N), 0.5))
        assert pairwise_log_prob(q, z).shape == (4, 4, N)
        assert latent_kls(posterior("kl_divergence"), p) is None
        assert "independent latents" in refused(lambda: pairwise_log_prob(posterior(), z))


class TestPrior:
    def test_sample(self) -> None:
        assert toy().sample(5).shape == (5, N)
        with pytest.raises(NotImplementedError):
            toy(of_prior=("sample",)).sample(5)

    def test_log_prob(self) -> None:
        with pytest.raises(NotImplementedError):
            toy(of_prior=("log_prob",)).log_importance_weights(X, samples=2)

    def test_with_temperature(self) -> None:
        assert torch.allclose(sample_prior(prior(), 5, 0.5), torch.full((5, N), 9.0), atol=1e-3)
        torch.manual_seed(0)
        found = sample_prior(prior("with_temperature"), 5, 0.5)
        torch.manual_seed(0)
        assert torch.allclose(found, 3.0 + 0.5 * (torch.randn(5, N) - 3.0))

    def test_mean(self) -> None:
        without = ("mean", "with_temperature")
        assert "--temperature 0.5" in refused(lambda: sample_prior(prior(*without), 5, 0.5))
        fixed, drawn = (toy(of_prior=names) for names in (("with_temperature",), without))
        assert prior_mean(fixed).equal(torch.full((1, N), 3.0))
        assert not prior_mean(drawn).equal(torch.full((1, N), 3.0))
        assert prior_mean(drawn).shape == (1, N)

    def test_icdf(self) -> None:
        levels = torch.tensor([0.25, 0.75])
        assert prior_quantiles(toy(), levels).equal(levels[:, None].expand(2, N) + 100)
        expected = torch.distributions.Normal(0.0, 1.0).icdf(levels)[:, None].expand(2, N)
        found = prior_quantiles(toy(of_prior=("icdf",)), levels)
        assert torch.allclose(found, expected, atol=0.15)

    def test_project(self) -> None:
        z = 5 * torch.ones(2, N)
        assert torch.allclose(project_to_prior(prior(), z).norm(dim=-1), torch.ones(2))
        assert project_to_prior(prior("project"), z).equal(z)


def test_the_page_lists_what_is_removed_here() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for heading, known in (("posterior", {*POSTERIOR, "base_dist"}), ("prior", {*PRIOR})):
        section = text.split(f"## The {heading}\n")[1].split("\n## ")[0]
        assert set(re.findall(r"^\| `(\w+)` \|", section, flags=re.M)) == known
