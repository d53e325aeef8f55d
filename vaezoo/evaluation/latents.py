"""The latent space of a model: statistics, quantiles of the prior, traversal, interpolation."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

from vaezoo.data.base import Standardizer
from vaezoo.data.loader import BatchLoader
from vaezoo.errors import OptionError
from vaezoo.evaluation.accumulators import RunningMoments, RunningSum
from vaezoo.evaluation.metric import (
    EvalBatch,
    EvalContext,
    ExampleMoments,
    MetricResult,
    MetricState,
    MetricUnavailable,
)
from vaezoo.models.base import BaseVAE
from vaezoo.models.distributions import mode, project_to_prior, sample_prior
from vaezoo.runtime.device import evaluation_mode, seeded

ACTIVE_VARIANCE = 0.01
"""A latent is active if the variance of its posterior mean over the data is larger."""
COLLAPSED_NATS = 0.01
"""An example does not use a latent if its KL in that latent is smaller."""
COLLAPSED_FRACTION = 0.99
"""A latent is collapsed if this fraction of the examples, or more, do not use it."""
DEFAULT_EXAMPLES = 2000
"""How many examples statistics of the latents are computed from by default: some seconds."""
_DRAWS = 4096
"""Samples that stand for a prior whose quantiles have no closed form."""

_PARALLEL = 1e-6
"""Below this angle between two latents, slerp is linear."""

Order = Literal["kl", "std"]
InterpolationMethod = Literal["slerp", "linear"]


def latent_kls(posterior: Distribution, prior: Distribution) -> Tensor | None:
    """KL of each latent by itself, nats: [batch, latents]; their sum is the KL of all.

    None where the KL is no sum over latents: posterior or prior is not a product of independent
    distributions.
    """
    if not (isinstance(posterior, Independent) and isinstance(prior, Independent)):
        return None
    if getattr(posterior, "kl_divergence", None) is not None:
        return None  # it has a KL of its own, for all latents together
    try:
        kls = kl_divergence(posterior.base_dist, prior.base_dist)
    except NotImplementedError:
        return None
    return kls.flatten(1)


class LatentMoments(ExampleMoments):
    """Mean and variance over the examples of the posterior's mode."""

    def measure(self, batch: EvalBatch) -> Tensor:
        return batch.latents

    def active_units(self) -> MetricResult:
        return MetricResult(int((self.values.variance > ACTIVE_VARIANCE).sum()))


class LatentKls(MetricState):
    """The KL of each latent: its mean over examples, and how many examples do not use it."""

    mergeable = True

    def __init__(self, context: EvalContext) -> None:
        super().__init__(context)
        self.kls, self.unused = RunningMoments(), RunningSum()

    def update(self, batch: EvalBatch) -> None:
        kls = latent_kls(batch.posterior, batch.prior)
        if kls is None:
            raise MetricUnavailable("its KL is no sum over latents")
        self.kls.update(kls)
        self.unused.update((kls < COLLAPSED_NATS).sum(0))

    @property
    def collapsed(self) -> Tensor:
        """Whether each latent is collapsed: bool, [latents]."""
        assert self.unused.sum is not None
        return self.unused.sum >= COLLAPSED_FRACTION * self.kls.count

    def collapsed_units(self) -> MetricResult:
        return MetricResult(int(self.collapsed.sum()))


def latent_report(moments: LatentMoments | None, kls: LatentKls | None) -> list[dict[str, Any]]:
    """A row for each latent, in order; None where a number is missing or not finite.

    moments, kls: None if the model has no such numbers. Categorical latents have a KL only, one for
    each variable.
    """
    variance = [] if moments is None else moments.values.variance.tolist()
    rate = [] if kls is None else kls.kls.mean.tolist()
    collapsed = [] if kls is None else kls.collapsed.tolist()
    rows = []
    for i, (r, v, c) in enumerate(zip_longest(rate, variance, collapsed)):
        r, v = (None if x is None or not math.isfinite(x) else x for x in (r, v))
        active = None if v is None else v > ACTIVE_VARIANCE
        rows.append({"latent": i, "rate": r, "mean_variance": v, "active": active, "collapsed": c})
    return rows


