"""Checks of parts alone: networks, bottlenecks, likelihoods and samplers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaezoo.data.spec import DataSpec, DataStatistics
from vaezoo.errors import DataError, OptionError
from vaezoo.models.bottleneck import Bottleneck
from vaezoo.models.distributions import kl_divergence
from vaezoo.models.likelihood import Likelihood
from vaezoo.models.network import Network
from vaezoo.models.sampler import Sampler
from vaezoo.runtime.device import seeded
from vaezoo.testing.check import CheckFailed, CheckSkipped, check, fail_if
from vaezoo.testing.output_checks import check_range, check_shape, check_tensor
from vaezoo.testing.subjects import CPU, EXAMPLES, ModelWithLoss, edge_cases, make_batch

_FEATURES = 6
_GRID = (3, 2)


def _networks(pair: ModelWithLoss) -> Iterator[tuple[DataSpec, Network, Tensor]]:
    """The network for each shape at the limits of its input_spec that it takes, and two examples.

    It refuses a shape by a DataError, as where a size must be divisible.
    """
    seen: dict[tuple[int, ...], bool] = {}
    for data in edge_cases(pair.input_spec):
        if data.shape not in seen:
            with suppress(DataError):
                network = pair.part("network", data)
                seen[data.shape] = True
                yield data, network, make_batch(data, 2).x
            seen.setdefault(data.shape, False)
    fail_if(not any(seen.values()), "it accepts none of the shapes that were tried")


@check("let the decoder end in out_shape, whose channels are not always those of the data")
def out_shape(pair: ModelWithLoss) -> None:
    """Encoder and decoder have the shapes that are asked for, also of other channels"""
    for data, network, x in _networks(pair):
        with torch.no_grad():
            features = network.encoder(_FEATURES)(x)
            where = f"on {data.describe()} the encoder's output"
            check_tensor(features, (2, _FEATURES), where)
            for shape in (data.shape, (3 * data.channels, *data.shape[1:])):
                where = f"on {data.describe()}, of out_shape {shape}, the decoder's output"
                check_tensor(network.decoder(_FEATURES, shape)(features), (2, *shape), where)


@check("give the grid methods the size latent_grid, and the spec the tag `grid` if it has one")
def grid(pair: ModelWithLoss) -> None:
    """The grid methods agree with latent_grid, and the tag `grid` with both"""
    for data, network, x in _networks(pair):
        size, where = tuple(network.latent_grid), f"on {data.describe()}"
        declared = "grid" in pair.spec.tags
        fail_if(bool(size) and not declared, f"{where} latent_grid is {size}, without a tag `grid`")
        fail_if(declared and not size and data.ndim, f"{where} it has the tag `grid`, but no grid")
        if not size:
            try:
                network.grid_encoder(_FEATURES)
            except OptionError:
                continue
            raise CheckFailed(f"{where} it has no latent_grid, and yet a grid_encoder")
        with torch.no_grad():
            features = network.grid_encoder(_FEATURES)(x)
            check_tensor(features, (2, _FEATURES, *size), f"{where} the grid_encoder's output")
            shape = (3 * data.channels, *data.shape[1:])
            output = network.grid_decoder(_FEATURES, shape)(features)
            check_tensor(output, (2, *shape), f"{where} the grid_decoder's output")


@check("build new modules in each call: a network has no weights of its own")
def own_weights(pair: ModelWithLoss) -> None:
    """Two encoders, or two decoders, of a network share no weights"""
    for data, network, _ in _networks(pair):
        for what, modules in (
            ("encoders", [network.encoder(_FEATURES) for _ in range(2)]),
            ("decoders", [network.decoder(_FEATURES, data.shape) for _ in range(2)]),
        ):
            first, second = ({*module.parameters()} for module in modules)
            fail_if(first & second, f"two {what} share {len(first & second)} parameters")


def _bottlenecks(pair: ModelWithLoss) -> Iterator[tuple[str, Bottleneck, Tensor, Distribution]]:
    """The bottleneck with and without a grid of features, with parameters and a posterior."""
    options = pair.by_section["bottleneck"]
    on_grid = {"latent_grid": True} if "latent_grid" in type(options).model_fields else {}
    for size, changes in (((), {}), (_GRID, {}), (_GRID, on_grid)):
        if not size and "grid" in getattr(pair.spec, "requires", ()):
            continue
        found = pair.part("bottleneck", size, **changes)
        where = f"with a grid of {size}" if size else "without a grid"
        fail_if(tuple(found.grid) not in ((), size), f"{where} its grid is {tuple(found.grid)}")
        with seeded(0, CPU):
            params = torch.randn(3, found.num_params, *found.grid).requires_grad_()
            yield where, found, params, found(params)


@check("sum over all dimensions of a latent: latent_shape is the event shape of both")
def latent_shapes(pair: ModelWithLoss) -> None:
    """Posterior, prior and decoder_input have the shapes that the bottleneck states"""
    for where, bottleneck, _, posterior in _bottlenecks(pair):
        prior, latent = bottleneck.prior(), tuple(bottleneck.latent_shape)
        check_shape(posterior.batch_shape, (3,), f"{where} the posterior's batch_shape")
        check_shape(posterior.event_shape, latent, f"{where} the posterior's event_shape")
        check_shape(prior.event_shape, latent, f"{where} the prior's event_shape")
        check_shape(prior.batch_shape, (), f"{where} the prior's batch_shape")
        given = (bottleneck.out_features, *bottleneck.grid)
        for what, z in (("posterior", posterior.rsample()), ("prior", prior.sample((3,)))):
            check_tensor(z, (3, *latent), f"{where} a sample of the {what}")
            what = f"{where} decoder_input of a sample of the {what}"
            check_tensor(bottleneck.decoder_input(z), (3, *given), what)


@check("state in num_params what forward uses")
def num_params(pair: ModelWithLoss) -> None:
    """The posterior depends on each of its num_params parameters, by samples with gradients"""
    for where, bottleneck, params, posterior in _bottlenecks(pair):
        features = bottleneck.decoder_input(posterior.rsample())
        loss = (features * torch.randn_like(features)).sum()
        (slope,) = torch.autograd.grad(loss, params, allow_unused=True)
        slopes = torch.zeros_like(params) if slope is None else slope
        unused = sum(not channel.any() for channel in slopes.unbind(1))
        fail_if(unused, f"{where} {unused} of {bottleneck.num_params} parameters have no gradient")


@check("give both a log_prob, or the posterior a kl_divergence(prior, z), in nats of each example")
def compatible(pair: ModelWithLoss) -> None:
    """The KL from posterior to prior can be computed, and the densities where the tags say so"""
    for where, bottleneck, _, posterior in _bottlenecks(pair):
        prior, z = bottleneck.prior(), posterior.rsample()
        if "elbo" in pair.spec.tags:
            check_tensor(kl_divergence(posterior, prior, z), (3,), f"{where} the KL")
        if "importance" in pair.spec.tags:
            check_tensor(posterior.log_prob(z), (3,), f"{where} log q(z|x)")
            check_tensor(prior.log_prob(z), (3,), f"{where} log p(z)")


def _likelihoods(pair: ModelWithLoss) -> Iterator[tuple[DataSpec, Likelihood]]:
    """The likelihood for data of each domain that it accepts, and of different shapes."""
    for domain in getattr(pair.spec, "domains", ()):
        for shape in ((5,), (3, 4, 4)):
            data = DataSpec(shape=shape, domain=domain, num_examples=EXAMPLES)
            yield data, pair.part("likelihood", data)


def _params(likelihood: Likelihood, scale: float = 1.0) -> Tensor:
    """Outputs of a decoder for three examples."""
    values = torch.randn(3, *likelihood.param_shape, generator=torch.Generator().manual_seed(0))
    return scale * values


@check("accept [batch, *param_shape], and give a distribution of the event shape data.shape")
def param_shape(pair: ModelWithLoss) -> None:
    """From param_shape it makes a distribution of examples, with a log-probability for each"""
    for data, likelihood in _likelihoods(pair):
        where, x = f"on {data.domain} {data.describe()}", make_batch(data, 3).x
        params = _params(likelihood)
        found = likelihood(params)
        check_shape(found.batch_shape, (3,), f"{where} the batch_shape")
        check_shape(found.event_shape, data.shape, f"{where} the event_shape")
        check_tensor(found.mean, (3, *data.shape), f"{where} the mean")
        check_tensor(found.log_prob(x), (3,), f"{where} log p(x|z)")
        alone = likelihood(params[:1]).log_prob(x[:1])
        same = torch.allclose(alone, found.log_prob(x)[:1], rtol=1e-4, atol=1e-4)
        fail_if(not same, f"{where} log p(x|z) of an example depends on its batch")


@check("bound the mean: it is the reconstruction, in [0, 1] for data in [0, 1]")
def mean_range(pair: ModelWithLoss) -> None:
    """The mean is finite and in the range of the data, for any output of the decoder"""
    for data, likelihood in _likelihoods(pair):
        for scale in (1.0, 100.0):
            mean, what = likelihood(_params(likelihood, scale)).mean, f"on {data.domain} the mean"
            fail_if(not mean.isfinite().all(), f"{what} is not finite")
            check_range(mean, data, what)
            below = data.domain == "count" and bool((mean < 0).any())
            fail_if(below, f"{what} goes down to {mean.min():.3g}, below 0")


@check("draw what the data can be where normalised_on has its domain: 0 or 1, a level, a count")
def support(pair: ModelWithLoss) -> None:
    """Samples are values that the data can have, and have a finite log-probability"""
    for data, likelihood in _likelihoods(pair):
        found, where = likelihood(_params(likelihood)), f"on {data.domain} data a sample"
        with seeded(0, CPU):
            x = found.sample()
        check_tensor(x, (3, *data.shape), where)
        fail_if(not found.log_prob(x).isfinite().all(), f"{where} has no finite log-probability")
        if data.domain not in likelihood.normalised_on:
            continue
        step = {"binary": 1.0, "count": 1.0, "unit": 255.0 if likelihood.is_discrete else 0.0}
        scaled = x * step.get(data.domain, 0.0)
        fail_if((scaled - scaled.round()).abs().max() > 1e-3, f"{where} is between two values")
        if data.is_bounded and (likelihood.is_discrete or data.domain == "binary"):
            check_range(x, data, where)
        fail_if(data.domain == "count" and (x < 0).any(), f"{where} is below 0")


@check("subtract data.log_det from a log-probability of standardised values")
def log_det(pair: ModelWithLoss) -> None:
    """The log-probability of standardised values is that of the values in their own units"""
    if "real" not in getattr(pair.spec, "domains", ()):
        raise CheckSkipped("it does not accept real values")
    found = []
    for std in (1.0, 3.0):
        known = DataStatistics(mean=(0.0,) * 5, std=(std,) * 5, minimum=-1.0, maximum=1.0)
        data = DataSpec(shape=(5,), domain="real", num_examples=EXAMPLES, statistics=known)
        likelihood = pair.part("likelihood", data)
        found.append(likelihood(_params(likelihood)).log_prob(make_batch(data, 3).x) + data.log_det)
    apart = (found[0] - found[1]).abs().max()
    fail_if(apart > 1e-3, f"with other statistics it is {apart:.4g} nats away from that")


def _fitted(pair: ModelWithLoss) -> tuple[Sampler, Sampler]:
    """A sampler that is fitted to the latents of a model, and one that is not."""
    model = pair.build()
    with seeded(0, CPU):
        model.fit_sampler([pair.batch(EXAMPLES)])
    fitted, fresh = model.sampler, pair.build().sampler
    assert fitted is not None
    assert fresh is not None
    return fitted, fresh


@check("register all buffers in __init__, of the shapes that fit() fills")
def state(pair: ModelWithLoss) -> None:
    """Its state has the same names and shapes before and after fitting"""
    fitted, fresh = ({n: tuple(v.shape) for n, v in s.state_dict().items()} for s in _fitted(pair))
    changed = [name for name in {**fitted, **fresh} if fitted.get(name) != fresh.get(name)]
    fail_if(changed, f"{', '.join(changed[:3])}: of another shape after fitting, or not there")


@check("read is_fitted from a parameter or a buffer, and keep in these all that distribution needs")
def fitted(pair: ModelWithLoss) -> None:
    """is_fitted is true after fitting, and again in a copy that loads the state"""
    fitted, fresh = _fitted(pair)
    fail_if(fresh.is_fitted, "is_fitted is true before fitting")
    fail_if(not fitted.is_fitted, "is_fitted is false after fitting")
    fresh.load_state_dict(fitted.state_dict())
    fail_if(not fresh.is_fitted, "is_fitted is false where the state of a fitted one is loaded")
    drawn = []
    for sampler in (fitted, fresh):
        with seeded(0, CPU), torch.no_grad():
            drawn.append(sampler.distribution().sample((4,)))
    fail_if(not drawn[0].equal(drawn[1]), "its samples are others once its state is loaded")


@check("give the distribution the event shape of the latents")
def distribution(pair: ModelWithLoss) -> None:
    """Its distribution has the shape of a latent, before and after fitting"""
    latent = tuple(pair.build().latent_shape)
    for when, sampler in zip(("after", "before"), _fitted(pair), strict=True):
        with seeded(0, CPU), torch.no_grad():
            found = sampler.eval().distribution()
            check_shape(found.event_shape, latent, f"{when} fitting the event_shape")
            check_tensor(found.sample((3,)), (3, *latent), f"{when} fitting a sample")


@check("let fit() change what the sampler has, nothing else")
def frozen(pair: ModelWithLoss) -> None:
    """Fitting changes no weight of the model"""
    model = pair.build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with seeded(0, CPU):
        model.fit_sampler([pair.batch(EXAMPLES)])
    for name, value in model.state_dict().items():
        own = name.startswith("sampler.")
        fail_if(not own and not value.equal(before[name]), f"fit() changes {name}")


@check("let distribution(y) have one distribution for each class number, if it is conditional")
def classes(pair: ModelWithLoss) -> None:
    """A conditional sampler gives a latent of each class that is asked for"""
    latent = tuple(pair.build().latent_shape)
    for when, sampler in zip(("after", "before"), _fitted(pair), strict=True):
        if sampler.conditional:
            with seeded(0, CPU), torch.no_grad():
                drawn = sampler.eval().distribution(torch.zeros(2, dtype=torch.long)).sample()
                check_tensor(drawn, (2, *latent), f"{when} fitting a sample of two classes")


@check("use the latents that fit() gets")
def learns(pair: ModelWithLoss) -> None:
    """Fitting makes the latents of the model more probable; without a density, samples like them"""
    model = pair.build().eval()
    with seeded(0, CPU), torch.no_grad():
        batch = pair.batch(EXAMPLES)
        z = model.encode(batch.x, model.labels(batch.y)).rsample()
        values = []
        for sampler in reversed(_fitted(pair)):
            found = sampler.eval().distribution()
            if sampler.has_density:
                values.append(found.log_prob(z).mean())
            else:
                values.append(-_energy_distance(found.sample((EXAMPLES,)).flatten(1), z.flatten(1)))
        what = "log-probability" if sampler.has_density else "negative energy distance"
    before, after = values
    fail_if(not after > before, f"their {what} was {before:.4g}, now {after:.4g}")


def _energy_distance(a: Tensor, b: Tensor) -> Tensor:
    """2 E|a - b| - E|a - a'| - E|b - b'| of two sets of points, [n, values] (Székely 2003)."""
    return 2 * torch.cdist(a, b).mean() - torch.cdist(a, a).mean() - torch.cdist(b, b).mean()


NETWORK_CHECKS = (out_shape, grid, own_weights)
BOTTLENECK_CHECKS = (latent_shapes, num_params, compatible)
LIKELIHOOD_CHECKS = (param_shape, mean_range, support, log_det)
SAMPLER_CHECKS = (state, fitted, distribution, classes, frozen, learns)
