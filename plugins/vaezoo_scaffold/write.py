"""Write the files of a new plugin package, which installs and passes its tests as it is."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template

from vaezoo import VaezooError
from vaezoo.errors import RunError
from vaezoo.io import cannot_write
from vaezoo.plugins.registry import WORDS, registry
from vaezoo.plugins.specs import API_VERSION, PARTS, Kind

_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")

KINDS: tuple[Kind, ...] = ("model", *PARTS, "loss", "dataset")
"""What a package can bring."""

_ENDINGS: Mapping[Kind, str] = {kind: f"_{kind}" for kind in KINDS} | {
    "model": "",
    "dataset": "_data",
}
"""Endings of the names where one package brings several things."""

_SUMMARIES: Mapping[Kind, str] = {
    "model": "A VAE with a Gaussian latent, to start from",
    "network": "A network of one hidden layer, to start from",
    "bottleneck": "A Gaussian latent, to start from",
    "likelihood": "A Gaussian likelihood, to start from",
    "sampler": "A Gaussian that is fitted to the latents, to start from",
    "loss": "The ELBO with a weight on the rate, to start from",
    "dataset": "Grey stripes, to start from",
}
_IMPORTS: Mapping[Kind, tuple[str, ...]] = {
    "model": ("InputSpec", "ModelSpec", "Options"),
    "network": ("InputSpec", "NetworkSpec", "Options"),
    "bottleneck": ("BottleneckSpec", "LatentOptions"),
    "likelihood": ("LikelihoodSpec", "Options"),
    "sampler": ("Options", "SamplerSpec"),
    "loss": ("LossSpec", "Options"),
    "dataset": ("DataOptions", "DatasetSpec"),
}
_COMMANDS: Mapping[Kind, str] = {
    "model": "vaezoo train {}",
    "network": "vaezoo train vanilla --network {}",
    "bottleneck": "vaezoo train vanilla --bottleneck {}",
    "likelihood": "vaezoo train vanilla --likelihood {}",
    "sampler": "vaezoo train autoencoder --sampler {}",
    "loss": "vaezoo train vanilla --loss {}",
    "dataset": "vaezoo train vanilla --data {}",
}


@dataclass(frozen=True)
class Package:
    """A new package: the name of its distribution, and the kinds of things that it brings."""

    distribution: str
    kinds: tuple[Kind, ...]

    @property
    def package(self) -> str:
        return self.distribution.replace("-", "_")

    def names(self) -> dict[Kind, str]:
        """The registered name of each thing."""
        alone = len(self.kinds) == 1
        return {kind: self.package + ("" if alone else _ENDINGS[kind]) for kind in self.kinds}

    def brings(self) -> str:
        words = [f"the {WORDS[kind]} {name}" for kind, name in self.names().items()]
        return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))

    def commands(self) -> list[str]:
        """Commands to try once it is installed."""
        names = self.names()
        lines = [f"vaezoo check {name}" for name in names.values()]
        line = _COMMANDS[self.kinds[0]].format(names[self.kinds[0]])
        if "dataset" in names and self.kinds[0] != "dataset":
            line += f" --data {names['dataset']}"
        return [*lines, line]

    def check(self) -> None:
        """VaezooError if the name is not valid or is taken."""
        if not _NAME.fullmatch(self.distribution) or keyword.iskeyword(self.package):
            raise VaezooError(
                f"{self.distribution!r} is no name for a package: small letters, digits, hyphens, "
                "as in my-vae"
            )
        if find_spec(self.package) is not None:
            raise VaezooError(f"there is a module {self.package} already: choose another name")
        taken = {(spec.kind, spec.name) for spec in registry().specs()}
        for kind, name in self.names().items():
            if (kind, name) in taken:
                raise VaezooError(f"there is a {WORDS[kind]} {name} already: choose another name")

    def contents(self) -> dict[str, str]:
        """The files by their paths in the package's folder."""
        names, package = self.names(), self.package
        known = {
            "distribution": self.distribution,
            "package": package,
            "brings": self.brings(),
            "summary": _SUMMARIES[self.kinds[0]].partition(",")[0],
            "commands": "\n".join(self.commands()),
            "names": ", ".join(f'"{name}"' for name in names.values()),
            "vaezoo": ".".join(version("vaezoo").split(".")[:2]),
        }
        parts = {kind: self._about(kind, name) for kind, name in names.items()}
        imports = sorted({word for kind in self.kinds for word in _IMPORTS[kind]})
        plugin = "".join(_fill(f"plugin_{kind}", about) for kind, about in parts.items())
        modules = {
            f"{package}/{kind}.py": _fill(f"{kind}.py", about) for kind, about in parts.items()
        }
        return {
            "pyproject.toml": _fill("pyproject.toml", known),
            "README.md": _fill("README.md", known),
            f"{package}/__init__.py": _fill("init.py", known),
            f"{package}/plugin.py": _fill(
                "plugin.py",
                {
                    "imports": "\n".join(f"    {word}," for word in [*imports, "hookimpl"]),
                    "parts": plugin.rstrip("\n"),
                },
            ),
            **modules,
            "tests/test_contract.py": _fill("test_contract.py", known),
        }

    def _about(self, kind: Kind, name: str) -> dict[str, str]:
        return {
            "name": name,
            "package": self.package,
            "Class": "".join(word.capitalize() for word in name.split("_")),
            "summary": _SUMMARIES[kind],
            "loss": self.names().get("loss", "elbo"),
            "api_version": str(API_VERSION),
        }


def write_package(distribution: str, kinds: Sequence[Kind], parent: Path) -> Package:
    """Write a package into a folder of its name, in `parent`.

    VaezooError when there is such a folder, or the name is taken or no name.
    """
    package = Package(distribution, tuple(kinds))
    package.check()
    folder = parent / distribution
    contents = package.contents()
    try:
        folder.mkdir()
        for path, content in contents.items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(content, encoding="utf-8")
    except FileExistsError:
        raise RunError(f"{folder} exists already: nothing was written") from None
    except OSError as error:
        raise cannot_write(folder, error) from None
    return package


def _fill(name: str, values: Mapping[str, str]) -> str:
    text = files("vaezoo_scaffold").joinpath("templates", f"{name}.txt").read_text("utf-8")
    return Template(text).substitute(values)
