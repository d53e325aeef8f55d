"""Checks of outputs: shapes, ranges, labels, samples, and likelihood terms in nats."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vaezoo.data.spec import NAMES, DataSpec, DataStatistics
from vaezoo.errors import DataError, OptionError
from vaezoo.losses.base import loss_of
from vaezoo.models.base import BaseVAE
from vaezoo.models.distributions import kl_divergence
from vaezoo.runtime.device import seeded
from vaezoo.testing.check import CheckFailed, CheckSkipped, check, fail_if
from vaezoo.testing.subjects import (
    CPU,
    ModelWithLoss,
    edge_cases,
    labelled,
    named_values,
    set_training,
)


@check("return distributions of these shapes, or narrow input_spec, or raise DataError in __init__")
def shapes(pair: ModelWithLoss) -> None:
    """Shapes and ranges are right for all data that input_spec allows"""
    takes = pair.input_spec
    accepted = {data.ndim for data in edge_cases(takes, pair.data.domain) if _fits(pair, data)}
    fail_if(not accepted, "it accepts none of the data that was tried")
    refused = " or ".join(NAMES[n] for n in takes.ndims if n not in accepted)
    fail_if(bool(refused), f"input_spec allows {refused}, but it accepts none")
    fixed = takes.shape is not None or not any(takes.ndims)
    if not fixed and importlib.util.find_spec("hypothesis") is not None:
        _search(pair)


def _fits(pair: ModelWithLoss, data: DataSpec) -> bool:
    """Whether the model accepts the data; CheckFailed if it does and a shape is wrong."""
    try:
        model = pair.build(data)
    except DataError:
        return False
    where = f"{'×'.join(map(str, data.shape))} {data.domain}"
    where += "" if data.class_names else " without labels"
    try:
        _check_evaluation(pair, model, data)
        if data.domain == "real":
            _check_log_det(pair, model, data)
        model.train()
        for phase, output in pair.outputs(model, pair.batch(data=data)):
            check_tensor(output.loss, (), f"the loss of phase {phase.name}")
    except CheckFailed as wrong:
        raise CheckFailed(f"on {where}: {wrong}") from None
    except Exception as error:
        raise CheckFailed(f"on {where}: {type(error).__name__}: {error}") from error
    return True


def _check_evaluation(pair: ModelWithLoss, model: BaseVAE, data: DataSpec) -> None:
    """Check the outputs of evaluation, also for one example: the last batch may have one."""
    model.eval()
    latent = tuple(model.latent_shape)
    with seeded(0, CPU), torch.no_grad():
        for n in (1, 3):
            x, y = pair.batch(n, data)
            y = model.labels(y)
            posterior, prior = model.encode(x, y), model.prior(y)
            z = posterior.rsample()
            likelihood = model.decode(z, y)
            check_shape(posterior.batch_shape, (n,), "encode's batch_shape")
            check_shape(posterior.event_shape, latent, "encode's event_shape")
            check_tensor(z, (n, *latent), "a sample of encode's")
            check_shape(prior.event_shape, latent, "prior's event_shape")
            if prior.batch_shape:
                check_shape(prior.batch_shape, (n,), "prior's batch_shape")
            check_tensor(likelihood.mean, (n, *data.shape), "the mean of decode's")
            check_tensor(likelihood.log_prob(x), (n,), "log p(x|z)")
            check_range(likelihood.mean, data, "the mean of decode's")
            check_tensor(model.reconstruct(x, y), (n, *data.shape), "reconstruct")
            check_tensor(model.sample(n, y), (n, *data.shape), "sample")
            if "elbo" in pair.tags:
                check_tensor(kl_divergence(posterior, prior, z), (n,), "the KL")
            if "importance" in pair.tags:
                check_tensor(posterior.log_prob(z), (n,), "log q(z|x)")
                check_tensor(prior.log_prob(z), (n,), "log p(z)")
                ratios = model.log_importance_weights(x, y, 2)
                check_tensor(ratios, (2, n), "log_importance_weights")


def _check_log_det(pair: ModelWithLoss, model: BaseVAE, data: DataSpec) -> None:
    """Check that log p(x|z) of standardised data is that of the data before."""
    count = data.numel if not data.ndim else data.channels
    zeros, twos = (0.0,) * count, (2.0,) * count
    statistics = DataStatistics(mean=zeros, std=twos, minimum=-9.0, maximum=9.0)
    scaled = replace(data, statistics=statistics)
    twin = pair.build(scaled).eval()  # the same weights
    with seeded(0, CPU), torch.no_grad():
        x, y = pair.batch(3, data)
        y = model.labels(y)
        z = model.encode(x, y).rsample()
        less = model.decode(z, y).log_prob(x) - twin.decode(z, y).log_prob(x)
    expected = torch.full_like(less, scaled.log_det - data.log_det)
    wrong = not torch.allclose(less, expected, rtol=1e-3)
    fail_if(wrong, "log p(x|z) is of the standardised values: subtract data.log_det")


def _search(pair: ModelWithLoss) -> None:
    """Try shapes between the edge cases by hypothesis, which reports the smallest that fails."""
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    takes = pair.input_spec
    ndims = [ndim for ndim in takes.ndims if ndim]
    channels = st.sampled_from(takes.channels) if takes.channels else st.integers(1, 4)

    def shapes(ndim: int) -> Any:
        most = 12 if ndim == 3 else 40
        limits = max(takes.min_size, 4), min(takes.max_size or most, max(most, takes.min_size))
        return st.tuples(channels, *[st.integers(*limits)] * ndim)

    @given(st.sampled_from(ndims).flatmap(shapes), st.sampled_from(["unit", "binary"]))
    @settings(
        max_examples=3 + 3 * len(ndims),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    def fits(shape: tuple[int, ...], domain: Any) -> None:
        _fits(pair, labelled(shape, domain))

    fits()


@check("set `conditional = True`, tag it `labels`, and use y in decode or prior")
def labels(pair: ModelWithLoss) -> None:
    """A model uses labels if it declares them"""
    conditional = pair.model_class.conditional
    required = pair.model_spec.input_spec.labels
    declared = "labels" in pair.tags or required
    wrong = declared and not conditional
    fail_if(wrong, "it declares labels, but without conditional = True it never gets any")
    if not conditional:
        raise CheckSkipped("it is not conditional")
    fail_if(not declared, "it is conditional, but has no tag `labels`")
    with pair.in_evaluation(1) as (model, _, _):
        drawn = []
        for label in (0, 1):
            with seeded(0, CPU):
                drawn.append(model.sample(4, torch.full((4,), label)))
        fail_if(drawn[0].equal(drawn[1]), "samples of two classes are the same")
    if not required:
        without = DataSpec(shape=pair.data.shape, domain=pair.data.domain, num_examples=64)
        try:
            pair.build(without)(pair.batch(data=without).x)
        except Exception as error:
            said = f"without labels: {type(error).__name__}: {error}"
            raise CheckFailed(f"{said}; say InputSpec(labels=True) if it needs labels") from error


@check("let `prior` return a distribution also before the sampler is fitted")
def sampling(pair: ModelWithLoss) -> None:
    """Samples can be drawn before and after training, with a temperature, as means and draws"""
    _check_samples(pair, pair.build().eval(), "before training")
    with pair.in_evaluation(8) as (model, batch, _):
        model.fit_sampler([batch])
        _check_samples(pair, model, "after training")


def _check_samples(pair: ModelWithLoss, model: BaseVAE, when: str) -> None:
    for n, temperature, mean in ((1, 1.0, True), (3, 1.0, False), (3, 0.5, True)):
        y = model.labels(torch.arange(n) % max(1, len(pair.data.class_names)))
        with seeded(0, CPU):
            try:
                drawn = model.sample(n, y, temperature, mean)
            except (NotImplementedError, OptionError):
                if temperature == 1.0:
                    raise
                continue  # a prior without a scale supports no temperature
        check_tensor(drawn, (n, *pair.data.shape), f"{when} sample({n})")
        if mean:
            check_range(drawn, pair.data, f"{when} sample({n})")


def check_shape(found: torch.Size, shape: tuple[int, ...], what: str) -> None:
    fail_if(tuple(found) != shape, f"{what} is {tuple(found)}, not {shape}")


def check_tensor(found: Tensor, shape: tuple[int, ...], what: str) -> None:
    """CheckFailed unless a tensor has the shape, is float32 and is finite."""
    check_shape(found.shape, shape, what)
    fail_if(found.dtype != torch.float32, f"{what} is {found.dtype}, not torch.float32")
    fail_if(not found.isfinite().all(), f"{what} is not finite")


def check_range(mean: Tensor, data: DataSpec, what: str) -> None:
    """CheckFailed if a mean is outside of [0, 1] where the data is not."""
    wrong = data.is_bounded and not ((mean >= 0) & (mean <= 1)).all()
    fail_if(wrong, f"{what} goes from {mean.min():.3g} to {mean.max():.3g}, past [0, 1]")


_DRAWS = 100
_ERRORS = 5.0
"""Standard errors by which a mean of draws may differ from the true value."""


@check("check the KL: its direction, factors of one half, the axes of its sum", requires=("elbo",))
def rate(pair: ModelWithLoss) -> None:
    """The rate is a KL divergence: not negative, 0 at the prior, the mean of log q - log p"""
    with pair.in_evaluation(4, learned=True) as (model, (x, _), y):
        posterior, prior = model.encode(x, y), model.prior(y)
        draws = [posterior.rsample() for _ in range(_DRAWS)]
        rates = torch.stack([kl_divergence(posterior, prior, z) for z in draws])
        mean, error = _mean(rates)
        negative = (mean < -_ERRORS * error - 1e-4).any()
        fail_if(negative, f"the rate of an example is {mean.min():.3g} nats")
        # One draw an example from a prior that has no batch of its own.
        own = prior.sample(torch.Size() if prior.batch_shape else torch.Size((len(x),)))
        at_prior = kl_divergence(prior, prior, own).abs().max()
        fail_if(at_prior > 1e-4, f"from the prior to itself it is {at_prior:.3g} nats")
        if "importance" in pair.tags:
            ratios = torch.stack([posterior.log_prob(z) - prior.log_prob(z) for z in draws])
            estimate, error = _mean(ratios - rates)
            fail_if(
                (estimate.abs() > _ERRORS * error + 1e-3 * (1 + mean.abs())).any(),
                f"it is {mean.mean():.4g} nats, and the mean of log q - log p over "
                f"{_DRAWS} draws {ratios.mean():.4g}",
            )


@check("check log_prob of posterior, prior and likelihood", requires=("elbo", "importance"))
def bound(pair: ModelWithLoss) -> None:
    """The importance-weighted bound is the ELBO for one sample, and not below it for more"""
    with pair.in_evaluation(4, learned=True) as (model, (x, _), y):
        elbos = []
        for _ in range(_DRAWS):
            posterior, z, prior, likelihood = model(x, y)
            elbos.append(likelihood.log_prob(x) - kl_divergence(posterior, prior, z))
        elbo, elbo_error = _mean(torch.stack(elbos))
        single, error = _mean(model.log_importance_weights(x, y, 2 * _DRAWS))
        slack = _ERRORS * (elbo_error + error) + 1e-4 * (1 + elbo.abs())
        nats = f"{single.mean():.4g} nats, the ELBO {elbo.mean():.4g}"
        fail_if(((elbo - single).abs() > slack).any(), f"of one sample it is {nats}")
        many = model.log_likelihood(x, y, samples=2 * _DRAWS)
        nats = f"{many.mean():.4g} nats, the ELBO {elbo.mean():.4g}"
        fail_if((many < elbo - slack).any(), f"with many samples it is {nats}")


@check("name each term, in nats: one number an example, or one for the batch; float32 throughout")
def terms(pair: ModelWithLoss) -> None:
    """The loss is a scalar, and its terms are named and in nats"""
    model, batch = pair.build(), pair.batch()
    for phase, output in pair.outputs(model, batch):
        for name, value in named_values(output).items():
            what = f"phase {phase.name}: {name}"
            fail_if(not isinstance(value, Tensor), f"{what} is no tensor but {type(value)}")
            shapes = [()] if name == "loss" else [(), (len(batch.x),)]
            expected = " or ".join(map(str, shapes))
            wrong = tuple(value.shape) not in shapes
            fail_if(wrong, f"{what} is {tuple(value.shape)}, not {expected}")
            fail_if(value.dtype != torch.float32, f"{what} is {value.dtype}, not torch.float32")
        fail_if(output.loss.grad_fn is None, f"the loss of phase {phase.name} has no gradient")
    main = loss_of(model)(model, batch, pair.context()).terms
    if {"elbo", "rate", "distortion"} <= {*main}:
        apart = main["elbo"] + main["rate"] + main["distortion"]
        wrong = apart.abs().max() > 1e-4 * (1 + main["elbo"].abs().max())
        fail_if(wrong, "elbo is not -(rate + distortion)")


@check("keep exponents and logarithms in range: clamp log-variances, use logsumexp, softplus")
def extremes(pair: ModelWithLoss) -> None:
    """Terms and gradients are finite on extreme examples"""
    shape = pair.batch().x.shape
    board = torch.arange(shape[1:].numel()).remainder(2).view(1, *shape[1:]).expand(shape).float()
    examples = {"zeros": torch.zeros(shape), "ones": torch.ones(shape), "a checkerboard": board}
    if pair.data.domain == "real":
        examples |= {"hundreds": 100 * board + 100, "minus hundreds": -100 * board - 100}
    for what, x in examples.items():
        model, batch = pair.build(), pair.batch()._replace(x=x)
        for phase, output in pair.outputs(model, batch):
            _check_finite(named_values(output), f"on {what}")
            output.loss.backward(inputs=list(phase.parameters))
            for p in phase.parameters:
                if p.grad is not None:
                    _check_finite({f"the gradient of phase {phase.name}": p.grad}, f"on {what}")
        set_training(model, False)
        with torch.no_grad():
            output = loss_of(model)(model, batch, pair.context())
        _check_finite(named_values(output), f"on {what}, in evaluation,")


@check("sum over the dimensions of an example, and average over the batch")
def batch_size(pair: ModelWithLoss) -> None:
    """The loss does not grow with the batch size"""
    model = set_training(pair.build(), False)
    few = pair.batch()
    copies = few.x.repeat(8, *[1] * (few.x.dim() - 1))
    many = few._replace(x=copies, y=None if few.y is None else few.y.repeat(8))
    loss, context = loss_of(model), pair.context()
    with torch.no_grad():
        outputs = [[named_values(loss(model, b, context)) for b in (few, many)] for _ in range(8)]
    for name in outputs[0][0]:
        draws = torch.tensor([[one[name].mean() for one in both] for both in outputs])
        (small, large), errors = _mean(draws)
        slack = 0.5 * draws.mean(0).abs().max() + _ERRORS * errors.sum() + 1e-3
        numbers = f"{small:.4g} on {len(few.x)} examples and {large:.4g} on eight copies of them"
        fail_if((small - large).abs() > slack, f"{name} is {numbers}")


def _mean(draws: Tensor) -> tuple[Tensor, Tensor]:
    """The mean over the first axis and its standard error."""
    return draws.mean(0), draws.std(0) / len(draws) ** 0.5


def _check_finite(values: dict[str, Tensor], where: str) -> None:
    for name, value in values.items():
        infinite = value[~value.isfinite()].flatten()
        if len(infinite):
            raise CheckFailed(f"{where} {name} is {infinite[0]:g}")
