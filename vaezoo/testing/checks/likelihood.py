"""Checks of likelihood terms: KL, importance-weighted bound, shapes, and finite values in nats."""

from __future__ import annotations

import torch
from torch import Tensor

from vaezoo.losses.base import loss_of
from vaezoo.models.base import BaseVAE
from vaezoo.models.distributions import kl_divergence
from vaezoo.testing.check import CheckFailed, check, fail_if
from vaezoo.testing.examples import make_batch
from vaezoo.testing.subjects import ModelWithLoss

_DRAWS = 100
_ERRORS = 5.0
"""Standard errors by which a mean of draws may differ from the true value."""


@check(
    "check the KL: its direction, its factors of one half, the axes of its sum", requires=("elbo",)
)
def rate(pair: ModelWithLoss) -> None:
    """The rate is a KL divergence: not negative, 0 at the prior, the mean of log q - log p"""
    with pair.in_evaluation(learned=True) as model:
        x, y = _examples(pair, model)
        posterior, prior = model.encode(x, y), model.prior(y)
        draws = [posterior.rsample() for _ in range(_DRAWS)]
        rates = torch.stack([kl_divergence(posterior, prior, z) for z in draws])
        mean, error = _mean(rates)
        if (mean < -_ERRORS * error - 1e-4).any():
            raise CheckFailed(f"the rate of an example is {mean.min():.3g} nats")
        # One draw an example from a prior that has no batch of its own.
        own = prior.sample(torch.Size() if prior.batch_shape else torch.Size((len(x),)))
        at_prior = kl_divergence(prior, prior, own)
        if at_prior.abs().max() > 1e-4:
            raise CheckFailed(f"from the prior to itself it is {at_prior.abs().max():.3g} nats")
        if "importance" in pair.tags:
            ratios = torch.stack([posterior.log_prob(z) - prior.log_prob(z) for z in draws])
            estimate, error = _mean(ratios - rates)
            if (estimate.abs() > _ERRORS * error + 1e-3 * (1 + mean.abs())).any():
                raise CheckFailed(
                    f"it is {mean.mean():.4g} nats, and the mean of log q - log p over "
                    f"{_DRAWS} draws {ratios.mean():.4g}"
                )


@check("check log_prob of posterior, prior and likelihood", requires=("elbo", "importance"))
def bound(pair: ModelWithLoss) -> None:
    """The importance-weighted bound is the ELBO for one sample, and not below it for more"""
    with pair.in_evaluation(learned=True) as model:
        x, y = _examples(pair, model)
        elbos = []
        for _ in range(_DRAWS):
            posterior, z, prior, likelihood = model(x, y)
            elbos.append(likelihood.log_prob(x) - kl_divergence(posterior, prior, z))
        elbo, elbo_error = _mean(torch.stack(elbos))
        single, error = _mean(model.log_importance_weights(x, y, 2 * _DRAWS))
        slack = _ERRORS * (elbo_error + error) + 1e-4 * (1 + elbo.abs())
        if ((elbo - single).abs() > slack).any():
            raise CheckFailed(
                f"of one sample it is {single.mean():.4g} nats, the ELBO {elbo.mean():.4g}"
            )
        many = model.log_likelihood(x, y, samples=2 * _DRAWS)
        if (many < elbo - slack).any():
            raise CheckFailed(
                f"with many samples it is {many.mean():.4g}, the ELBO {elbo.mean():.4g}"
            )


