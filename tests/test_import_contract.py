"""Who may import whom. Data flows one way through the rooms, and so do imports.

A module may import what has its own rank or a lower one. A new module takes the rank of its
package; one at the top of `vaezoo` must be given a rank here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from vaezoo.plugins.loader import import_file
from vaezoo.plugins.registry import registry

ROOT = Path(__file__).parents[1]

RANKS = {
    # words and files
    "vaezoo.errors": 0,
    "vaezoo.io": 1,
    "vaezoo.io": 1,
    "vaezoo.runtime.memory": 1,
    "vaezoo.options": 1,
    "vaezoo.plain_yaml": 1,
    "vaezoo.data.spec": 1,
    # names: what is there, and its typed options
    "vaezoo.plugins.specs": 2,
    "vaezoo.plugins.hookspecs": 2,
    "vaezoo.plugins.isolation": 2,
    "vaezoo.plugins.loader": 2,
    "vaezoo.plugins.loader": 2,
    "vaezoo.plugins.loader": 2,
    "vaezoo.plugins.registry": 2,
    "vaezoo.plugins.builtin": 2,
    "vaezoo.evaluation.builtin_metrics": 2,
    "vaezoo.models.options": 2,
    "vaezoo.models.options": 2,
    "vaezoo.data.options": 2,
    "vaezoo.losses.options": 2,
    "vaezoo.training.options": 2,
    "vaezoo.config": 3,
    "vaezoo.checkpoint.folder": 3,
    "vaezoo.runs.provenance": 3,
    "vaezoo.scaffold": 3,
    # what plugins build from
    "vaezoo.distributed": 4,
    "vaezoo.models.distributions": 4,
    "vaezoo.models.likelihoods": 4,
    "vaezoo.nn": 4,
    "vaezoo.data": 4,
    "vaezoo.models.base": 4,
    "vaezoo.models.memory": 4,
    "vaezoo.losses": 4,
    # what uses whatever plugins bring
    "vaezoo.runs.build": 5,
    "vaezoo.evaluation": 6,
    "vaezoo.training": 6,
    "vaezoo.runs.run": 6,
    "vaezoo.export": 7,
    "vaezoo.report": 7,
    "vaezoo.bench": 7,
    "vaezoo.testing": 7,
    "vaezoo.api": 7,
    "vaezoo.cli": 8,
    "vaezoo.__main__": 9,
}

NAMES = 3
"""Up to this rank a module imports no torch: it answers questions about names."""


def modules(folder: Path) -> dict[str, ast.Module]:
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


CORE = modules(ROOT / "vaezoo")
PLUGINS = {
    folder.name: modules(folder)
    for folder in sorted((ROOT / "plugins").iterdir())
    if (folder / "__init__.py").exists()
}


def rank(module: str) -> int:
    """Of the longest name in RANKS that the module's begins with."""
    parts = module.split(".")
    for length in range(len(parts), 1, -1):
        name = ".".join(parts[:length])
        if name in RANKS:
            return RANKS[name]
    raise KeyError(f"{module} has no rank: give it one in RANKS")


def imports(tree: ast.Module, module: str) -> Iterator[tuple[str, str]]:
    """(module, name) of each import, wherever it stands; name is "" where none is taken out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                # In a plugin only, and not above its own package: a package is its own level 1.
                source = f"{module.partition('.')[0]}.{source}".rstrip(".")
            yield from ((source, alias.name) for alias in node.names)


def targets(tree: ast.Module, module: str) -> Iterator[str]:
    """The modules of vaezoo that a module imports, `from vaezoo import plugins` included."""
    for source, name in imports(tree, module):
        if source.partition(".")[0] == "vaezoo":
            yield f"{source}.{name}" if f"{source}.{name}" in CORE else source


@pytest.mark.parametrize("module", [name for name in CORE if name != "vaezoo"])
def test_imports_go_down(module: str) -> None:
    own = rank(module)
    for target in targets(CORE[module], module):
        if target != "vaezoo":
            assert rank(target) <= own, f"{module} imports {target}, which stands above it"


def test_the_core_takes_from_its_front_page_only_the_version() -> None:
    for module, tree in CORE.items():
        used = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "vaezoo"
        }
        used |= {name for source, name in imports(tree, module) if source == "vaezoo"}
        taken = {name for name in used if name and f"vaezoo.{name}" not in CORE}
        assert taken <= {"__version__"}, module


def test_the_core_imports_by_full_names() -> None:
    for module, tree in CORE.items():
        relative = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level]
        assert not relative, f"{module} imports relatively"


@pytest.mark.parametrize("module", [name for name, r in RANKS.items() if r <= NAMES])
def test_what_answers_about_names_imports_nothing_heavy(module: str) -> None:
    heavy = {"torch", "torchvision", "numpy", "PIL", "safetensors", "matplotlib"}
    assert not heavy & {source.partition(".")[0] for source, _ in imports(CORE[module], module)}


@pytest.mark.parametrize("module", list(CORE))
def test_the_core_names_no_plugin(module: str) -> None:
    theirs = {spec.name for spec in registry().specs() if spec.target.partition(".")[0] in PLUGINS}
    for node in ast.walk(CORE[module]):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert node.value not in theirs, f"{module}:{node.lineno} names {node.value}"
            assert not any(name in node.value for name in PLUGINS), f"{module}:{node.lineno}"
    assert not {source.partition(".")[0] for source, _ in imports(CORE[module], module)} & {
        *PLUGINS
    }


@pytest.mark.parametrize("plugin", list(PLUGINS))
def test_plugins_use_the_public_names_and_not_each_other(plugin: str) -> None:
    """What docs/api.md lists, and nothing else of vaezoo."""
    public = import_file(str(ROOT / ".ci" / "write_docs.py")).PUBLIC
    others = {*PLUGINS} - {plugin}
    for module, tree in PLUGINS[plugin].items():
        for source, name in imports(tree, module):
            assert source.partition(".")[0] not in others, f"{module} imports {source}"
            if source.partition(".")[0] == "vaezoo":
                assert name in public.get(source, ()), f"{module} imports {source}.{name}"
        for node in ast.walk(tree):
            reaches = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
            assert not (reaches and node.value.id == "vaezoo"), f"{module}:{node.lineno}"


def test_every_rank_is_of_something_there() -> None:
    assert {*RANKS} <= {*CORE}


@pytest.mark.parametrize(
    ("module", "code", "target"),
    [
        ("vaezoo.data.base", "from vaezoo.training import loop", "vaezoo.training.trainer"),
        ("vaezoo.models.base", "def f():\n    import vaezoo.cli.main", "vaezoo.cli.main"),
        ("vaezoo.plugins.registry", "from vaezoo import model", "vaezoo.models.base"),
    ],
)
def test_the_contract_can_be_broken(module: str, code: str, target: str) -> None:
    assert list(targets(ast.parse(code), module)) == [target]
    assert rank(target) > rank(module)
