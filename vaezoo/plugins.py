"""Load plugins one at a time, so that a broken one costs a line and nothing else."""

from __future__ import annotations

import contextlib
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from typing import Any

import pluggy

from vaezoo import hookspecs
from vaezoo.errors import VaezooError, nearest
from vaezoo.isolation import TookTooLong, captured, deadline
from vaezoo.plugin_sources import NamedSource, distribution_of, find_entry_points
from vaezoo.plugin_switches import FEWER, SECONDS, Switches
from vaezoo.specs import DatasetSpec, Kind, LossSpec, MetricSpec, ModelSpec, Spec, WriterSpec

_LONGEST_ERROR = 400
_LONGEST_PRINT = 80

_HOOKS: dict[str, type[Spec]] = {
    "register_models": ModelSpec,
    "register_losses": LossSpec,
    "register_datasets": DatasetSpec,
    "register_metrics": MetricSpec,
    "register_writers": WriterSpec,
}


@dataclass
class PluginRecord:
    """What was found behind one entry point, module or file, and what became of it.

    name: of the entry point; of what the user named: what to type to name it again.
    distribution, version: what was installed; "" and a checksum for a file.
    printed: what it wrote while it was loading.
    """

    name: str
    module: str
    distribution: str
    version: str
    location: str = ""
    disabled: bool = False
    error: str = ""
    details: str = ""
    printed: str = ""
    specs: list[Spec] = field(default_factory=list)

    @property
    def status(self) -> str:
        return "failed" if self.error else "disabled" if self.disabled else "loaded"

    @property
    def is_installed(self) -> bool:
        """False for what the user named."""
        return bool(self.distribution)

    @property
    def source(self) -> str:
        """The distribution and its version, as far as they are known."""
        if not self.is_installed:
            return "not installed"
        return f"{self.distribution} {self.version}".rstrip()

    def fail(self, error: BaseException) -> None:
        self.specs = []
        kind = "" if isinstance(error, VaezooError) else f"{type(error).__name__}: "
        self.error = kind + (_words_of(error) or "no message") + self._line_of(error)
        self.details = "".join(traceback.format_exception(error))

    def _line_of(self, error: BaseException) -> str:
        """Where in a file that the user named it was raised."""
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == self.module]
        return f" (line {lines[-1]})" if lines else ""

    def trouble(self) -> str | None:
        """What is wrong with it, in one line, or None."""
        what = f"plugin {self.name!r} ({self.source})"
        if self.error:
            return f"{what} is left out: {self.error} (more: vaezoo plugins --verbose)"
        if self.printed:
            first = textwrap.shorten(self.printed, _LONGEST_PRINT, placeholder=" …")
            return f"{what} prints while it loads: {first} (all: vaezoo plugins --verbose)"
        return None


def load_all(
    entries: Iterable[EntryPoint] | None = None, switches: Switches | None = None
) -> list[PluginRecord]:
    """Load each plugin by itself; names already taken fail the plugin that claims them."""
    switches = Switches.read() if switches is None else switches
    records: list[PluginRecord] = []
    for entry in find_entry_points() if entries is None else entries:
        if entry.name in switches.fewer:
            record = PluginRecord(entry.name, entry.value, *distribution_of(entry), disabled=True)
        else:
            record = load(entry, switches.seconds)
        records.append(claim(record, records))
    for text in switches.more:
        records.append(claim(load_named(NamedSource.parse(text)), records))
    return records


def claim(record: PluginRecord, holders: Iterable[PluginRecord]) -> PluginRecord:
    """The record, failed if one of its names is held by another."""
    held = {(spec.kind, spec.name): holder for holder in holders for spec in holder.specs}
    for spec in record.specs:
        holder = held.get((spec.kind, spec.name))
        if holder is not None:
            record.fail(_claimed_twice(spec.kind, spec.name, record, holder))
            break
    return record


def load(entry: EntryPoint, seconds: float = Switches.seconds) -> PluginRecord:
    """Import an installed plugin and collect its specs: all of them, or none and the reason.

    seconds: how long it may take; see `deadline` for what can be held to it.
    """
    record = PluginRecord(entry.name, entry.value, *distribution_of(entry))
    with _isolated(record), _held_to(seconds, entry.name):
        if EntryPoint.pattern.match(entry.value) is None:
            raise VaezooError(f"its entry point {entry.value!r} is not 'package.module'")
        module = entry.load()
        record.location = str(getattr(module, "__file__", "") or "")
        record.specs = collect(module)
    return record


