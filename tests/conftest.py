"""What every test shares: a cache of its own, and CUDA tests only where there is CUDA."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "slow" not in config.option.markexpr:
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: pytest -m slow"))
    marked = [item for item in items if item.get_closest_marker("cuda")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="there is no CUDA device here"))


def pytest_configure() -> None:
    # The models of tests are so small that a second thread brings nothing; and where something else
    # has the second core, threads that wait for one another took up to a hundred times as long.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def environment(tmp_path_factory: pytest.TempPathFactory, in_tmp: Path) -> Callable[..., str]:
    """Runs a command in a new virtual environment that sees what is installed here.

    Nothing is downloaded: packages are built with what there is, and bring no others.
    """
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False)
    (site,) = home.glob("lib/python*/site-packages")
    (site / "outside.pth").write_text("\n".join(path for path in sys.path if Path(path).is_dir()))
    python = home / "bin" / "python"
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHONPATH", "VAEZOO_P"))}

    def run(program: str, *args: str) -> str:
        command = [python, *args] if program == "python" else [python, "-m", program, *args]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=600,
            env={**clean, "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0"},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
