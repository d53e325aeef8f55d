"""What changes in the picture when one latent value moves and the others stay."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vaezoo.errors import OptionError
from vaezoo.evaluation.latents import (
    LatentStats,
    Order,
    decode_mean,
    prior_mean,
    prior_quantiles,
    project_to_prior,
)
from vaezoo.models.base import BaseVAE


@dataclass(frozen=True)
class TraversalRow:
    """One latent value on its way through the prior's quantiles.

    number: of the value, counted through the flattened latent. kl: in nats, None where the model's
    KL is no sum. images: [steps, *data.shape].
    """

    number: int
    kl: float | None
    std: float
    values: list[float]
    images: Tensor

    def to_dict(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "kl": self.kl,
            "std": self.std,
            "values": self.values,
        }


@dataclass(frozen=True)
class Traversal:
    """Rows of a model, the most informative first.

    order: what that goes by: the KL of each, or the standard deviation of the posteriors' points.
    num_ignored: how many of the more informative ones were left out, since the decoder does not
    use them.
    start: what the other values stay at, flattened.
    """

    rows: list[TraversalRow]
    order: Order
    num_ignored: int
    start: Tensor

    def to_dict(self) -> dict[str, Any]:
        return {
            "order": self.order,
            "num_ignored": self.num_ignored,
            "start": self.start.tolist(),
            "rows": [row.to_dict() for row in self.rows],
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
    shares = (torch.arange(steps) + 0.5) / steps
    with torch.no_grad():
        ways = prior_quantiles(model, shares, label).flatten(1)
        z = prior_mean(model, label) if start is None else start.to(model.device)
        prior = model.prior(None)
        found: list[TraversalRow] = []
        silent = 0
        for number in latents.ranked():
            if len(found) == rows:
                break
            moved = z.flatten(1).repeat(steps, 1)
            moved[:, number] = ways[:, number]
            images = decode_mean(
                model, project_to_prior(prior, moved.view(steps, *model.latent_shape)), label
            )
            if steps > 1 and bool((images == images[:1]).all()):
                silent += 1
                continue
            found.append(
                TraversalRow(
                    number=number,
                    kl=float(latents.kl[number])
                    if latents.kl is not None and latents.order == "kl"
                    else None,
                    std=float(latents.std[number]),
                    values=ways[:, number].tolist(),
                    images=images,
                )
            )
    return Traversal(found, latents.order, silent, z.flatten().cpu())


def reject_discrete(capabilities: Collection[str]) -> None:
    """OptionError for models whose latents are codes."""
    if "discrete" in capabilities:
        raise OptionError(
            "the latents of this model are codes: there is nothing between one and the next"
        )
