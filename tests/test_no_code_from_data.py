"""Nothing that is read is run: no module of ours unpickles, evaluates or loads YAML with types."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted([*(ROOT / "vaezoo").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")])

UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "scipy.io"}
CALLS = {
    *("eval", "exec", "compile", "__import__"),
    *("torch.load", "torch.jit.load", "torch.hub.load", "torch.package", "np.fromfile"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "yaml.safe_load"),
    *("os.system", "os.popen", "np.load", "numpy.load", "loadmat"),
}

ALLOWED = {
    # a file that the user names, and the annotations of a class in it
    ("vaezoo/plugins/sources.py", "exec"),
    ("vaezoo/plugins/sources.py", "compile"),
    ("vaezoo/plugins/sources.py", "eval"),
    # with a loader that builds plain values only
    ("vaezoo/config.py", "yaml.load"),
    # weights and nothing else (weights_only), of a file whose checksum is in its name
    ("plugins/vaezoo_fidelity/inception.py", "torch.load"),
    ("plugins/vaezoo_perceptual/weights.py", "torch.load"),
    # what it has just written
    ("vaezoo/testing/dataset_checks.py", "yaml.safe_load"),
}


def name_of(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def dangers(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in UNPICKLERS)
        elif isinstance(node, ast.ImportFrom):
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name for name in [node.module or ""] if name in UNPICKLERS)
            yield from (name for name in whole if name in CALLS | UNPICKLERS)
        elif isinstance(node, ast.Call) and name_of(node.func) in CALLS:
            yield name_of(node.func)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_dangerous_is_called(path: Path) -> None:
    where = path.relative_to(ROOT).as_posix()
    found = {(where, name) for name in dangers(ast.parse(path.read_text(encoding="utf-8")))}
    assert found <= ALLOWED


def test_what_is_allowed_is_still_there() -> None:
    for where, name in ALLOWED:
        assert name in set(dangers(ast.parse((ROOT / where).read_text(encoding="utf-8"))))


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "def f():\n    from pickle import loads",
        "torch.load(path)",
        "x = np.load(path, allow_pickle=True)",
        "yaml.load(text, yaml.Loader)",
        "from torch import load",
        "from scipy.io import loadmat",
        "eval(text)",
    ],
)
def test_the_dangers_are_seen(code: str) -> None:
    assert list(dangers(ast.parse(code)))
