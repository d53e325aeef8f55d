"""The notebooks in examples/ run to their end, and what they show can be shown."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from vaezoo.runtime.device import seeded

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))


def run_cell(code: str, name: str, names: dict[str, Any]) -> Any:
    """Run a cell as a notebook does: the value of its last line if that is an expression."""
    tree = ast.parse(code, name)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), names)
    if isinstance(last, ast.Expr):
        return eval(compile(ast.Expression(last.value), name, "eval"), names)
    return None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_to_its_end(in_tmp: Path, path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    names: dict[str, Any] = {"__name__": "__main__"}
    shown = []
    with seeded(0, torch.device("cpu")):  # leaves the generator of other tests alone
        for cell in notebook["cells"]:
            if cell["cell_type"] != "code":
                continue
            assert cell["outputs"] == [], "strip the outputs"
            assert cell["execution_count"] is None
            value = run_cell("".join(cell["source"]), path.name, names)
            for method in ("_repr_html_", "_repr_png_", "__repr__"):
                if value is not None and hasattr(value, method) and getattr(value, method)():
                    shown.append(method)
    assert "_repr_png_" in shown
    if "auroc" in names:
        assert names["auroc"] > 0.95
        assert min(names["r2"][1:]) > 0.8


def test_there_are_notebooks() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["first_steps", "latents_and_anomaly_scores"]
