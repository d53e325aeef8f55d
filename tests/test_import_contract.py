"""Which module may import which: one way along RANKS, and without cycles of files."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from vaezoo.plugins.registry import registry
from vaezoo.plugins.sources import import_file

ROOT = Path(__file__).parents[1]

RANKS = [
    "vaezoo.errors",
    "vaezoo.io",
    "vaezoo.options",
    "vaezoo.runtime",
    "vaezoo.distributed",
    "vaezoo.data",
    "vaezoo.plugins",
    "vaezoo.nn",
    "vaezoo.models",
    "vaezoo.losses",
    "vaezoo.checkpoint",
    "vaezoo.training",
    "vaezoo.evaluation",
    "vaezoo.config",
    "vaezoo.runs",
    "vaezoo.api",
    "vaezoo.bench",
    "vaezoo.testing",
    "vaezoo.cli",
    "vaezoo.__main__",
]
"""The packages and top-level modules in order: each imports only what stands before it."""

WITHOUT_TORCH = (
    "vaezoo.errors",
    "vaezoo.io",
    "vaezoo.options",
    "vaezoo.runtime.memory",
    "vaezoo.data.spec",
    "vaezoo.data.options",
    "vaezoo.plugins.specs",
    "vaezoo.plugins.hookspecs",
    "vaezoo.plugins.loader",
    "vaezoo.plugins.sources",
    "vaezoo.plugins.registry",
    "vaezoo.models.options",
    "vaezoo.training.options",
    "vaezoo.config",
    "vaezoo.checkpoint.folder",
    "vaezoo.runs.provenance",
)
"""Modules that answer questions about names and options: they import no torch."""


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


def place(module: str) -> str:
    """The package or top-level module that a module is part of."""
    return ".".join(module.split(".")[:2])


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


def targets(tree: ast.Module, module: str, known: Mapping[str, ast.Module] = CORE) -> Iterator[str]:
    """The modules of its package that a module imports, `from vaezoo import plugins` included."""
    for source, name in imports(tree, module):
        if source.partition(".")[0] == module.partition(".")[0]:
            yield f"{source}.{name}" if f"{source}.{name}" in known else source


@pytest.mark.parametrize("module", [name for name in CORE if name != "vaezoo"])
def test_imports_go_one_way(module: str) -> None:
    """Down the ranks, also inside functions and under TYPE_CHECKING."""
    own = RANKS.index(place(module))
    for target in targets(CORE[module], module):
        if target != "vaezoo":
            assert RANKS.index(place(target)) <= own, (
                f"{module} imports {target}, which ranks above"
            )


@pytest.mark.parametrize("package", ["vaezoo", *PLUGINS])
def test_no_two_files_import_each_other(package: str) -> None:
    """No cycle of files, also not through other files."""
    files = CORE if package == "vaezoo" else PLUGINS[package]
    # The package's own file names public objects for type checkers; it imports them lazily.
    graph = {
        module: {*targets(tree, module, files)} - {module, package}
        for module, tree in files.items()
    }
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for target in sorted(graph.get(module, ())):
                visit(target, (*path, module))
            done.add(module)

    for module in graph:
        if module != package:
            visit(module, ())


def test_few_modules_stand_at_the_top() -> None:
    top = {
        name
        for name in CORE
        if name.count(".") == 1 and not any(n.startswith(name + ".") for n in CORE)
    }
    assert len(top - {"vaezoo.__main__"}) <= 6, sorted(top)


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


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_what_answers_about_names_imports_nothing_heavy(module: str) -> None:
    heavy = {"torch", "torchvision", "numpy", "PIL", "safetensors", "matplotlib"}
    assert not heavy & {source.partition(".")[0] for source, _ in imports(CORE[module], module)}


@pytest.mark.parametrize("module", list(CORE))
def test_the_core_names_no_plugin(module: str) -> None:
    # Some are named by common words: a metric precision, the likelihoods auto and beta, a network
    # conv, and each command. A loss may have the name of a metric: elbo.
    theirs = {
        spec.name
        for spec in registry().specs()
        if spec.target.partition(".")[0] in PLUGINS and spec.kind not in ("metric", "command")
    } - {"auto", "beta", "conv", *(spec.name for spec in registry().specs("metric"))}
    for node in ast.walk(CORE[module]):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert node.value not in theirs, f"{module}:{node.lineno} names {node.value}"
            assert not any(name in node.value for name in PLUGINS), f"{module}:{node.lineno}"
    assert not {source.partition(".")[0] for source, _ in imports(CORE[module], module)} & {
        *PLUGINS
    }


@pytest.mark.parametrize("plugin", list(PLUGINS))
def test_plugins_use_only_public_names(plugin: str) -> None:
    """What docs/api.md lists, and nothing else of vaezoo or of another plugin."""
    public = import_file(str(ROOT / ".ci" / "write_docs.py")).PUBLIC
    others = {*PLUGINS} - {plugin}
    for module, tree in PLUGINS[plugin].items():
        for source, name in imports(tree, module):
            if source.partition(".")[0] in {"vaezoo", *others}:
                assert name in public.get(source, ()), f"{module} imports {source}.{name}"
        for node in ast.walk(tree):
            reaches = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
            assert not (reaches and node.value.id == "vaezoo"), f"{module}:{node.lineno}"


def test_every_rank_is_of_something_there() -> None:
    assert {*RANKS} == {place(module) for module in CORE if module != "vaezoo"}


@pytest.mark.parametrize(
    ("module", "code", "target"),
    [
        ("vaezoo.data.base", "from vaezoo.training import trainer", "vaezoo.training.trainer"),
        ("vaezoo.models.base", "def f():\n    import vaezoo.cli.main", "vaezoo.cli.main"),
        ("vaezoo.plugins.registry", "from vaezoo.models import base", "vaezoo.models.base"),
    ],
)
def test_the_contract_can_be_broken(module: str, code: str, target: str) -> None:
    assert list(targets(ast.parse(code), module)) == [target]
    assert RANKS.index(place(target)) > RANKS.index(place(module))
