"""Writers get what metrics.jsonl gets, once, and cannot break a run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import vaezoo
from small_jobs import SMALL_JOB
from vaezoo.checkpoint.folder import RunFolder
from vaezoo.cli.main import main
from vaezoo.errors import UnknownNameError
from vaezoo.io import MissingExtraError
from vaezoo.training.loggers import attach_loggers
from vaezoo_tensorboard.logger import TensorBoardLogger, scalars

TINY = {**SMALL_JOB, "test": 40, "latent_dim": 3, "log_every": 2}

PLUGIN = '''
import vaezoo

class Lines(vaezoo.BaseLogger):
    """A few lines, as for any service."""
    def start(self, past):
        self.file = (self.folder / "lines.txt").open("a")
        print("past", len(past), self.config["bottleneck"]["latent_dim"], file=self.file)
    def write(self, line):
        print(line["kind"], line["step"], line["terms"]["elbo"], file=self.file)
    def close(self):
        print("closed", file=self.file)
        self.file.close()

class Fails(vaezoo.BaseLogger):
    def start(self, past):
        self.count = 0
    def write(self, line):
        self.count += 1
        if self.count == 2:
            raise ConnectionError("the service is\\naway")
        assert self.count < 2, "asked again"

@vaezoo.hookimpl
def register_loggers(register):
    for name, target in (("lines", "Lines"), ("fails", "Fails")):
        register(vaezoo.LoggerSpec(name=name, target=f"{__name__}:{target}", summary="A test's"))
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_writers.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    vaezoo.load_plugin("my_writers")


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("plugin")
def test_a_plugins_writer_gets_every_line(tmp_path: Path) -> None:
    out = tmp_path / "run"
    vaezoo.train("vanilla", out=out, log=("lines",), **{**TINY, "epochs": 2})
    wanted = [f"{line['kind']} {line['step']} {line['terms']['elbo']}" for line in lines_of(out)]
    assert (out / "lines.txt").read_text().splitlines() == ["past 0 3", *wanted, "closed"]
    assert main(["train", "--resume", str(out), "--epochs", "3"]) == 0
    assert f"past {len(wanted)} 3" in (out / "lines.txt").read_text()


@pytest.mark.usefixtures("plugin")
def test_a_logger_that_fails_costs_a_note(tmp_path: Path, notes: Any) -> None:
    both = ("fails", "lines")
    run = vaezoo.train(
        "vanilla", out=tmp_path / "r", log=both, callback=notes, **{**TINY, "epochs": 2}
    )
    assert run.summary["elbo"] is not None
    found = [line for line in notes.lines if "--log" in line]
    assert found == ["--log fails gets no more lines: ConnectionError: the service is away"]
    assert len((tmp_path / "r" / "lines.txt").read_text().splitlines()) == 2 + len(run.metrics)


@pytest.mark.usefixtures("plugin")
def test_a_process_that_writes_no_line_opens_nothing(tmp_path: Path) -> None:
    run = vaezoo.train("vanilla", out=tmp_path / "run", log=("lines",), **TINY)
    said = (run.path / "lines.txt").read_text()
    folder = RunFolder.existing(run.path)
    with attach_loggers(folder, ["lines"], run.config.to_dict(), print):
        assert len(folder.listeners) == 1
    assert folder.listeners == []
    assert (run.path / "lines.txt").read_text() == said


def test_the_writer_of_the_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/visualize.md: its code is run, with a service that remembers what it is sent."""
    sent: list[tuple[str, Any]] = []

    class Service:
        def log(self, terms: dict[str, float], step: int) -> None:
            sent.append((f"{step}", terms))

        def finish(self) -> None:
            sent.append(("finished", None))

    service = types.ModuleType("service")
    init = lambda dir, config, resume: sent.append(("init", resume)) or Service()  # noqa: E731
    monkeypatch.setattr(service, "init", init, raising=False)
    monkeypatch.setitem(sys.modules, "service", service)
    text = (Path(__file__).parents[2] / "docs" / "visualize.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    (tmp_path / "guide_writer.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    vaezoo.load_plugin("guide_writer")
    run = vaezoo.train("vanilla", out=tmp_path / "run", log=("service",), **TINY)
    assert sent[0] == ("init", False)
    assert sent[-1] == ("finished", None)
    assert [step for step, _ in sent[1:-1]] == [str(line["step"]) for line in run.metrics]
    assert sent[1][1]["elbo/train"] == run.metrics[0]["terms"]["elbo"]


def test_what_is_missing_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with pytest.raises(UnknownNameError, match="did you mean 'tensorboard'"):
        vaezoo.train("vanilla", out=out, log=("tensorbord",), **TINY)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"vaezoo\[tensorboard\]"):
        vaezoo.train("vanilla", out=out, log=("tensorboard",), **TINY)
    assert not out.exists()


def points(run: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def wanted_points(run: Path) -> dict[str, list[tuple[int, Any]]]:
    found: dict[str, list[tuple[int, Any]]] = {}
    for line in lines_of(run):
        for tag, value in scalars(line):
            found.setdefault(tag, []).append((line["step"], pytest.approx(value, rel=1e-6)))
    return found


def test_tensorboard_shows_the_lines_and_no_point_twice(tmp_path: Path) -> None:
    """Also after a crash past the checkpoint, whose lines and points are written again."""
    pytest.importorskip("tensorboard")
    out = tmp_path / "run"
    vaezoo.train("vanilla", out=out, log=("tensorboard",), **{**TINY, "epochs": 2})
    assert points(out) == wanted_points(out)

    (last, before) = lines_of(out)[-1], lines_of(out)
    lost = {**last, "step": last["step"] + 2}
    writer = TensorBoardLogger(out, {})
    writer.start(before)
    writer.write(lost)
    writer.close()
    with (out / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(lost) + "\n")
    assert main(["train", "--resume", str(out), "--epochs", "4"]) == 0
    assert len(lines_of(out)) > len(before)
    assert points(out) == wanted_points(out)


def test_a_run_that_turns_it_on_later_has_its_past(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    out = tmp_path / "run"
    vaezoo.train("vanilla", out=out, **TINY)
    assert not (out / "tensorboard").exists()
    assert main(["train", "--resume", str(out), "--epochs", "2", "--log", "tensorboard"]) == 0
    assert points(out) == wanted_points(out)


@pytest.mark.slow
def test_of_two_processes_one_writes(tmp_path: Path) -> None:
    """Under torchrun: one event file, with the points of metrics.jsonl, each once."""
    pytest.importorskip("tensorboard")
    out = tmp_path / "run"
    options = {**TINY, "epochs": 2, "out": out, "log": "tensorboard", "hidden": "8,8"}
    words = [w for key, value in options.items() for w in (f"--{key.replace('_', '-')}", value)]
    # Without the two dashes torchrun takes --log for one of its own: docs/distributed.md.
    job = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--", "vaezoo"]
    subprocess.run(
        [sys.executable, "-m", *job, "train", "vanilla", *map(str, words)],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert json.loads((out / "summary.json").read_text())["processes"] == 2
    assert len(list((out / "tensorboard").iterdir())) == 1
    assert points(out) == wanted_points(out)