@dataclass(frozen=True)
class LatentStats:
    """Latents of examples of a split, flattened: [latent values] of each.

    points: what stands for each posterior, [examples, values], on the CPU. index: which examples
    of the split they are. labels: their classes, where there are any.
    kl: KL to the prior of each latent variable in nats, a mean over the examples; None where the
    KL is no sum over them. std: the standard deviation of each of the points' values.
    """

    points: Tensor
    index: Tensor
    labels: Tensor | None
    kl: Tensor | None
    std: Tensor

    @property
    def order(self) -> Order:
        """By what `ranked` ranks."""
        return "kl" if self.kl is not None and len(self.kl) == len(self.std) else "std"

    def ranked(self) -> list[int]:
        """The numbers of the latent values, the most informative first."""
        by = self.kl if self.order == "kl" and self.kl is not None else self.std
        # Stable: equal ones stay in their order, on any machine.
        return torch.argsort(by, descending=True, stable=True).tolist()


def latent_statistics(
    model: BaseVAE, batches: BatchLoader, examples: int = DEFAULT_EXAMPLES
) -> LatentStats:
    """Statistics of the latents of up to `examples` of a split, spread evenly over it."""
    count = len(batches.split)
    index = torch.linspace(0, count - 1, min(count, examples)).round().long()
    points, labels, kls = [], [], []
    with evaluation_mode(model), seeded(0, batches.device), torch.no_grad():
        # Once where it is the same for all: a learned prior may cost more than the encoder.
        prior = None if model.conditional else model.density_prior()
        for part in index.split(batches.batch_size):
            batch = batches.batch(part)
            y = model.labels(batch.y)
            posterior = model.encode(batch.x, y)
            points.append(mode(posterior).flatten(1).float().cpu())
            labels.append(None if batch.y is None else batch.y.cpu())
            kl = latent_kls(posterior, prior or model.density_prior(y))
            kls.append(None if kl is None else kl.double().sum(0).cpu())
    known_labels = [y for y in labels if y is not None]
    known_kls = [kl for kl in kls if kl is not None]
    z = torch.cat(points)
    return LatentStats(
        points=z,
        index=index,
        labels=torch.cat(known_labels) if known_labels else None,
        kl=torch.stack(known_kls).sum(0) / len(index) if known_kls else None,
        std=z.std(0, correction=0),
    )


def pca_plane(points: Tensor) -> tuple[Tensor, list[float]]:
    """Points along their two directions of most variance (Pearson 1901), and its fractions.

    points: [n, values]. Returns float64 [n, 2], and a fraction for each direction. Signs are such
    that the largest loading of a direction is positive. One value is a line.
    """
    points = points.double()
    centred = points - points.mean(0)
    _, sizes, directions = torch.linalg.svd(centred, full_matrices=False)
    variances = sizes.square()
    directions = directions[:2]
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    plane = centred @ (directions * largest.sign()).T
    total = float(variances.sum())
    explained = [float(v) / total if total else 0.0 for v in variances[:2]]
    if plane.shape[1] < 2:
        plane = torch.cat([plane, torch.zeros_like(plane)], 1)
        explained.append(0.0)
    return plane, explained


def prior_quantiles(model: BaseVAE, shares: Tensor, label: int | None = None) -> Tensor:
    """Of the prior of each latent value: [shares, *latent_shape]. shares: in (0, 1).

    Exact where the prior has `icdf(levels)`, the quantiles of each value by itself; of a few
    thousand draws for any other prior.
    """
    prior = model.sampling_prior(_labels(model, label, 1))
    each = shares.to(model.device).view(-1, *[1] * len(model.latent_shape))
    with contextlib.suppress(NotImplementedError):
        return (prior.base_dist if isinstance(prior, Independent) else prior).icdf(each)
    prior = model.sampling_prior(_labels(model, label, _DRAWS))
    with seeded(0, model.device):
        draws = sample_prior(prior, _DRAWS)
    return torch.quantile(draws.float(), shares.to(draws.device).float(), dim=0)


def prior_mean(model: BaseVAE, label: int | None = None) -> Tensor:
    """The prior's mean, [1, *latent_shape]; of a mixture, one of its components' means.

    Where a prior has no such thing (on a sphere), a draw.
    """
    prior = model.sampling_prior(_labels(model, label, 1))
    with seeded(0, model.device):
        try:
            return sample_prior(prior, 1, 0.0)
        except OptionError:
            return sample_prior(prior, 1)


def decode_mean(
    model: BaseVAE, z: Tensor, label: int | None = None, batch_size: int = 256
) -> Tensor:
    """The likelihood's mean at each z, [n, *data.shape], in the data's units, on the CPU.

    z: [n, *latent_shape].
    """
    with evaluation_mode(model), torch.no_grad():
        parts = [
            model.decode(part, _labels(model, label, len(part))).mean.float().cpu()
            for part in z.split(batch_size)
        ]
    return Standardizer(model.data).inverse(torch.cat(parts))


