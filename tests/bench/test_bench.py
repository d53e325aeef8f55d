"""`vaezoo bench` as a user types it, with plugins that work, crash and hang."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from fork_server import ForkServer
from vaezoo.bench import job as bench_job
from vaezoo.bench.job import Case, Job, empty_row, run_job
from vaezoo.cli.main import main

QUICK = [
    *("--seconds", "0.01", "--image-size", "16", "--device", "cpu"),
    *("--set", "network.hidden=[4,4]"),
]

PLUGIN = """
import vaezoo

@vaezoo.hookimpl
def register_models(register):
    for name in ("crasher", "hanger", "fails", "refuses"):
        register(vaezoo.ModelSpec(name=name, target="strange_model:" + name, summary="strange",
                                  tags=("elbo",)))
"""
MODELS = """
import os, time
import vaezoo

class Base(vaezoo.BaseVAE):
    def encode(self, x, y=None): ...
    def decode(self, z, y=None): ...

class crasher(Base):
    def __init__(self, options, data):
        print("noise on stdout, as plugins make it")
        os._exit(7)

class hanger(Base):
    def __init__(self, options, data):
        time.sleep(600)

class fails(Base):
    def __init__(self, options, data):
        raise ValueError("its own fault")

class refuses(Base):
    def __init__(self, options, data):
        raise vaezoo.VaezooError("not this data")
