"""What every test shares: a cache of its own, and CUDA tests only where there is CUDA."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from fork_server import ForkServer
from vaezoo.plugins.registry import registry

# A busy machine is no failure: what a test may take is not a matter of one example's time.
settings.register_profile("vaezoo", deadline=None)
settings.load_profile("vaezoo")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's cache of decoded images."""
    monkeypatch.setenv("VAEZOO_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module", autouse=True)
def _own_registrations() -> Iterator[None]:
    """What the tests of one file register is unknown to those of the next one in this process."""
    known = registry()
    before = list(known.records)
    yield
    if known.records != before:
        known.__init__(before)  # type: ignore[misc]


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


LONG = ("test_guides.py", "test_training_jobs.py", "test_gradients.py", "test_write.py")
"""Files whose tests or fixtures take longest: they run first, so that no process ends with one."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)
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


@pytest.fixture(scope="session")
def torch_server() -> Iterator[ForkServer]:
    """Starts processes that have torch imported."""
    server = ForkServer(
        "torch.distributed.fsdp",
        "torchvision.utils",
        "matplotlib.backends.backend_agg",
        "vaezoo.runs.train",
        "vaezoo.evaluation.plots",
        "vaezoo.testing.contract",
    )
    yield server
    server.close()


@pytest.fixture(scope="session")
def names_server() -> Iterator[ForkServer]:
    """Starts processes that have the libraries of `vaezoo list` imported, and nothing of vaezoo."""
    server = ForkServer("click", "pluggy", "pydantic", "rich.console", "rich.table", "yaml")
    yield server
    server.close()


@pytest.fixture
def environment(
    tmp_path_factory: pytest.TempPathFactory, in_tmp: Path, torch_server: ForkServer
) -> Callable[..., str]:
    """Runs a command in a new virtual environment that sees what is installed here.

    Nothing is downloaded: packages are built with what there is, and bring no others.
    """
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False)
    (site,) = home.glob("lib/python*/site-packages")
    (site / "outside.pth").write_text("\n".join(path for path in sys.path if Path(path).is_dir()))
    python = home / "bin" / "python"
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHONPATH", "VAEZOO_P"))}
    clean |= {"PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0"}

    def run(program: str, *args: str) -> str:
        if program in ("python", "pip"):  # these import no torch
            command = [python, *(["-m", "pip"] if program == "pip" else []), *args]
            done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=clean)
        else:
            done = torch_server.run([python, "-m", program, *args], env=clean, packages=site)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
