"""Look names up: models, losses and data sets that plugins registered. Imports no torch."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
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
        self._plugins = {(s.kind, s.name): record for record in self.records for s in record.specs}
        registered = {(s.kind, s.name): s for record in self.records for s in record.specs}
        self._specs = {key: _whole(spec, registered) for key, spec in registered.items()}

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
        if isinstance(spec, ModelSpec) and not spec.target:
            raise UnknownNameError(
                f"model {name} is a variant of {spec.variant_of!r}, which is no model with a class "
                "of its own here: install the plugin that brings it"
            )
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
        found = [self.get(kind, name) for kind in WORDS if (kind, name) in self._specs]
        if not found:
            known = {spec.name for spec in self.specs()}
            raise UnknownNameError(
                f"there is no model, loss or data set {name!r}{nearest(name, known)} "
                "(vaezoo list --kind all shows them)"
            )
        return found


def _whole(spec: Spec, registered: Mapping[tuple[Kind, str], Spec]) -> Spec:
    """A variant with what it has from its base, if that is here; anything else as it is."""
    if isinstance(spec, ModelSpec) and spec.variant_of is not None:
        base = registered.get(("model", spec.variant_of))
        if isinstance(base, ModelSpec) and base.target:
            return spec.built_on(base)
    return spec


@functools.cache
def registry() -> Registry:
    """The registry of this process: plugins are loaded at the first call, failures told once."""
    records = load_all()
    warn_of_failures(records)
    return Registry(records)
