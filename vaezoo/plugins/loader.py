"""Load plugins: installed entry points, and modules or files that the user names."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import inspect
import math
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint, entry_points
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from vaezoo.errors import VaezooError, nearest
from vaezoo.io import full_path
from vaezoo.plugins import hookspecs
from vaezoo.plugins.isolation import TookTooLong, captured, deadline
from vaezoo.plugins.specs import (
    DatasetSpec,
    InputSpec,
    Kind,
    LoggerSpec,
    LossSpec,
    MetricSpec,
    ModelSpec,
    Spec,
)

MORE = "VAEZOO_PLUGINS"
FEWER = "VAEZOO_DISABLE_PLUGINS"
STRICT = "VAEZOO_STRICT_PLUGINS"
SECONDS = "VAEZOO_PLUGIN_SECONDS"

_DEFAULT_SECONDS = 10.0


@dataclass(frozen=True)
class Switches:
    """more: plugins by module or file, beside the installed ones (VAEZOO_PLUGINS, with commas).
    fewer: names of installed ones to leave alone (VAEZOO_DISABLE_PLUGINS, with commas).
    strict: whether a plugin that makes trouble is an error (VAEZOO_STRICT_PLUGINS=1).
    seconds: how long an installed one may take to load (VAEZOO_PLUGIN_SECONDS).
    """

    more: tuple[str, ...] = ()
    fewer: tuple[str, ...] = ()
    strict: bool = False
    seconds: float = _DEFAULT_SECONDS

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Switches:
        """From the environment. VaezooError says which variable is wrong."""
        return cls(
            more=_listed(environment.get(MORE, "")),
            fewer=_listed(environment.get(FEWER, "")),
            strict=_is_on(environment.get(STRICT, "0")),
            seconds=_seconds(environment.get(SECONDS, str(_DEFAULT_SECONDS))),
        )


def _listed(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _is_on(text: str) -> bool:
    if text not in ("", "0", "1"):
        raise VaezooError(f"{STRICT} is 1 or 0, not {text!r}")
    return text == "1"


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise VaezooError(f"{SECONDS} is a number of seconds above 0, not {text!r}")
    return seconds


_LONGEST_ERROR = 400
_LONGEST_PRINT = 80

_HOOKS: dict[str, type[Spec]] = {
    "register_models": ModelSpec,
    "register_losses": LossSpec,
    "register_datasets": DatasetSpec,
    "register_metrics": MetricSpec,
    "register_loggers": LoggerSpec,
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

    def problem(self) -> str | None:
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
        records.append(check_conflicts(record, records))
    for text in switches.more:
        records.append(check_conflicts(load_named(PluginSource.parse(text)), records))
    return records


def check_conflicts(record: PluginRecord, holders: Iterable[PluginRecord]) -> PluginRecord:
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


def load_named(source: PluginSource) -> PluginRecord:
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


def warn_problems(records: Iterable[PluginRecord], switches: Switches | None = None) -> None:
    """One line on stderr for each plugin that failed or printed, and each unknown name."""
    records = list(records)
    known = {record.name for record in records}
    lines = [record.problem() for record in records]
    for name in (switches or Switches()).fewer:
        if name not in known:
            lines.append(f"{FEWER} names no plugin by {name!r}{nearest(name, known)}")
    for line in filter(None, lines):
        print(f"vaezoo: {line}", file=sys.stderr)


def raise_problems(records: Iterable[PluginRecord]) -> None:
    """VaezooError if any plugin failed or printed: what a strict caller asks for."""
    names = [repr(record.name) for record in records if record.problem()]
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
        for added in (spec, getattr(spec, "loss", None)):
            if isinstance(added, Spec):
                if any((added.kind, added.name) == (other.kind, other.name) for other in specs):
                    raise VaezooError(f"the {added.kind} name {added.name!r} is registered twice")
                specs.append(added)

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


GROUP = "vaezoo"

_ONE_CLASS = re.compile(r"(.+\.py|[A-Za-z_][\w.]*):([A-Za-z_]\w*)")

_KINDS: dict[tuple[str, str], type[Spec]] = {
    ("vaezoo.models.base", "BaseVAE"): ModelSpec,
    ("vaezoo.losses.base", "BaseLoss"): LossSpec,
    ("vaezoo.data.base", "BaseDataset"): DatasetSpec,
}
"""The base classes, by their names: to import them here would import torch."""


def find_entry_points() -> list[EntryPoint]:
    """Every entry point of the group, our own distribution's first, then in a fixed order."""
    found = {(e.name, e.value, distribution_of(e)): e for e in entry_points(group=GROUP)}

    def order(entry: EntryPoint) -> tuple[bool, str, str, str]:
        name = distribution_of(entry)[0]
        return (name != "vaezoo", name, entry.name, entry.value)

    return sorted(found.values(), key=order)


