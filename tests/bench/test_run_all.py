"""The script that runs all benchmarks: what a failing, a slow and a missing part do to the rest."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
WRITES = "import sys; open(sys.argv[1], 'w').write('kept'); "


@pytest.fixture
def run_all(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("VAEZOO_BENCHMARK_RESULTS", "")
    before = set(sys.modules)
    yield importlib.import_module("run_all")
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_each_part_is_recorded_whatever_the_others_do(
    run_all: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def parts(*given: object) -> Iterator[object]:
        kept = tmp_path / "kept"
        slow = WRITES + "import time; time.sleep(60)"
        yield run_all.Part("fails", [sys.executable, "-c", "import nothing_of_this_name"], 20)
        yield run_all.Part("hangs", [sys.executable, "-c", slow, str(kept)], 1)
        yield run_all.Part("pythae", ["this", "is", "not", "started"], 20)
        yield run_all.Part("works", [sys.executable, "-c", "print('a line')"], 20)

    monkeypatch.setattr(run_all, "parts", parts)
    monkeypatch.setattr(run_all, "NEEDS", {"pythae": "a_package_that_nobody_has"})
    monkeypatch.setattr(run_all, "short_name", lambda name: "here")
    monkeypatch.setattr(run_all, "COUNT", 2)
    monkeypatch.setattr(sys, "argv", ["run_all.py", "--device", "cpu", "--results", str(tmp_path)])
    assert run_all.main() == 1
    found = json.loads((tmp_path / "run_all-here.json").read_text())["parts"]
    assert {part["name"]: part["status"] for part in found} == {
        "fails": "failed with exit code 1",
        "hangs": "stopped after 1 s",
        "pythae": "left out: no a_package_that_nobody_has here",
        "works": "passed",
    }
    assert "nothing_of_this_name" in found[0]["last_line"]
    assert found[3]["last_line"] == "a line"
    assert (tmp_path / "kept").read_text() == "kept"
    assert "| hangs | stopped after 1 s |" in (tmp_path / "run_all-here.md").read_text()
    assert "works: passed" in capsys.readouterr().out