def load_named(source: NamedSource) -> PluginRecord:
    """The same for a module or file that the user named, who may wait for it as long as it takes.

    It brings what its hooks register. Without hooks it brings the classes that it defines.
    """
    record = PluginRecord(str(source), source.where, "", "")
    with _isolated(record):
        record.version = source.version()
        module = source.load()
        record.location = str(getattr(module, "__file__", "") or "")
        record.specs = collect(module) if _has_hooks(module) else source.specs(module)
        if not any(source.picks(spec) for spec in record.specs):
            what = source.attribute or "model, loss or data set"
            raise VaezooError(f"{source.where} brings no {what}")
    return record


def collect(module: Any) -> list[Spec]:
    """Call the hooks of one plugin in a manager of its own, thrown away if any of them fails."""
    manager = _managed(module)
    manager.check_pending()
    if not manager.get_hookcallers(module):
        name = getattr(module, "__name__", repr(module))
        raise VaezooError(
            f"{name} has no hook: mark one of {', '.join(_HOOKS)} with @vaezoo.hookimpl"
        )
    specs: list[Spec] = []
    for hook, kind in _HOOKS.items():
        getattr(manager.hook, hook)(register=_collector(specs, hook, kind))
    return specs


def warn_of_trouble(records: Iterable[PluginRecord], switches: Switches | None = None) -> None:
    """One line on stderr for each plugin that failed or printed, and each unknown name."""
    records = list(records)
    known = {record.name for record in records}
    lines = [record.trouble() for record in records]
    for name in (switches or Switches()).fewer:
        if name not in known:
            lines.append(f"{FEWER} names no plugin by {name!r}{nearest(name, known)}")
    for line in filter(None, lines):
        print(f"vaezoo: {line}", file=sys.stderr)


def require_no_trouble(records: Iterable[PluginRecord]) -> None:
    """VaezooError if any plugin failed or printed: what a strict caller asks for."""
    names = [repr(record.name) for record in records if record.trouble()]
    if names:
        raise VaezooError(
            f"plugins are held to be strict, and there is trouble with {', '.join(names)} "
            "(vaezoo plugins --verbose explains)"
        )


@contextlib.contextmanager
def _isolated(record: PluginRecord) -> Iterator[None]:
    """Whatever a plugin raises fails its record, and what it prints is kept there."""
    with captured() as output:
        try:
            yield
        except KeyboardInterrupt:  # the user's
            raise
        except BaseException as error:
            record.fail(error)
    record.printed = output.getvalue()


@contextlib.contextmanager
def _held_to(seconds: float, name: str) -> Iterator[None]:
    try:
        with deadline(seconds):
            yield
    except TookTooLong as error:
        raise VaezooError(
            f"{error} to load: {FEWER}={name} does without it, {SECONDS} gives it longer"
        ) from error


def _managed(module: Any) -> pluggy.PluginManager:
    manager = pluggy.PluginManager("vaezoo")
    manager.add_hookspecs(hookspecs)
    manager.register(module)
    return manager


def _has_hooks(module: Any) -> bool:
    return bool(_managed(module).get_hookcallers(module))


def _collector(specs: list[Spec], hook: str, kind: type[Spec]) -> Callable[[Spec], None]:
    def register(spec: Spec) -> None:
        if not isinstance(spec, kind):
            raise VaezooError(f"{hook} takes a {kind.__name__}, not {type(spec).__name__}")
        if any((spec.kind, spec.name) == (other.kind, other.name) for other in specs):
            raise VaezooError(f"the {spec.kind} name {spec.name!r} is registered twice")
        specs.append(spec)

    return register


def _claimed_twice(
    kind: Kind, name: str, claimant: PluginRecord, holder: PluginRecord
) -> VaezooError:
    def described(record: PluginRecord) -> str:
        installed = f" ({record.distribution})" if record.is_installed else ""
        return f"plugin {record.name!r}{installed}"

    mend = "uninstall one of them" if claimant.is_installed else "give the class another name"
    return VaezooError(
        f"the {kind} name {name!r} is claimed by {described(claimant)} and held by "
        f"{described(holder)}: {mend}"
    )


def _words_of(error: BaseException) -> str:
    try:
        return textwrap.shorten(str(error), _LONGEST_ERROR, placeholder=" …")
    except Exception:  # its own words may be broken too
        return ""