def distribution_of(entry: EntryPoint) -> tuple[str, str]:
    """The name and the version of the distribution that an entry point is part of."""
    if entry.dist is None:
        return "unknown", ""
    # A distribution without METADATA has neither, whatever its types promise.
    return entry.dist.name or "unknown", entry.dist.version or ""


def is_source(text: str) -> bool:
    """Whether a word is no registered name but says where something is: FILE.py or MODULE:Class."""
    return text.endswith(".py") or _ONE_CLASS.fullmatch(text) is not None


@dataclass(frozen=True)
class PluginSource:
    """A module or a file that the user named, as a whole or one class of it.

    where: `package.module`, or the absolute path of a file. attribute: the class, or "".
    """

    where: str
    attribute: str

    @classmethod
    def parse(cls, text: str) -> PluginSource:
        match = _ONE_CLASS.fullmatch(text)
        where, attribute = (match[1], match[2]) if match else (text, "")
        if where.endswith(".py"):
            where = str(full_path(where))
        return cls(where, attribute)

    def __str__(self) -> str:
        """What to type to name it again, from any folder."""
        return f"{self.where}:{self.attribute}" if self.attribute else self.where

    @property
    def is_file(self) -> bool:
        return self.where.endswith(".py")

    def version(self) -> str:
        """A file's checksum; "" for a module. VaezooError when the file cannot be read."""
        return f"sha256:{hashlib.sha256(_read(self.where)).hexdigest()}" if self.is_file else ""

    def load(self) -> ModuleType:
        """Import it: whatever it raises is raised."""
        return import_file(self.where) if self.is_file else importlib.import_module(self.where)

    def specs(self, module: ModuleType) -> list[Spec]:
        """Specs of the classes that it defines, or of the one that was named."""
        if self.attribute:
            return [spec_of_class(self._class_in(module))]
        return [spec_of_class(found) for found in _classes(module)]

    def picks(self, spec: Spec) -> bool:
        """Whether a spec is of the class that was named, or of any where none was."""
        return not self.attribute or spec.target.endswith(f":{self.attribute}")

    def _class_in(self, module: ModuleType) -> type:
        found = getattr(module, self.attribute, None)
        if found is None:
            known = ", ".join(c.__name__ for c in _classes(module)) or "none of a model"
            raise VaezooError(f"{self.where} has no class {self.attribute} (it has {known})")
        if not isinstance(found, type) or kind_of_class(found) is None:
            raise VaezooError(f"{self.attribute} is no BaseVAE, BaseLoss or BaseDataset class")
        return found


def import_file(path: str) -> ModuleType:
    """The module that a file holds, run once for each content that it has had."""
    content = _read(path)
    # A name of its own: it neither hides a module of the same name nor is hidden by one.
    stem = re.sub(r"\W", "_", Path(path).stem, flags=re.ASCII)
    name = f"file_{stem}_{hashlib.sha256(content).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    module = module_from_spec(ModuleSpec(name, loader=None, origin=path))
    module.__file__ = path
    sys.modules[name] = module  # before it runs: what it defines is looked up by this name
    try:
        exec(compile(content, path, "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise VaezooError(f"cannot read {path}: {error.strerror or error}") from None


def _classes(module: ModuleType) -> list[type]:
    """The models, losses and data sets that a module defines itself, abstract ones left out."""
    return [
        found
        for name, found in vars(module).items()
        if isinstance(found, type)
        and found.__module__ == module.__name__
        and not name.startswith("_")
        and not inspect.isabstract(found)
        and kind_of_class(found) is not None
    ]


def kind_of_class(found: type) -> type[Spec] | None:
    """The kind of spec that a class is registered by; None if it is nothing that is."""
    names = [(base.__module__, base.__qualname__) for base in found.__mro__[1:]]
    return next((kind for name, kind in _KINDS.items() if name in names), None)


def spec_of_class(found: type) -> Spec:
    """What a class says of itself. A plugin that wants to say more has hooks."""
    kind = kind_of_class(found)
    assert kind is not None
    about: dict[str, Any] = {
        "name": _snake_case(found.__name__),
        "target": f"{found.__module__}:{found.__name__}",
        "options": _options_of(found),
        "summary": (inspect.cleandoc(found.__doc__ or "") or found.__name__).splitlines()[0],
    }
    if kind is ModelSpec:
        conditional = ("labels",) if getattr(found, "conditional", False) else ()
        about |= {
            "tags": ("elbo", "importance", *conditional),
            "input_spec": InputSpec(vectors=True),
        }
    return kind(**about)


def _options_of(found: type) -> str | None:
    """Where the class of its options is, as its annotation `options: MyOptions` says."""
    for cls in found.__mro__:
        said = inspect.get_annotations(cls).get("options")
        if said is not None:
            if isinstance(said, str):
                said = eval(said, vars(sys.modules[cls.__module__]))
            return f"{said.__module__}:{said.__qualname__}"
    return None


def _snake_case(name: str) -> str:
    """MyVAE -> my_vae, VQVAE2 -> vqvae2, StudentT -> student_t."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
