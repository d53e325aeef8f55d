"""What every test shares: a cache of its own, and CUDA tests only where there is CUDA."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is no failure: what a test may take is not a matter of one example's time.
settings.register_profile("vaezoo", deadline=None)
settings.load_profile("vaezoo")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's cache of decoded images."""
    monkeypatch.setenv("VAEZOO_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def documented() -> Callable[[str], list[str]]:
    """A function that gives the keys in the table under a heading of docs/json.md."""
    text = (Path(__file__).parents[1] / "docs" / "json.md").read_text()
    parts = re.split(r"^#+ ", text, flags=re.M)
    sections = {part.partition("\n")[0].strip(): part for part in parts}

    def keys(heading: str) -> list[str]:
        lines = [line for line in sections[heading].splitlines() if line.startswith("| `")]
        return [key for line in lines for key in re.findall(r"`(\w+)`", line.split("|")[1])]

    return keys


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("cuda")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="there is no CUDA device here"))


def pytest_configure() -> None:
    # Two test processes on two cores would otherwise fight over four threads.
    os.environ.setdefault("OMP_NUM_THREADS", "2")
