"""Load plugins: installed entry points, and modules or files that the user names."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from vaezoo.errors import VaezooError, nearest
from vaezoo.plugins.hookspecs import HOOKS, specifications
from vaezoo.plugins.sources import PluginSource, import_file
from vaezoo.plugins.specs import Spec

GROUP = "vaezoo"
MORE = "VAEZOO_PLUGINS"
FEWER = "VAEZOO_DISABLE_PLUGINS"
STRICT = "VAEZOO_STRICT_PLUGINS"

_LONGEST_ERROR = 400


@dataclass(frozen=True)
class Switches:
    """What the environment says about plugins.

    more: plugins by module or file, beside the installed ones (VAEZOO_PLUGINS, with commas).
    fewer: names of installed ones to leave out (VAEZOO_DISABLE_PLUGINS, with commas).
    strict: whether a plugin that fails is an error (VAEZOO_STRICT_PLUGINS=1).
    """

    more: tuple[str, ...] = ()
    fewer: tuple[str, ...] = ()
    strict: bool = False

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Switches:
        """Read the environment. VaezooError says which variable is wrong."""
        strict = environment.get(STRICT, "0")
        if strict not in ("", "0", "1"):
            raise VaezooError(f"{STRICT} is 1 or 0, not {strict!r}")
        texts = (environment.get(variable, "").split(",") for variable in (MORE, FEWER))
        more, fewer = (tuple(dict.fromkeys(filter(None, map(str.strip, t)))) for t in texts)
        return cls(more, fewer, strict == "1")


@dataclass
class PluginRecord:
    """One plugin: where it is from, and its specs or the error that it failed with.

    name: of the entry point, or what the user typed to name it.
    distribution, version: of the installed distribution; "" and a checksum for a file.
    """

    name: str
    module: str
    distribution: str
    version: str
    location: str = ""
    disabled: bool = False
    error: str = ""
    details: str = ""
    specs: list[Spec] = field(default_factory=list)

    @property
    def status(self) -> str:
        return "failed" if self.error else "disabled" if self.disabled else "loaded"

    @property
    def is_installed(self) -> bool:
        """Whether it is an installed entry point, not a file or module that the user named."""
        return bool(self.distribution)

    @property
    def source(self) -> str:
        """The distribution and its version, as far as they are known."""
        named = f"{self.distribution} {self.version}".rstrip()
        return named if self.is_installed else "not installed"

    @property
    def problem(self) -> str:
        """What is wrong with it, in one line; "" if nothing is."""
        what = f"plugin {self.name!r} ({self.source}) is left out: {self.error}"
        return f"{what} (more: vaezoo plugins --verbose)" if self.error else ""

    def fail(self, error: BaseException) -> None:
        """Record the error and drop the specs. If the user named the file, its line is added."""
        self.specs = []
        kind = "" if isinstance(error, VaezooError) else f"{type(error).__name__}: "
        try:
            message = textwrap.shorten(str(error), _LONGEST_ERROR, placeholder=" …")
        except Exception:  # its __str__ may be broken too
            message = ""
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == self.module]
        line = f" (line {lines[-1]})" if lines else ""
        self.error = f"{kind}{message or 'no message'}{line}"
        self.details = "".join(traceback.format_exception(error))


def find_entry_points() -> list[EntryPoint]:
    """Every entry point of the group: those of vaezoo first, then in a fixed order."""
    found = {(e.name, e.value, distribution_of(e)): e for e in entry_points(group=GROUP)}

    def order(entry: EntryPoint) -> tuple[bool, str, str, str]:
        name = distribution_of(entry)[0]
        return (name != "vaezoo", name, entry.name, entry.value)

    return sorted(found.values(), key=order)


def distribution_of(entry: EntryPoint) -> tuple[str, str]:
    """The name and the version of the distribution that an entry point is part of."""
    if entry.dist is None:
        return "unknown", ""
    # A distribution without METADATA has neither, although the types say so.
    return entry.dist.name or "unknown", entry.dist.version or ""


def load_all(
    entries: Iterable[EntryPoint] | None = None, switches: Switches | None = None
) -> list[PluginRecord]:
    """Load each plugin by itself. One that registers a name of an earlier plugin fails."""
    switches = Switches.read() if switches is None else switches
    records: list[PluginRecord] = []
    for entry in find_entry_points() if entries is None else entries:
        if entry.name in switches.fewer:
            record = PluginRecord(entry.name, entry.value, *distribution_of(entry), disabled=True)
        else:
            record = load(entry)
        records.append(check_conflicts(record, records))
    for text in switches.more:
        records.append(check_conflicts(load_named(PluginSource.parse(text)), records))
    return records


def load(entry: EntryPoint) -> PluginRecord:
    """Import an installed plugin and collect its specs; a plugin that raises gives no specs."""
    record = PluginRecord(entry.name, entry.value, *distribution_of(entry))
    with _isolated(record):
        if EntryPoint.pattern.match(entry.value) is None:
            raise VaezooError(f"its entry point {entry.value!r} is not 'package.module'")
        module = entry.load()
        record.location = str(getattr(module, "__file__", "") or "")
        record.specs = collect(module)
    return record


def load_named(source: PluginSource) -> PluginRecord:
    """Import a module or file that the user named, and collect its specs.

    Without hooks, its classes of a kind that vaezoo knows (a BaseVAE, a Network) are its specs.
    """
    record = PluginRecord(str(source), source.where, "", "")
    with _isolated(record):
        record.version = source.version()
        where = source.where
        if not source.is_file and not all(map(str.isidentifier, where.split("."))):
            raise VaezooError("it is neither FILE.py nor a module, as package.module")
        module = import_file(where) if source.is_file else importlib.import_module(where)
        record.location = str(getattr(module, "__file__", "") or "")
        hooked = _manager_of(module).get_hookcallers(module)
        record.specs = collect(module) if hooked else source.specs(module)
        if not any(source.picks(spec) for spec in record.specs):
            what = source.attribute or "class that vaezoo knows"
            raise VaezooError(f"{source.where} brings no {what}")
    return record


@contextlib.contextmanager
def _isolated(record: PluginRecord) -> Iterator[None]:
    """Keep whatever a plugin raises in its record; what it prints goes to stderr.

    So `vaezoo list --json` prints JSON and nothing else, whatever a plugin does.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except KeyboardInterrupt:  # the user's
        raise
    except BaseException as error:
        record.fail(error)


