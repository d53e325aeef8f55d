"""docs/fault_injection.md holds the figures of the runs whose JSON is kept."""

from __future__ import annotations

from pathlib import Path

from vaezoo.plugins.sources import import_file

FIGURES = import_file(str(Path(__file__).with_name("figures.py")))


def test_the_page_is_as_the_results_have_it() -> None:
    """After another run: `python tests/fault_injection/figures.py`."""
    assert FIGURES.PAGE.read_text(encoding="utf-8") == FIGURES.page()
