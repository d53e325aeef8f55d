"""Checks of shapes and ranges, for every kind of data that a model accepts."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaezoo.data.spec import DataSpec
from vaezoo.errors import DataError, OptionError
from vaezoo.losses.base import loss_of
from vaezoo.models.base import BaseVAE
from vaezoo.models.distributions import kl_divergence
from vaezoo.runtime.seed import seeded
from vaezoo.testing.check import CheckFailed, check, fail_if
from vaezoo.testing.examples import CLASSES, EXAMPLES, edge_cases
from vaezoo.testing.subjects import CPU, ModelWithLoss

_SEARCHED = 6
"""Number of data specs that hypothesis draws, besides the edge cases."""


@check("return distributions of these shapes, or narrow input_spec, or raise DataError in __init__")
def shapes(pair: ModelWithLoss) -> None:
    """Shapes and ranges are right for all data that input_spec allows"""
    kinds = {"images": False, "vectors": False}
    for data in edge_cases(pair.model_spec.input_spec):
        kinds["images" if data.is_image else "vectors"] |= _fits(pair, data)
    fail_if(not any(kinds.values()), "it accepts none of the data that was tried")
    if pair.model_spec.input_spec.vectors and not kinds["vectors"]:
        raise CheckFailed("input_spec allows vectors, but it accepts none")
    if importlib.util.find_spec("hypothesis") is not None:
        _search(pair)


def _fits(pair: ModelWithLoss, data: DataSpec) -> bool:
    """Whether the model accepts the data; CheckFailed if it does and a shape is wrong."""
    try:
        model = _built(pair, data)
    except DataError:
        return False
    where = f"{'×'.join(map(str, data.shape))} {data.domain}"
    where += "" if data.class_names else " without labels"
    try:
        _evaluated(pair, model, data)
        _trained(pair, model, data)
    except CheckFailed as broken:
        raise CheckFailed(f"on {where}: {broken}") from None
    except Exception as error:
        raise CheckFailed(f"on {where}: {type(error).__name__}: {error}") from error
    return True


def _built(pair: ModelWithLoss, data: DataSpec) -> BaseVAE:
    """A model for the data; for vectors, with MLP networks if there is a choice."""
    if data.is_image or "network" not in type(pair.model_options).model_fields:
        return pair.build(data)
    try:
        return pair.build(data, network="mlp")
    except (OptionError, ValueError):
        return pair.build(data)


def _evaluated(pair: ModelWithLoss, model: BaseVAE, data: DataSpec) -> None:
    """Check the outputs of evaluation, also for one example: the last batch may have one."""
    model.eval()
    with seeded(0, CPU), torch.no_grad():
        for count in (1, 3):
            batch = pair.batch(count, data)
            y = model.labels(batch.y)
            posterior = model.encode(batch.x, y)
            z = posterior.rsample()
            latent, shape = tuple(model.latent_shape), tuple(data.shape)
            _is(posterior.batch_shape, (count,), "encode's batch_shape")
            _is(posterior.event_shape, latent, "encode's event_shape")
            _is(z, (count, *latent), "a sample of encode's")
            prior = model.prior(y)
            _is(prior.event_shape, latent, "prior's event_shape")
            if tuple(prior.batch_shape) not in ((), (count,)):
                raise CheckFailed(f"prior's batch_shape is {tuple(prior.batch_shape)}")
            likelihood = model.decode(z, y)
            _is(likelihood.mean, (count, *shape), "the mean of decode's")
            _is(likelihood.log_prob(batch.x), (count,), "log p(x|z)")
            _in_range(likelihood.mean, data, "the mean of decode's")
            _is(model.reconstruct(batch.x, y), (count, *shape), "reconstruct")
            _is(model.sample(count, y), (count, *shape), "sample")
            _densities(pair, model, posterior, prior, z, batch.x, y)


def _densities(
    pair: ModelWithLoss,
    model: BaseVAE,
    posterior: Distribution,
    prior: Distribution,
    z: Tensor,
    x: Tensor,
    y: Tensor | None,
) -> None:
    if "elbo" in pair.tags:
        _is(kl_divergence(posterior, prior, z), (len(x),), "the KL")
    if "importance" in pair.tags:
        _is(posterior.log_prob(z), (len(x),), "log q(z|x)")
        _is(prior.log_prob(z), (len(x),), "log p(z)")
        _is(model.log_importance_weights(x, y, 2), (2, len(x)), "log_importance_weights")


def _trained(pair: ModelWithLoss, model: BaseVAE, data: DataSpec) -> None:
    model.train()
    for phase in loss_of(model).phases(model):
        output = phase.loss_fn(model, pair.batch(data=data), pair.context())
        _is(output.loss, (), f"the loss of phase {phase.name}")


def _is(found: Any, shape: tuple[int, ...], what: str) -> None:
    """found: a tensor, or a shape itself."""
    tensor = isinstance(found, Tensor)
    if tuple(found.shape if tensor else found) != shape:
        raise CheckFailed(f"{what} is {tuple(found.shape if tensor else found)}, not {shape}")
    if tensor and found.dtype != torch.float32:
        raise CheckFailed(f"{what} is {found.dtype}, not torch.float32")
    fail_if(tensor and not found.isfinite().all(), f"{what} is not finite")


def _in_range(mean: Tensor, data: DataSpec, what: str) -> None:
    if data.domain != "real" and not ((mean >= 0) & (mean <= 1)).all():
        raise CheckFailed(f"{what} goes from {mean.min():.3g} to {mean.max():.3g}, past [0, 1]")


def _search(pair: ModelWithLoss) -> None:
    """Try shapes between the edge cases by hypothesis, which reports the smallest that fails."""
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    takes = pair.model_spec.input_spec
    sides = st.integers(max(takes.min_size, 4), min(takes.max_size or 40, max(40, takes.min_size)))
    channels = st.sampled_from(takes.channels) if takes.channels else st.integers(1, 4)

    @given(st.tuples(channels, sides, sides), st.sampled_from(["unit", "binary"]))
    @settings(
        max_examples=_SEARCHED,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    def fits(shape: tuple[int, int, int], domain: Any) -> None:
        _fits(
            pair, DataSpec(shape=shape, domain=domain, class_names=CLASSES, num_examples=EXAMPLES)
        )

    fits()
