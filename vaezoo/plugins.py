"""Load plugins one entry point at a time, so that a broken one costs a line and nothing else."""

from __future__ import annotations

import contextlib
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from vaezoo import hookspecs
from vaezoo.errors import VaezooError
from vaezoo.specs import DatasetSpec, LossSpec, ModelSpec, Spec

GROUP = "vaezoo"
_LONGEST_ERROR = 400

_HOOKS: dict[str, type[Spec]] = {
    "register_models": ModelSpec,
    "register_losses": LossSpec,
    "register_datasets": DatasetSpec,
}


@dataclass
class PluginRecord:
    """What was found behind one entry point, and what became of it."""

    name: str
    module: str
    distribution: str
    version: str
    location: str = ""
    error: str = ""
    details: str = ""
    specs: list[Spec] = field(default_factory=list)

    @property
    def status(self) -> str:
        return "failed" if self.error else "loaded"

    @property
    def source(self) -> str:
        """The distribution and its version, as far as they are known."""
        return f"{self.distribution} {self.version}".rstrip()

    def fail(self, error: BaseException) -> None:
        self.specs = []
        message = textwrap.shorten(str(error), _LONGEST_ERROR, placeholder=" …")
        kind = "" if isinstance(error, VaezooError) else f"{type(error).__name__}: "
        self.error = kind + (message or "no message")
        self.details = "".join(traceback.format_exception(error))


def find_entry_points() -> list[EntryPoint]:
    """Every entry point of the group, our own distribution's first, then in a fixed order."""

    def order(entry: EntryPoint) -> tuple[bool, str, str, str]:
        name = _distribution(entry)[0]
        return (name != "vaezoo", name, entry.name, entry.value)

    return sorted(set(entry_points(group=GROUP)), key=order)


def load_all(entries: Iterable[EntryPoint] | None = None) -> list[PluginRecord]:
    """Load each entry point by itself; names already taken fail the plugin that claims them."""
    claims: dict[tuple[str, str], PluginRecord] = {}
    records = []
    for entry in find_entry_points() if entries is None else entries:
        record = load(entry)
        for spec in record.specs:
            holder = claims.get((spec.kind, spec.name))
            if holder is not None:
                record.fail(
                    VaezooError(
                        f"the {spec.kind} name {spec.name!r} is claimed by plugin {record.name!r} "
                        f"({record.distribution}) and held by plugin {holder.name!r} "
                        f"({holder.distribution}): uninstall one of them"
                    )
                )
                break
        claims.update({(spec.kind, spec.name): record for spec in record.specs})
        records.append(record)
    return records


def load(entry: EntryPoint) -> PluginRecord:
    """Import one plugin and collect its specs: all of them, or none and the reason."""
    distribution, version = _distribution(entry)
    record = PluginRecord(entry.name, entry.value, distribution, version)
    try:
        if EntryPoint.pattern.match(entry.value) is None:
            raise VaezooError(f"its entry point {entry.value!r} is not 'package.module'")
        # What it prints must not get into the output of `vaezoo list --json`.
        with contextlib.redirect_stdout(sys.stderr):
            module = entry.load()
            record.location = str(getattr(module, "__file__", "") or "")
            record.specs = collect(module)
    except (Exception, SystemExit) as error:  # a plugin may raise anything; we go on without it
        record.fail(error)
    return record


def collect(module: Any) -> list[Spec]:
    """Call the hooks of one plugin in a manager of its own, thrown away if any of them fails."""
    manager = pluggy.PluginManager("vaezoo")
    manager.add_hookspecs(hookspecs)
    manager.register(module)
    manager.check_pending()
    if not manager.get_hookcallers(module):
        name = getattr(module, "__name__", repr(module))
        raise VaezooError(
            f"{name} has no hook: mark register_models, register_losses or register_datasets "
            "with @vaezoo.hookimpl"
        )
    specs: list[Spec] = []
    for hook, kind in _HOOKS.items():
        getattr(manager.hook, hook)(register=_collector(specs, hook, kind))
    return specs


def _collector(specs: list[Spec], hook: str, kind: type[Spec]) -> Callable[[Spec], None]:
    def register(spec: Spec) -> None:
        if not isinstance(spec, kind):
            raise VaezooError(f"{hook} takes a {kind.__name__}, not {type(spec).__name__}")
        if any((spec.kind, spec.name) == (other.kind, other.name) for other in specs):
            raise VaezooError(f"the {spec.kind} name {spec.name!r} is registered twice")
        specs.append(spec)

    return register


def warn_of_failures(records: Iterable[PluginRecord]) -> None:
    """One line on stderr for each plugin that failed."""
    for record in records:
        if record.error:
            print(
                f"vaezoo: plugin {record.name!r} ({record.source}) is left out: {record.error} "
                "(more: vaezoo plugins --verbose)",
                file=sys.stderr,
            )


def _distribution(entry: EntryPoint) -> tuple[str, str]:
    if entry.dist is None:
        return "unknown", ""
    # A distribution without METADATA has neither, whatever its types promise.
    return entry.dist.name or "unknown", entry.dist.version or ""
