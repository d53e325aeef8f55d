"""Checks of likelihood terms: KL, importance-weighted bound, shapes, and finite values in nats."""

from __future__ import annotations

import torch
from torch import Tensor

from vaezoo.losses.base import loss_of
from vaezoo.models.distributions import kl_divergence
from vaezoo.testing.check import CheckFailed, check, fail_if
from vaezoo.testing.subjects import ModelWithLoss, named_values, set_training

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