@check("name each term, in nats: one number an example, or one for the batch; float32 throughout")
def terms(pair: ModelWithLoss) -> None:
    """The loss is a scalar, and its terms are named and in nats"""
    model = pair.build()
    batch = pair.batch()
    for phase in loss_of(model).phases(model):
        output = phase.loss_fn(model, batch, pair.context())
        named = {"loss": output.loss, **output.terms}
        for name, value in named.items():
            if not isinstance(value, Tensor):
                raise CheckFailed(
                    f"{name} of phase {phase.name} is no tensor but {type(value).__name__}"
                )
            shapes = [()] if name == "loss" else [(), (len(batch.x),)]
            if tuple(value.shape) not in shapes:
                raise CheckFailed(
                    f"{name} is {tuple(value.shape)}, not {' or '.join(map(str, shapes))}"
                )
            fail_if(value.dtype != torch.float32, f"{name} is {value.dtype}, not torch.float32")
        fail_if(output.loss.grad_fn is None, f"the loss of phase {phase.name} has no gradient")
    main = loss_of(model)(model, batch, pair.context()).terms
    if {"elbo", "rate", "distortion"} <= {*main}:
        apart = main["elbo"] + main["rate"] + main["distortion"]
        if apart.abs().max() > 1e-4 * (1 + main["elbo"].abs().max()):
            raise CheckFailed("elbo is not -(rate + distortion)")


@check("keep exponents and logarithms in range: clamp log-variances, use logsumexp, softplus")
def extremes(pair: ModelWithLoss) -> None:
    """Terms and gradients are finite on extreme examples"""
    for what, x in _extreme(pair).items():
        model = pair.build()
        batch = pair.batch(len(x))._replace(x=x)
        for phase in loss_of(model).phases(model):
            output = phase.loss_fn(model, batch, pair.context())
            _all_finite({"loss": output.loss, **output.terms}, f"on {what}")
            output.loss.backward(inputs=list(phase.parameters))
            gradients = {
                f"the gradient of phase {phase.name}": p.grad
                for p in phase.parameters
                if p.grad is not None
            }
            _all_finite(gradients, f"on {what}")
        model.eval()
        loss_of(model).eval()
        with torch.no_grad():
            output = loss_of(model)(model, batch, pair.context())
        _all_finite({"loss": output.loss, **output.terms}, f"on {what}, in evaluation,")


@check("sum over the dimensions of an example, and average over the batch")
def batch_size(pair: ModelWithLoss) -> None:
    """The loss does not grow with the batch size"""
    model = pair.build().eval()
    loss_of(model).eval()
    few = pair.batch()
    many = few._replace(
        x=few.x.repeat(8, *[1] * (few.x.dim() - 1)), y=None if few.y is None else few.y.repeat(8)
    )
    with torch.no_grad():
        pairs = [
            [
                {"loss": o.loss, **o.terms}
                for o in (loss_of(model)(model, batch, pair.context()) for batch in (few, many))
            ]
            for _ in range(8)
        ]
    for name in pairs[0][0]:
        small, large = (
            torch.stack([outputs[which][name].mean() for outputs in pairs]) for which in (0, 1)
        )
        spread = _ERRORS * (small.std() + large.std()) / len(pairs) ** 0.5
        apart = (small.mean() - large.mean()).abs()
        if apart > 0.5 * torch.maximum(small.mean().abs(), large.mean().abs()) + spread + 1e-3:
            raise CheckFailed(
                f"{name} is {small.mean():.4g} on {len(few.x)} examples and {large.mean():.4g} on "
                "eight copies of them"
            )


def _examples(pair: ModelWithLoss, model: BaseVAE) -> tuple[Tensor, Tensor | None]:
    batch = make_batch(pair.data, 4)
    return batch.x, model.labels(batch.y)


def _mean(draws: Tensor) -> tuple[Tensor, Tensor]:
    """The mean over the first axis and its standard error."""
    return draws.mean(0), draws.std(0) / len(draws) ** 0.5


def _extreme(pair: ModelWithLoss) -> dict[str, Tensor]:
    shape = pair.batch().x.shape
    board = torch.arange(shape[1:].numel()).remainder(2).view(1, *shape[1:]).expand(shape).float()
    examples = {"zeros": torch.zeros(shape), "ones": torch.ones(shape), "a checkerboard": board}
    if pair.data.domain == "real":
        examples |= {"hundreds": 100 * board + 100, "minus hundreds": -100 * board - 100}
    return examples


def _all_finite(values: dict[str, Tensor], where: str) -> None:
    for name, value in values.items():
        if not value.isfinite().all():
            raise CheckFailed(f"{where} {name} is {value[~value.isfinite()].flatten()[0]:g}")
