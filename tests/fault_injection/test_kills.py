"""Runs killed at any moment and gone on with: every bit as if nothing had been.

The trials are those of tests/fault_injection, from fixed seeds: a few here, many when asked for by
`pytest -m slow`, and as many as an hour holds by `python tests/fault_injection/run.py`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RUN = Path(__file__).with_name("run.py")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")


def inject(tmp_path: Path, *args: str) -> dict[str, Any]:
    found = tmp_path / "found.json"
    command = [sys.executable, str(RUN), "--json", str(found), *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(found.read_text())
    assert report["lost"] == []
    return report


def kills(report: dict[str, Any]) -> int:
    """How often a process was killed in all."""
    return sum(int(how.split()[1]) * n for how, n in report["outcomes"]["kill"].items())


def test_a_few_kills(tmp_path: Path) -> None:
    args = ("--kinds", "kill", "--jobs", "dropping,aae", "--seed", "11", "--trials", "4")
    assert kills(inject(tmp_path, *args)) >= 4


@pytest.mark.slow
def test_fifty_kills_of_every_model(tmp_path: Path) -> None:
    assert kills(inject(tmp_path, "--kinds", "kill", "--seed", "1", "--trials", "60")) >= 50


@pytest.mark.slow
def test_every_kind_of_trouble(tmp_path: Path) -> None:
    report = inject(tmp_path, "--seed", "2", "--trials", "120")
    assert len(report["outcomes"]) + len(report["not_tried"]) >= 9


@pytest.mark.slow
def test_what_is_lost_is_noticed(tmp_path: Path) -> None:
    """The trials can fail: a resume that forgets the generators is noticed."""
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        f"import runpy, sys\nsys.path.insert(0, {str(RUN.parent)!r})\n"
        f"sys.argv[0] = {str(RUN)!r}\n"
        "import processes\n"
        "honest = processes.Server.start\n"
        "def start(server, args, *, faults=None, **more):\n"
        "    return honest(server, args, faults=[*(faults or []), ('forget', {})], **more)\n"
        "processes.Server.start = start\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    args = ["--kinds", "damaged checkpoint", "--jobs", "dropping", "--trials", "6", "--seed", "4"]
    done = subprocess.run(
        [sys.executable, str(wrong), *args], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "is not the same" in done.stdout
