"""What the latents of a model hold: how much each of them tells, and where examples lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from vaezoo.data.loader import BatchLoader
from vaezoo.errors import OptionError
from vaezoo.evaluation.metrics.latent import latent_kls
from vaezoo.models.base import BaseVAE
from vaezoo.models.distributions import mode, sample_prior
from vaezoo.runtime.seed import evaluation_mode, seeded

DEFAULT_EXAMPLES = 2000
"""Examples that a picture of the latents goes by, unless told otherwise: a matter of seconds."""
_DRAWS = 4096
"""Samples that stand for a prior whose quantiles have no closed form."""

Order = Literal["kl", "std"]


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
    """Look at the latents of up to `examples` of a split, spread evenly over it."""
    count = len(batches.split)
    index = torch.linspace(0, count - 1, min(count, examples)).round().long()
    points, labels, kls = [], [], []
    with evaluation_mode(model), seeded(0, batches.device), torch.no_grad():
        # Once where it is the same for all: a learned prior may cost more than the encoder.
        prior = None if model.conditional else model.prior()
        for part in index.split(batches.batch_size):
            batch = batches.batch(part)
            y = model.labels(batch.y)
            posterior = model.encode(batch.x, y)
            points.append(mode(posterior).flatten(1).float().cpu())
            labels.append(None if batch.y is None else batch.y.cpu())
            kl = latent_kls(posterior, prior or model.prior(y))
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


def prior_quantiles(model: BaseVAE, shares: Tensor, label: int | None = None) -> Tensor:
    """Of the prior of each latent value: [shares, *latent_shape]. shares: in (0, 1).

    Exact for a Gaussian, of a few thousand draws for any other prior.
    """
    prior = model.prior(_labels(model, label, 1))
    if isinstance(prior, Independent) and isinstance(prior.base_dist, Normal):
        each = shares.to(prior.base_dist.loc).view(-1, *[1] * len(model.latent_shape))
        return prior.base_dist.icdf(each)
    prior = model.prior(_labels(model, label, _DRAWS))
    with seeded(0, model.device):
        draws = sample_prior(prior, _DRAWS)
    return torch.quantile(draws.float(), shares.to(draws.device).float(), dim=0)


def prior_mean(model: BaseVAE, label: int | None = None) -> Tensor:
    """The prior's mean, [1, *latent_shape]; of a mixture, one of its components' means.

    Where a prior has no such thing (on a sphere), a draw.
    """
    prior = model.prior(_labels(model, label, 1))
    with seeded(0, model.device):
        try:
            return sample_prior(prior, 1, 0.0)
        except OptionError:
            return sample_prior(prior, 1)


def project_to_prior(prior: Distribution, z: Tensor) -> Tensor:
    """z, or what is nearest to it of the values that the prior has, where it has not all.

    A prior on a surface has a method `project(z)`.
    """
    project = getattr(prior, "project", None)
    return z if project is None else project(z)


def decode_mean(model: BaseVAE, z: Tensor, label: int | None = None, at_once: int = 256) -> Tensor:
    """The likelihood's mean at each z, [n, *data.shape], on the CPU. z: [n, *latent_shape]."""
    with evaluation_mode(model), torch.no_grad():
        parts = [
            model.decode(part, _labels(model, label, len(part))).mean.float().cpu()
            for part in z.split(at_once)
        ]
    return torch.cat(parts)


def _labels(model: BaseVAE, label: int | None, n: int) -> Tensor | None:
    if label is None or not model.conditional:
        return None
    return torch.full((n,), label, device=model.device)
