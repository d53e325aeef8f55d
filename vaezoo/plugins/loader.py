"""Load plugins: installed entry points, and modules or files that the user names."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import inspect
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
from vaezoo.plugins.specs import (
    DatasetSpec,
    InputSpec,
    LoggerSpec,
    LossSpec,
    MetricSpec,
    ModelSpec,
    Spec,
)

GROUP = "vaezoo"
MORE = "VAEZOO_PLUGINS"
FEWER = "VAEZOO_DISABLE_PLUGINS"
STRICT = "VAEZOO_STRICT_PLUGINS"

_LONGEST_ERROR = 400

_HOOKS: dict[str, type[Spec]] = {
    "register_models": ModelSpec,
    "register_losses": LossSpec,
    "register_datasets": DatasetSpec,
    "register_metrics": MetricSpec,
    "register_loggers": LoggerSpec,
}


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

    Without hooks, the models, losses and data sets that it defines are its specs.
    """
    record = PluginRecord(str(source), source.where, "", "")
    with _isolated(record):
        record.version = source.version()
        where = source.where
        module = import_file(where) if source.is_file else importlib.import_module(where)
        record.location = str(getattr(module, "__file__", "") or "")
        hooked = _manager_of(module).get_hookcallers(module)
        record.specs = collect(module) if hooked else source.specs(module)
        if not any(source.picks(spec) for spec in record.specs):
            what = source.attribute or "model, loss or data set"
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
            f"{name} has no hook: mark one of {', '.join(_HOOKS)} with @vaezoo.hookimpl"
        )
    specs: list[Spec] = []
    for hook, kind in _HOOKS.items():
        getattr(manager.hook, hook)(register=_register_function(specs, hook, kind))
    return specs


def _manager_of(module: Any) -> pluggy.PluginManager:
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
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


_ONE_CLASS = re.compile(r"(.+\.py|[A-Za-z_][\w.]*):([A-Za-z_]\w*)")

_KINDS: dict[tuple[str, str], type[Spec]] = {
    ("vaezoo.models.base", "BaseVAE"): ModelSpec,
    ("vaezoo.losses.base", "BaseLoss"): LossSpec,
    ("vaezoo.data.base", "BaseDataset"): DatasetSpec,
}
"""The spec class of each base class, by name: importing the base classes would import torch."""


def is_source(text: str) -> bool:
    """Whether a word is FILE.py or MODULE:Class, and not the name of something registered."""
    return text.endswith(".py") or _ONE_CLASS.fullmatch(text) is not None


@dataclass(frozen=True)
class PluginSource:
    """A module or a file that the user named, or one class in it.

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
        """What to type to name it again, in any folder."""
        return f"{self.where}:{self.attribute}" if self.attribute else self.where

    @property
    def is_file(self) -> bool:
        return self.where.endswith(".py")

    def version(self) -> str:
        """A file's checksum; "" for a module. VaezooError when the file cannot be read."""
        return f"sha256:{hashlib.sha256(_read(self.where)).hexdigest()}" if self.is_file else ""

    def specs(self, module: ModuleType) -> list[Spec]:
        """Specs of the classes that the module defines, or of the class that was named."""
        if not self.attribute:
            return [spec_of_class(cls) for cls in _classes(module)]
        found = getattr(module, self.attribute, None)
        if found is None:
            known = ", ".join(cls.__name__ for cls in _classes(module)) or "none"
            raise VaezooError(f"{self.where} has no class {self.attribute} (it has {known})")
        if not isinstance(found, type) or kind_of_class(found) is None:
            raise VaezooError(f"{self.attribute} is no BaseVAE, BaseLoss or BaseDataset class")
        return [spec_of_class(found)]

    def picks(self, spec: Spec) -> bool:
        """Whether a spec is of the class that was named. Without a named class, every spec is."""
        return not self.attribute or spec.target.endswith(f":{self.attribute}")


def import_file(path: str) -> ModuleType:
    """Import a file as a module. It runs once, and again only if its content has changed."""
    content = _read(path)
    # A name that no installed module has.
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
    """The class of spec that a class is registered by; None if it is no model, loss or data set."""
    names = [(base.__module__, base.__qualname__) for base in found.__mro__[1:]]
    return next((kind for name, kind in _KINDS.items() if name in names), None)


def spec_of_class(found: type) -> Spec:
    """The spec of a class without hooks: its name, its docstring and its `options` annotation."""
    kind = kind_of_class(found)
    assert kind is not None
    fields: dict[str, Any] = {
        "name": _snake_case(found.__name__),
        "target": f"{found.__module__}:{found.__name__}",
        "options": _options_of(found),
        "summary": (inspect.cleandoc(found.__doc__ or "") or found.__name__).splitlines()[0],
    }
    if kind is ModelSpec:
        conditional = ("labels",) if getattr(found, "conditional", False) else ()
        fields["tags"] = ("elbo", "importance", *conditional)
        fields["input_spec"] = InputSpec(vectors=True)
    return kind(**fields)


def _options_of(found: type) -> str | None:
    """The import string of its options, from its annotation `options: MyOptions`."""
    for cls in found.__mro__:
        annotation = inspect.get_annotations(cls).get("options")
        if annotation is not None:
            if isinstance(annotation, str):
                annotation = eval(annotation, vars(sys.modules[cls.__module__]))
            return f"{annotation.__module__}:{annotation.__qualname__}"
    return None


def _snake_case(name: str) -> str:
    """MyVAE -> my_vae, VQVAE2 -> vqvae2, StudentT -> student_t."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