"""


@pytest.fixture(scope="module", autouse=True)
def _forked(torch_server: ForkServer) -> Iterator[None]:
    """The subprocesses of a benchmark are forked from one that has torch imported."""
    honest = bench_job.subprocess
    names = {name: getattr(honest, name) for name in ("PIPE", "TimeoutExpired")}
    bench_job.subprocess = SimpleNamespace(Popen=torch_server.start, **names)
    yield
    bench_job.subprocess = honest


@pytest.fixture
def broken_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed plugin with models that fail, for subprocesses to find."""
    info = tmp_path / "site" / "strange-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strange\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[vaezoo]\nstrange = strange_plugin\n")
    (info.parent / "strange_plugin.py").write_text(PLUGIN)
    (info.parent / "strange_model.py").write_text(MODELS)
    path = os.pathsep.join([str(info.parent), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)


def job(model: str, *cases: Case) -> Job:
    return Job(
        model=model,
        names={},
        options={},
        shape=(1, 16, 16),
        device="cpu",
        cases=cases,
        windows=5,
        seconds=0.01,
        end_to_end=False,
        largest=False,
        gemm={"fp32": 1e15},
        copy=1e15,
    )


CASES = tuple(
    Case(mode=mode, batch_size=4, precision="fp32", compile="off") for mode in ("train", "sample")
)


def test_report_holds_what_it_promises(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["bench", "vanilla", "--batch-size", "4,8", *QUICK]
    assert main([*line, "--json", "r.json", "--markdown", "r.md", "--plot", "r.png"]) == 0
    out = capsys.readouterr().out
    assert "report: r.json" in out
    report = json.loads(Path("r.json").read_text())
    rows = report["rows"]
    assert [(r["mode"], r["batch_size"]) for r in rows] == [
        (mode, size) for mode in ("train", "encode", "decode", "sample") for size in (4, 8)
    ]
    for row in rows:
        assert row["status"] == "ok"
        assert len(row["images_per_second_windows"]) >= 5
        assert row["images_per_second"] > 0
        assert row["latency_ms"]["p50"] <= row["latency_ms"]["p99"]
        assert 0 < row["gemm_share"] <= 1
        assert row["peak_share"] is None
        assert row["peak_memory_bytes"] > 0
    by_mode = {r["mode"]: r["flops_per_image"] for r in rows if r["batch_size"] == 4}
    # Training is a forward pass of both halves, and about twice that back.
    assert 2.5 < by_mode["train"] / (by_mode["encode"] + by_mode["decode"]) < 3.05
    assert by_mode["sample"] == by_mode["decode"]
    assert set(report["environment"]["gemm_flops_per_second"]) == {r["precision"] for r in rows}
    Image.open("r.png").verify()
    assert "| vanilla | train | 4 |" in Path("r.md").read_text()


def test_what_was_measured_is_kept_when_the_rest_is_stopped(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []

    def run_job(given: Job, timeout: float) -> list[Any]:
        if measured:
            raise KeyboardInterrupt
        measured.append(given.model)
        return [empty_row(given.model, case, "timeout", "slow") for case in given.cases]

    monkeypatch.setattr("vaezoo.cli.bench.run_job", run_job)
    line = ["bench", "vanilla", "rae", "--mode", "encode,decode", "--device", "cpu"]
    assert main([*line, "--json", "r.json", "--markdown", "r.md"]) == 130
    rows = json.loads(Path("r.json").read_text())["rows"]
    assert [(row["model"], row["mode"]) for row in rows] == [
        ("vanilla", "encode"),
        ("vanilla", "decode"),
    ]
    assert Path("r.md").exists()
    assert "it was stopped after 2 of 4 rows" in capsys.readouterr().out


def test_compare_fails_below_a_share(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["bench", "vanilla", "--mode", "decode", "--batch-size", "4", *QUICK]
    assert main([*line, "--json", "a.json"]) == 0
    earlier = json.loads(Path("a.json").read_text())
    for factor, code in ((1000.0, 1), (0.001, 0)):
        changed = json.loads(json.dumps(earlier))
        changed["rows"][0]["images_per_second"] *= factor
        Path("b.json").write_text(json.dumps(changed))
        assert main([*line, "--json", "c.json", "--compare", "b.json"]) == code
    assert "of the earlier rate" in capsys.readouterr().out


def test_crash_costs_its_own_rows(broken_plugin: None) -> None:
    rows = run_job(job("crasher", *CASES), timeout=60)
    assert [row["status"] for row in rows] == ["crashed", "crashed"]
    assert "exit code 7" in rows[0]["reason"]


def test_hang_is_cut_short(broken_plugin: None) -> None:
    begun = time.monotonic()
    rows = run_job(job("hanger", *CASES), timeout=3)
    assert time.monotonic() - begun < 40
    assert [row["status"] for row in rows] == ["timeout", "timeout"]


def test_what_a_plugin_raises_is_the_reason(broken_plugin: None, tmp_path: Path) -> None:
    failed = run_job(job("fails", *CASES), timeout=60)[1]
    file = tmp_path / "site" / "strange_model.py"
    line = MODELS.splitlines().index('        raise ValueError("its own fault")') + 1
    where = f"({file}, line {line}; vaezoo check fails shows more)"
    why = f"model fails cannot be built: ValueError: its own fault {where}"
    assert (failed["status"], failed["reason"]) == ("failed", why)
    refused = run_job(job("refuses", CASES[0]), timeout=60)[0]
    assert (refused["status"], refused["reason"]) == ("refused", "not this data")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ("bench vanila", "did you mean 'vanilla'"),
        ("bench vanilla --mode fly", "'--mode': 'fly' is not one of"),
        ("bench vanilla --batch-size 0", "'--batch-size': 0 is not"),
        ("bench vanilla --precision fp8", "'--precision': 'fp8'"),
        ("bench vanilla --compare none.json", "none.json is missing"),
        ("bench vanilla --json no/folder.json", "there is no folder"),
        ("bench vanilla --plot .", "is a folder"),
        ("bench vanilla --image-size 0", "--image-size"),
        ("bench vanilla --set train.lr=1", "models and losses only"),
    ],
)
def test_bad_input_is_one_line(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], args: str, said: str
) -> None:
    assert main(args.split()) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert list(in_tmp.iterdir()) == []


def test_help_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; from vaezoo.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "bench", "--help"], capture_output=True, text=True, check=False
    )
    assert "--fail-below" in done.stdout, done.stderr
