"""Look names up: models, losses and data sets that plugins registered. Imports no torch."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import cast

from vaezoo.errors import UnknownNameError, nearest
from vaezoo.plugins import PluginRecord, load_all, warn_of_failures
from vaezoo.specs import DatasetSpec, Kind, LossSpec, ModelSpec, Spec

PLURALS: dict[str, Kind] = {"models": "model", "losses": "loss", "datasets": "dataset"}
WORDS: dict[Kind, str] = {"model": "model", "loss": "loss", "dataset": "data set"}


class Registry:
    """The specs of every plugin that loaded, by kind and name."""

    def __init__(self, records: Iterable[PluginRecord]) -> None:
        self.records = list(records)
        self._specs = {(s.kind, s.name): s for record in self.records for s in record.specs}
        self._plugins = {(s.kind, s.name): record for record in self.records for s in record.specs}

    def specs(self, kind: Kind | None = None) -> list[Spec]:
        """All specs, or those of one kind, in the order of their names."""
        order = list(WORDS)
        found = [spec for spec in self._specs.values() if kind in (None, spec.kind)]
        return sorted(found, key=lambda spec: (order.index(spec.kind), spec.name))

    def plugin(self, spec: Spec) -> PluginRecord:
        """The plugin that registered a spec."""
        return self._plugins[spec.kind, spec.name]

    def get(self, kind: Kind, name: str) -> Spec:
        """The spec of that name, or UnknownNameError with the nearest ones."""
        spec = self._specs.get((kind, name))
        if spec is None:
            known = [s.name for s in self.specs(kind)]
            plural = next(plural for plural, k in PLURALS.items() if k == kind)
            raise UnknownNameError(
                f"there is no {WORDS[kind]} {name!r}{nearest(name, known)} "
                f"(vaezoo list --kind {plural} shows them)"
            )
        return spec

    def model(self, name: str) -> ModelSpec:
        return cast(ModelSpec, self.get("model", name))

    def loss(self, name: str) -> LossSpec:
        return cast(LossSpec, self.get("loss", name))

    def dataset(self, name: str) -> DatasetSpec:
        return cast(DatasetSpec, self.get("dataset", name))

    def find(self, name: str) -> list[Spec]:
        """Every spec of that name, of whatever kind, or UnknownNameError."""
        found = [spec for spec in self.specs() if spec.name == name]
        if not found:
            known = {spec.name for spec in self.specs()}
            raise UnknownNameError(
                f"there is no model, loss or data set {name!r}{nearest(name, known)} "
                "(vaezoo list --kind all shows them)"
            )
        return found


@functools.cache
def registry() -> Registry:
    """The registry of this process: plugins are loaded at the first call, failures told once."""
    records = load_all()
    warn_of_failures(records)
    return Registry(records)
