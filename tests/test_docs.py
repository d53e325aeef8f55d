"""The pages of docs/ that follow from the code follow from this code."""

from __future__ import annotations

import importlib
import inspect
import re
import typing
from pathlib import Path
from typing import Any

import pytest

from vaezoo.plugins.sources import import_file
from vaezoo.plugins.specs import API_VERSION

ROOT = Path(__file__).parents[1]
WRITER = import_file(str(ROOT / ".ci" / "write_docs.py"))


@pytest.mark.parametrize("page", list(WRITER.pages()), ids=lambda path: path.name)
def test_pages_are_as_the_code_has_it(page: Path) -> None:
    """Names and signatures of the public interface are frozen here, and every option of a command.

    A change that is meant: run `python .ci/write_docs.py`, and look at the difference.
    """
    assert page.read_text(encoding="utf-8") == WRITER.pages()[page]


def test_the_page_promises_for_this_version() -> None:
    assert f"now {API_VERSION}." in (ROOT / "docs" / "api.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("module", "name"), [(m, name) for m, names in WRITER.PUBLIC.items() for name in names]
)
def test_public_names_begin_with_one_sentence(module: str, name: str) -> None:
    """The first line of the docstring stands by itself, so that a page can list it."""
    found: Any = getattr(importlib.import_module(module), name)
    if callable(found) and typing.get_origin(found) is None:
        first, _, second = inspect.cleandoc(found.__doc__ or "").partition("\n")
        assert first.endswith((".", ":", ";")) or not second.strip(), f"{module}.{name}: {first!r}"
        assert first, f"{module}.{name} has no docstring"
        assert f"**`{name}" in (ROOT / "docs" / "api.md").read_text(encoding="utf-8")


def test_the_speeds_of_the_readme_are_results() -> None:
    results = re.findall(
        r"\| (\d+) \| (\d+) \| ([\d.]+) × \|", (ROOT / "benchmarks" / "README.md").read_text()
    )
    measured = {(ours, theirs): float(ratio) for ours, theirs, ratio in results}
    said = re.findall(r"(\d+) to (\d+), ([\d.]+) ×", (ROOT / "README.md").read_text())
    assert said
    for ours, theirs, ratio in said:
        assert measured[ours, theirs] == pytest.approx(float(ratio), abs=0.051)