@dataclass(frozen=True)
class TraversalRow:
    """One latent value moved through the prior's quantiles.

    number: of the value, counted through the flattened latent. kl: in nats, None where the model's
    KL is no sum. images: [steps, *data.shape].
    """

    number: int
    kl: float | None
    std: float
    values: list[float]
    images: Tensor


@dataclass(frozen=True)
class Traversal:
    """Images in which one latent value moves, a row for each, the most informative first.

    order: by the KL of each, or by the standard deviation of the posteriors' means. num_ignored:
    how many of the more informative ones were left out, because the decoder ignores them. start:
    the latent that the other values are of, flattened.
    """

    rows: list[TraversalRow]
    order: Order
    num_ignored: int
    start: Tensor

    def to_dict(self) -> dict[str, Any]:
        names = ("number", "kl", "std", "values")
        return {
            "order": self.order,
            "num_ignored": self.num_ignored,
            "start": self.start.tolist(),
            "rows": [{name: getattr(row, name) for name in names} for row in self.rows],
        }


def traverse(
    model: BaseVAE,
    latents: LatentStats,
    *,
    capabilities: Collection[str],
    rows: int = 10,
    steps: int = 9,
    start: Tensor | None = None,
    label: int | None = None,
) -> Traversal:
    """Move each of the most informative latent values alone.

    start: the latent to start from, [1, *latent_shape]; the prior's mean unless given. Values go
    through the prior's quantiles (i + ½) / steps. OptionError for latents that are codes, between
    which there is nothing.
    """
    reject_discrete(capabilities)
    with torch.no_grad():
        levels = (torch.arange(steps) + 0.5) / steps
        values = prior_quantiles(model, levels, label).flatten(1)
        z = prior_mean(model, label) if start is None else start.to(model.device)
        prior = model.prior()
        kl = latents.kl if latents.order == "kl" else None
        found: list[TraversalRow] = []
        num_ignored = 0
        for number in latents.ranked():
            if len(found) == rows:
                break
            moved = z.flatten(1).repeat(steps, 1)
            moved[:, number] = values[:, number]
            moved = project_to_prior(prior, moved.view(steps, *model.latent_shape))
            images = decode_mean(model, moved, label)
            if steps > 1 and bool((images == images[:1]).all()):
                num_ignored += 1
                continue
            nats = None if kl is None else float(kl[number])
            used = values[:, number].tolist()
            found.append(TraversalRow(number, nats, float(latents.std[number]), used, images))
    return Traversal(found, latents.order, num_ignored, z.flatten().cpu())


def reject_discrete(capabilities: Collection[str]) -> None:
    """OptionError for models whose latents are codes."""
    if "discrete" in capabilities:
        raise OptionError("the latents of this model are codes: there is nothing between two codes")


@dataclass(frozen=True)
class Interpolation:
    """Latents and images between two examples a and b, [1, *data.shape], one a step."""

    a: Tensor
    b: Tensor
    latents: Tensor
    images: Tensor

    def to_dict(self) -> dict[str, Any]:
        return {"steps": len(self.latents), "latents": self.latents.flatten(1).tolist()}


def interpolate(a: Tensor, b: Tensor, steps: int, method: InterpolationMethod = "slerp") -> Tensor:
    """Latents from a to b, both included: [steps, *latent_shape]. a, b: [1, *latent_shape].

    linear: along the line, whose middle is improbable under the prior in many dimensions. slerp:
    along the arc (Shoemake 1985), which keeps the length of its ends if they are equally long
    (White 2016, section 2.1). Opposite ends have no unique arc, so the line is used.
    """
    t = torch.linspace(0.0, 1.0, steps, device=a.device).view(-1, *[1] * (a.dim() - 1))
    if method == "linear":
        return torch.lerp(a, b, t)
    flat_a, flat_b = a.flatten().double().cpu(), b.flatten().double().cpu()
    lengths = float(flat_a.norm() * flat_b.norm())
    cosine = torch.dot(flat_a, flat_b) / max(lengths, 1e-300)
    angle = float(torch.arccos(cosine.clamp(-1.0, 1.0)))
    if not lengths or min(angle, torch.pi - angle) < _PARALLEL:
        return torch.lerp(a, b, t)
    sine = torch.sin(torch.tensor(angle))
    return (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / sine


def _labels(model: BaseVAE, label: int | None, n: int) -> Tensor | None:
    if label is None or not model.conditional:
        return None
    return torch.full((n,), label, device=model.device)
