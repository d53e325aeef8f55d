"""Plugins that are not installed: modules, files and single classes that the user names."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import inspect
import re
import sys
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from vaezoo.errors import VaezooError
from vaezoo.io import full_path
from vaezoo.plugins.specs import (
    BottleneckSpec,
    DatasetSpec,
    InputSpec,
    LikelihoodSpec,
    LossSpec,
    ModelSpec,
    NetworkSpec,
    SamplerSpec,
    Spec,
)

_ONE_CLASS = re.compile(r"(.+\.py|[A-Za-z_][\w.]*):([A-Za-z_]\w*)")

_KINDS: dict[tuple[str, str], type[Spec]] = {
    ("vaezoo.models.base", "BaseVAE"): ModelSpec,
    ("vaezoo.models.network", "Network"): NetworkSpec,
    ("vaezoo.models.bottleneck", "Bottleneck"): BottleneckSpec,
    ("vaezoo.models.likelihood", "Likelihood"): LikelihoodSpec,
    ("vaezoo.models.sampler", "Sampler"): SamplerSpec,
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
            bases = ", ".join(name for _, name in _KINDS)
            raise VaezooError(f"{self.attribute} is no class that derives from one of {bases}")
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
    """The classes of a kind that a module defines itself, abstract ones left out."""
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
    """The class of spec that a class is registered by; None if it has none of the bases."""
    names = [(base.__module__, base.__qualname__) for base in found.__mro__[1:]]
    return next((kind for name, kind in _KINDS.items() if name in names), None)


def base_class(kind: type[Spec]) -> type[Any]:
    """Import the base class of what specs of this class register."""
    module, name = next(base for base, of_kind in _KINDS.items() if of_kind.kind == kind.kind)
    return getattr(importlib.import_module(module), name)


def spec_of_class(found: type) -> Spec:
    """The spec of a class without hooks: its name, its docstring, its `options` annotation.

    Its class attributes `tags`, `input_spec`, `requires`, `domains`, `shape`, `default_loss` and
    `parts` are fields of the spec, where its kind has them.
    """
    kind = kind_of_class(found)
    assert kind is not None
    fields: dict[str, Any] = {
        "name": _snake_case(found.__name__),
        "target": f"{found.__module__}:{found.__name__}",
        "options": _options_of(found),
        "summary": (inspect.cleandoc(found.__doc__ or "") or found.__name__).splitlines()[0],
    }
    if kind in (ModelSpec, BottleneckSpec):
        conditional = ("labels",) if getattr(found, "conditional", False) else ()
        fields["tags"] = ("elbo", "importance", *conditional)
    if kind is ModelSpec:
        fields["parts"] = dict.fromkeys(getattr(found, "parts", ()), "")
        if hasattr(found, "default_loss"):
            fields["loss"] = found.default_loss
    if kind in (ModelSpec, NetworkSpec):
        fields["input_spec"] = InputSpec(ndims=(0, 1, 2, 3))
    known = {field.name for field in dataclasses.fields(kind)}
    for name in {"tags", "input_spec", "requires", "domains", "shape"} & known:
        fields[name] = getattr(found, name, fields.get(name, getattr(kind, name, ())))
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
