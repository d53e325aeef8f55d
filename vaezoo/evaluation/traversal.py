"""What changes in the picture when one latent value moves and the others stay."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vaezoo.errors import OptionError
from vaezoo.evaluation.latents import Order, Survey, center, decoded, onto_prior, quantiles
from vaezoo.models.base import BaseVAE


@dataclass(frozen=True)
class Row:
    """One latent value on its way through the prior's quantiles.

    number: of the value, counted through the flattened latent. kl: in nats, None where the model's
    KL is no sum. images: [steps, *data.shape].
    """

    number: int
    kl: float | None
    spread: float
    values: list[float]
    images: Tensor

    def to_dict(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "kl": self.kl,
            "spread": self.spread,
            "values": self.values,
        }


@dataclass(frozen=True)
class Traversal:
    """Rows of a model, the most informative first.

    order: what that goes by: the KL of each, or the spread of the posteriors' points. silent: how
    many of the more informative ones were left out, since the decoder does not look at them.
    start: what the other values stay at, flattened.
    """

    rows: list[Row]
    order: Order
    silent: int
    start: Tensor

    def to_dict(self) -> dict[str, Any]:
        return {
            "order": self.order,
            "silent": self.silent,
            "start": self.start.tolist(),
            "rows": [row.to_dict() for row in self.rows],
        }


def traverse(
    model: BaseVAE,
    latents: Survey,
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
    refuse_codes(capabilities)
    shares = (torch.arange(steps) + 0.5) / steps
    with torch.no_grad():
        ways = quantiles(model, shares, label).flatten(1)
        z = center(model, label) if start is None else start.to(model.device)
        prior = model.prior(None)
        found: list[Row] = []
        silent = 0
        for number in latents.ranked():
            if len(found) == rows:
                break
            moved = z.flatten(1).repeat(steps, 1)
            moved[:, number] = ways[:, number]
            images = decoded(
                model, onto_prior(prior, moved.view(steps, *model.latent_shape)), label
            )
            if steps > 1 and bool((images == images[:1]).all()):
                silent += 1
                continue
            found.append(
                Row(
                    number=number,
                    kl=float(latents.kl[number])
                    if latents.kl is not None and latents.order == "kl"
                    else None,
                    spread=float(latents.spread[number]),
                    values=ways[:, number].tolist(),
                    images=images,
                )
            )
    return Traversal(found, latents.order, silent, z.flatten().cpu())


def refuse_codes(capabilities: Collection[str]) -> None:
    """OptionError for models whose latents are codes."""
    if "discrete" in capabilities:
        raise OptionError(
            "the latents of this model are codes: there is nothing between one and the next"
        )
