"""The registry: look up by kind and name what plugins registered. It imports no torch."""

from __future__ import annotations

import functools
import os
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from vaezoo.errors import OptionError, UnknownNameError, VaezooError, did_you_mean, nearest, quoted
from vaezoo.plugins.loader import (
    MORE,
    PluginRecord,
    Switches,
    check_conflicts,
    load_all,
    load_named,
    raise_problems,
    warn_problems,
)
from vaezoo.plugins.sources import PluginSource, is_source, kind_of_class, spec_of_class
from vaezoo.plugins.specs import PARTS, PLURALS, SPECS, DatasetSpec, Kind, ModelSpec, Spec

WORDS: dict[Kind, str] = {kind: kind for kind in SPECS} | {"dataset": "data set"}


class Registry:
    """The specs of every plugin that loaded, by kind and name."""

    def __init__(self, records: Iterable[PluginRecord]) -> None:
        self.records = list(records)
        self._index()

    def _index(self) -> None:
        self._plugins = {(s.kind, s.name): record for record in self.records for s in record.specs}
        registered = {(s.kind, s.name): s for record in self.records for s in record.specs}
        self._specs = {key: _inherited(spec, registered) for key, spec in registered.items()}

    def add(self, source: str) -> PluginRecord:
        """Load a plugin that the user names: FILE.py or MODULE, with :Class for one class of it.

        Naming it again loads it again if its file has changed. VaezooError when it fails.
        """
        named = PluginSource.parse(source)
        before = next((record for record in self.records if record.name == str(named)), None)
        if before is not None and not before.error and before.version == named.version():
            return before
        others = [record for record in self.records if record is not before]
        record = check_conflicts(load_named(named), others)
        if record.error:
            raise VaezooError(f"{source}: {record.error}")
        self.records = [*others, record]
        self._index()
        return record

    def add_class(self, found: type) -> Spec:
        """Register a class that has no plugin, under its own name, and return its spec.

        VaezooError if it is no class of a kind, or another plugin has its name.
        """
        if kind_of_class(found) is None:
            raise VaezooError(f"{found.__name__} derives from no base class of vaezoo")
        spec = spec_of_class(found)
        record = PluginRecord(f"{found.__module__}:{found.__name__}", found.__module__, "", "")
        others = [other for other in self.records if other.name != record.name]
        record.specs = [spec]
        if check_conflicts(record, others).error:
            raise VaezooError(record.error)
        self.records = [*others, record]
        self._index()
        return spec

    def named(self) -> list[str]:
        """The files and modules that the user named, as a subprocess must name them again."""
        return [record.name for record in self.records if not record.is_installed]

    def resolve(self, kind: Kind, word: str) -> Spec:
        """The spec of a registered name or of FILE.py:Class, which is loaded.

        Only for words that the user typed. For words of a file use `get`, which loads nothing.
        """
        if not is_source(word):
            return self.get(kind, word)
        record, source = self.add(word), PluginSource.parse(word)
        found = [spec for spec in record.specs if spec.kind == kind and source.picks(spec)]
        if len(found) != 1:
            brings = " and ".join(f"the {WORDS[s.kind]} {s.name}" for s in record.specs)
            raise UnknownNameError(f"{word} is not one {WORDS[kind]}: it brings {brings}")
        return self.get(kind, found[0].name)

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
                f"model {name} is a variant of {spec.base!r}, and no installed plugin has a model "
                "of that name with a class of its own: install the plugin that brings it"
            )
        if spec is None:
            plural = next(plural for plural, of_kind in PLURALS.items() if of_kind == kind)
            raise UnknownNameError(
                f"there is no {WORDS[kind]} {quoted(name)}{_suggest(name, self.specs(kind))} "
                f"(vaezoo list --kind {plural} shows them)"
            )
        return spec

    def reader_of(self, found: object) -> DatasetSpec:
        """The data set that accepts an object, by the nearest of its classes. OptionError: none."""
        specs = [spec for spec in self.specs("dataset") if isinstance(spec, DatasetSpec)]
        for cls in type(found).__mro__:
            name = f"{cls.__module__}.{cls.__qualname__}"
            names = [spec for spec in specs if name in spec.accepts]
            if len(names) > 1:
                both = " and ".join(spec.name for spec in names)
                raise OptionError(f"data: a {name} is accepted by the data sets {both}")
            if names:
                return names[0]
        parts = [name.split(".") for spec in specs for name in spec.accepts]
        known = ", ".join(dict.fromkeys(f"{words[0]}.{words[-1]}" for words in parts))
        advice = ": numpy.array(data) is an array" * isinstance(found, (list, tuple))
        raise OptionError(
            f"data: should be the name of a data set, as vaezoo.list_datasets() shows them, or of "
            f"type {known}, not of type {type(found).__name__}{advice}"
        )

    def find(self, name: str) -> list[Spec]:
        """Every spec of that name or of that source, of any kind, or UnknownNameError.

        A metric or a part is left out if something else has its name, as the loss `elbo` has.
        """
        if is_source(name):
            source = PluginSource.parse(name)
            return [self.get(s.kind, s.name) for s in self.add(name).specs if source.picks(s)]
        found = [self.get(kind, name) for kind in WORDS if (kind, name) in self._specs]
        if not found:
            raise UnknownNameError(
                f"nothing of the name {quoted(name)} is registered"
                f"{_suggest(name, self.specs())} (vaezoo list --kind all shows them)"
            )
        return [spec for spec in found if spec.kind not in ("metric", *PARTS)] or found


def _suggest(word: str, specs: list[Spec]) -> str:
    """What a user may mean by a word that no spec has as its name."""
    path = Path(word)
    files = [spec for spec in specs if spec.kind == "dataset" and "files" in spec.tags]
    if files and (path.suffix or path.exists() or os.sep in word):
        kind = "directory" if path.is_dir() or not path.suffix else path.suffix.lower()
        fitting = [f"--data {s.name} --root {shlex.quote(word)}" for s in files if kind in s.tags]
        if fitting:
            return f"; did you mean {' or '.join(fitting)}?"
        readers = " or ".join(f"{spec.name} ({spec.summary})" for spec in files)
        return f", and none reads {kind} files: give --data {readers}"
    plain = _plain(word)
    found = [spec.name for spec in specs if plain in (_plain(spec.name), *spec.other_names)]
    return did_you_mean(found[:3]) or nearest(word, [spec.name for spec in specs])


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def _inherited(spec: Spec, registered: Mapping[tuple[Kind, str], Spec]) -> Spec:
    """A variant with the fields of its base, if that is registered; anything else as it is."""
    if not isinstance(spec, ModelSpec) or spec.base is None:
        return spec
    base = registered.get(("model", spec.base))
    others = {key: other for key, other in registered.items() if other is not spec}
    base = base and _inherited(base, others)  # without this one: bases of each other end here
    return spec.inherit(base) if isinstance(base, ModelSpec) and base.target else spec


@functools.cache
def registry() -> Registry:
    """The registry of this process. The first call loads the plugins and prints their problems."""
    switches = Switches.read()
    records = load_all(switches=switches)
    warn_problems(records, switches)
    if switches.strict:
        raise_problems(records)
    return Registry(records)


def subprocess_environment() -> dict[str, str]:
    """What to add to the environment of a subprocess, so that it knows the same names."""
    return {MORE: ",".join(registry().named())}