def collect(module: Any) -> list[Spec]:
    """Call the hooks of one plugin, in a plugin manager of its own."""
    manager = _manager_of(module)
    manager.check_pending()
    if not manager.get_hookcallers(module):
        name = getattr(module, "__name__", repr(module))
        raise VaezooError(
            f"{name} has no hook: mark one of {', '.join(HOOKS)} with @vaezoo.hookimpl"
        )
    specs: list[Spec] = []
    for hook, kind in HOOKS.items():
        getattr(manager.hook, hook)(register=_register_function(specs, hook, kind))
    return specs


def _manager_of(module: Any) -> pluggy.PluginManager:
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(specifications)
    manager.register(module)
    return manager


def _register_function(specs: list[Spec], hook: str, kind: type[Spec]) -> Callable[[Spec], None]:
    """The `register` of a hook: it appends to `specs`, also the loss that a model brings."""

    def register(spec: Spec) -> None:
        if not isinstance(spec, kind):
            raise VaezooError(f"{hook} takes a {kind.__name__}, not {type(spec).__name__}")
        for added in (spec, getattr(spec, "loss", None)):
            if isinstance(added, Spec):
                if any((added.kind, added.name) == (other.kind, other.name) for other in specs):
                    raise VaezooError(f"the {added.kind} name {added.name!r} is registered twice")
                specs.append(added)

    return register


def check_conflicts(record: PluginRecord, earlier: Iterable[PluginRecord]) -> PluginRecord:
    """The record, failed if an earlier plugin registered one of its names."""
    owners = {(spec.kind, spec.name): other for other in earlier for spec in other.specs}
    spec = next((spec for spec in record.specs if (spec.kind, spec.name) in owners), None)
    if spec is not None:
        hint = "uninstall one of them" if record.is_installed else "give the class another name"
        owner = owners[spec.kind, spec.name]
        both = " and ".join(
            f"plugin {r.name!r}" + (f" ({r.distribution})" if r.is_installed else "")
            for r in (owner, record)
        )
        message = f"the {spec.kind} name {spec.name!r} is registered by {both}: {hint}"
        record.fail(VaezooError(message))
    return record


def warn_problems(records: Iterable[PluginRecord], switches: Switches | None = None) -> None:
    """Print one line on stderr for each plugin that failed and each unknown name in `switches`."""
    records = list(records)
    known = {record.name for record in records}
    unknown = [name for name in (switches or Switches()).fewer if name not in known]
    lines = [record.problem for record in records]
    lines += [f"{FEWER} names no plugin by {name!r}{nearest(name, known)}" for name in unknown]
    for line in filter(None, lines):
        print(f"vaezoo: {line}", file=sys.stderr)


def raise_problems(records: Iterable[PluginRecord]) -> None:
    """VaezooError if any plugin failed, for --strict."""
    names = ", ".join(repr(record.name) for record in records if record.problem)
    if names:
        what = f"plugins failed, and --strict makes that an error: {names}"
        raise VaezooError(f"{what} (vaezoo plugins --verbose explains)")
