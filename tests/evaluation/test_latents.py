"""What latents hold, by models of which it is known."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, MixtureSameFamily
from torch.nn import functional as F

import vaezoo
from vaezoo import BaseVAE, DataSpec, Options, TensorSplit
from vaezoo.data.loader import BatchLoader
from vaezoo.errors import OptionError
from vaezoo.evaluation import evaluate, findings, latents, metric
from vaezoo.evaluation.latents import (
    LatentStats,
    interpolate,
    latent_statistics,
    prior_quantiles,
    traverse,
)
from vaezoo.models.distributions import diagonal_normal
from vaezoo.models.likelihoods import GaussianLikelihood

CPU = torch.device("cpu")


class Dials(BaseVAE):
    """A 1×2×2 image is its first three latents and a zero; the fourth latent is not looked at.

    q(z|x) = N(size · x, 1/4), so that the KL of each latent is known.
    """

    def __init__(self, sizes: tuple[float, ...] = (0.1, 3.0, 1.0, 2.0)) -> None:
        super().__init__(Options(), DataSpec(shape=(1, 2, 2), domain="real"))
        self.latent_shape = (4,)
        self.sizes = torch.tensor(sizes)
        self.likelihood = GaussianLikelihood(
            DataSpec(shape=self.data.shape, domain="real"), 1.0, learned=False
        )

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        mean = self.sizes * x.flatten(1)
        return diagonal_normal(mean, torch.full_like(mean, 0.5))

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        seen = torch.cat([z[:, :3], torch.zeros_like(z[:, :1])], 1)
        return self.likelihood(seen.view(-1, 1, 2, 2))


class Mixed(Dials):
    """Its prior has half of its mass around -5 and half around 5."""

    def prior(self, y: Tensor | None = None) -> Distribution:
        places = torch.tensor([-5.0, 5.0])[:, None].expand(2, 4)
        parts = diagonal_normal(places, torch.full((2, 4), 0.1))
        return MixtureSameFamily(Categorical(torch.ones(2)), parts)


def batches(n: int = 400) -> BatchLoader:
    x = torch.randn(n, 1, 2, 2, generator=torch.Generator().manual_seed(3))
    return BatchLoader(TensorSplit(x), batch_size=64, device=CPU)


def test_what_was_found_cannot_be_changed() -> None:
    modules = (latents, evaluate, findings, metric)
    parts = [kind for module in modules for kind in vars(module).values()]
    kinds = [kind for kind in parts if dataclasses.is_dataclass(kind) and isinstance(kind, type)]
    assert len(kinds) >= 8
    for kind in kinds:
        assert kind.__dataclass_params__.frozen, kind


def test_the_survey_by_the_closed_form() -> None:
    model, data = Dials(), batches()
    found = latent_statistics(model, data, examples=10_000)
    x = data.batch(torch.arange(400)).x.flatten(1)
    kl = 0.5 * ((model.sizes * x).square() + 0.25 - 1 - math.log(0.25)).mean(0)
    assert found.kl is not None
    torch.testing.assert_close(found.kl.float(), kl)
    torch.testing.assert_close(found.points, model.sizes * x)
    assert found.ranked() == [1, 3, 2, 0]
    assert found.order == "kl"
    assert latent_statistics(Mixed(), data).order == "std"
    assert latent_statistics(Mixed(), data).ranked() == [1, 3, 2, 0]


def test_a_survey_of_few_is_spread_over_the_split() -> None:
    assert latent_statistics(Dials(), batches(), examples=3).index.tolist() == [0, 200, 399]


def test_quantiles_are_the_priors() -> None:
    shares = torch.tensor([0.1, 0.5, 0.9])
    exact = torch.distributions.Normal(0.0, 1.0).icdf(shares)
    torch.testing.assert_close(prior_quantiles(Dials(), shares), exact[:, None].expand(3, 4))
    mixed = prior_quantiles(Mixed(), torch.tensor([0.25, 0.75]))
    torch.testing.assert_close(mixed, torch.tensor([[-5.0], [5.0]]).expand(2, 4), atol=0.05, rtol=0)


class Labelled(Dials):
    """Its prior is around ten times the label."""

    conditional = True

    def prior(self, y: Tensor | None = None) -> Distribution:
        assert y is not None
        place = 10.0 * y[:, None].expand(-1, 4)
        return diagonal_normal(place, torch.ones_like(place))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_quantiles_are_those_of_the_labels_prior(count: int) -> None:
    shares = torch.linspace(0.2, 0.8, count)
    expected = 20 + torch.distributions.Normal(0.0, 1.0).icdf(shares)
    found = prior_quantiles(Labelled(), shares, label=2)
    torch.testing.assert_close(found, expected[:, None].expand(count, 4))


def test_a_row_moves_one_value_and_no_other() -> None:
    model = Dials()
    found = traverse(model, latent_statistics(model, batches()), capabilities=(), rows=4, steps=5)
    # The fourth latent is the second most informative, and nobody looks at it.
    assert [row.number for row in found.rows] == [1, 2, 0]
    assert found.num_ignored == 1
    for row in found.rows:
        flat = row.images.flatten(1)
        assert row.values == sorted(row.values)
        torch.testing.assert_close(flat[:, row.number], torch.tensor(row.values))
        others = [i for i in range(4) if i != row.number]
        assert not flat[:, others].any()


def test_a_row_of_one_image_ignores_no_latent() -> None:
    """Where nothing moves, nothing can be seen to be ignored: the middle of the prior."""
    model = Dials()
    found = traverse(model, latent_statistics(model, batches()), capabilities=(), rows=2, steps=1)
    assert [row.number for row in found.rows] == [1, 3]
    assert found.num_ignored == 0
    assert found.rows[0].values == pytest.approx([0.0], abs=1e-6)


def test_a_row_starts_from_what_is_given() -> None:
    model, start = Dials(), torch.tensor([[4.0, 5.0, 6.0, 7.0]])
    found = traverse(
        model, latent_statistics(model, batches()), capabilities=(), rows=1, start=start
    )
    flat = found.rows[0].images.flatten(1)
    assert flat[:, [0, 2]].unique(dim=0).tolist() == [[4.0, 6.0]]


def test_codes_are_refused() -> None:
    model = Dials()
    with pytest.raises(OptionError, match="codes"):
        traverse(model, latent_statistics(model, batches()), capabilities=("discrete",))


def test_on_a_sphere_latents_stay_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = vaezoo.create_model("vmf_vae", data=(1, 8, 8), latent_dim=3, hidden=(8,)).eval()
    seen: list[Tensor] = []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda z, y=None: seen.append(z) or decode(z, y))
    points = F.normalize(torch.randn(10, 3), dim=1)
    latents = LatentStats(points, torch.arange(10), None, None, points.std(0))
    traverse(model, latents, capabilities=(), rows=3)
    norms = torch.cat(seen).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))


@pytest.mark.parametrize("way", ["slerp", "linear"])
def test_a_way_ends_where_it_should(way: str) -> None:
    a, b = torch.randn(1, 3, 2), torch.randn(1, 3, 2)
    z = interpolate(a, b, 7, way)  # type: ignore[arg-type]
    assert z.shape == (7, 3, 2)
    torch.testing.assert_close(z[:1], a)
    torch.testing.assert_close(z[-1:], b)


def test_an_arc_turns_by_equal_angles_at_one_length() -> None:
    a, b = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    angles = torch.linspace(0, math.pi / 2, 4)
    wanted = 3 * torch.stack([angles.cos(), angles.sin()], 1)
    torch.testing.assert_close(interpolate(a, b, 4), wanted)
    torch.testing.assert_close(interpolate(a, b, 3, "linear")[1], torch.tensor([1.5, 1.5]))


def test_an_arc_between_parallel_ends_is_the_line() -> None:
    a = torch.tensor([[1.0, 2.0]])
    for b in (a, 2 * a, -a, torch.zeros_like(a)):
        torch.testing.assert_close(interpolate(a, b, 3), interpolate(a, b, 3, "linear"))


@pytest.mark.parametrize("name", [spec.name for spec in vaezoo.list_models()])
def test_every_model_is_traversed_or_says_why_not(name: str) -> None:
    tags = next(spec.tags for spec in vaezoo.list_models() if spec.name == name)
    data = DataSpec(shape=(1, 16, 16), class_names=("a", "b", "c"), num_examples=40)
    model = vaezoo.create_model(name, data=data).eval()
    x = torch.rand(40, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    split = TensorSplit((x * 255).byte(), torch.arange(40) % 3)
    latents = latent_statistics(model, BatchLoader(split, batch_size=32, device=CPU))
    assert latents.points.shape == (40, math.prod(model.latent_shape))
    if "discrete" in tags:
        with pytest.raises(OptionError, match="codes"):
            traverse(model, latents, capabilities=tags)
        return
    label = 0 if model.conditional else None
    found = traverse(model, latents, capabilities=tags, rows=2, steps=3, label=label)
    assert len(found.rows) == 2
    for row in found.rows:
        assert row.images.shape == (3, 1, 16, 16)
        assert row.images.std(0).max() > 0  # it changes something


def test_levels_that_the_decoder_does_not_see_are_left_out() -> None:
    model = vaezoo.create_model("ladder_vae", data=(1, 16, 16), latent_dim=3, upper=(2, 2)).eval()
    x = torch.rand(20, 1, 16, 16)
    latents = latent_statistics(model, BatchLoader(TensorSplit(x), batch_size=20, device=CPU))
    found = traverse(model, latents, capabilities=(), rows=99, steps=2)
    assert sorted(row.number for row in found.rows) == [0, 1, 2]
    assert found.num_ignored == 4
