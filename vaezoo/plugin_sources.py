"""Where plugins come from: entry points of what is installed, and modules or files that are named.

A file is read once: what is hashed is what is run. Nothing here imports a file that the user did
not name.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
import sys
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint, entry_points
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from vaezoo.errors import VaezooError
from vaezoo.files import full_path
from vaezoo.specs import DatasetSpec, LossSpec, ModelSpec, Spec, Takes

GROUP = "vaezoo"

_ONE_CLASS = re.compile(r"(.+\.py|[A-Za-z_][\w.]*):([A-Za-z_]\w*)")

_KINDS: dict[tuple[str, str], type[Spec]] = {
    ("vaezoo.model", "BaseVAE"): ModelSpec,
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
class NamedSource:
    """A module or a file that the user named, as a whole or one class of it.

    where: `package.module`, or the absolute path of a file. attribute: the class, or "".
    """

    where: str
    attribute: str

    @classmethod
    def parse(cls, text: str) -> NamedSource:
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
        about |= {"tags": ("elbo", "importance", *conditional), "takes": Takes(vectors=True)}
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
