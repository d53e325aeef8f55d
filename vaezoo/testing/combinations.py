"""Which parts a model can be made of, found by training it with each for two steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, cast

from vaezoo.config import resolve_components
from vaezoo.errors import DataError, OptionError
from vaezoo.plugins.registry import registry
from vaezoo.plugins.specs import PARTS, ModelSpec, PartSpec
from vaezoo.testing.check import CheckFailed
from vaezoo.testing.subjects import ModelWithLoss


class Combination(NamedTuple):
    """A model with one other part than its own. reason: why they do not fit; "" if they do."""

    model: str
    part: PartSpec
    reason: str


def combinations(model: ModelSpec) -> Iterator[Combination]:
    """A model with its own loss, and each registered part in turn."""
    for kind in PARTS:
        for part in registry().specs(kind):
            found = cast(PartSpec, part)
            reason = ""
            try:
                resolve_components({"model": model.name, kind: part.name}, {})
                _train(model, found)
            except (OptionError, DataError) as error:
                reason = str(error)
            yield Combination(model.name, found, reason)


def _train(model: ModelSpec, part: PartSpec) -> None:
    """Train two steps, and fit the sampler. CheckFailed if a term is no number."""
    pair = ModelWithLoss(model, model.loss_name, parts={part.kind: part}, about=part.kind)
    built = pair.build()
    for values in pair.train(built, pair.batch(), 2):
        if not values.isfinite().all():
            raise CheckFailed(f"{model.name} with {part.kind} {part.name}: a term is no number")
    if part.kind == "sampler":
        built.fit_sampler([pair.batch()])
