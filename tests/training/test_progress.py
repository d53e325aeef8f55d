"""Progress of training on terminals of several widths, and in a pipe."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import vaezoo
from small_jobs import SMALL_JOB
from vaezoo.runtime import listen_to_progress, report_progress
from vaezoo.training import progress
from vaezoo.training.loggers import ProgressCallback, TrainMetrics
from vaezoo.training.progress import ProgressBar, ProgressLines

TERMS = {"loss": 123.4, "elbo": -123.4, "rate": 12.3, "distortion": 111.1, "commitment": 0.123}
RECORD: dict[str, Any] = {"terms": TERMS, "bits_per_dim": None}


def shown(width: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """The last line that the bar draws at step 1,234 of 20,000."""
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, color_system=None)
    monkeypatch.setattr(progress, "Console", lambda: console)
    bar = ProgressBar()
    bar.on_train_start("title", 20_000, 0)
    bar.on_log(TrainMetrics(1234, 20_000, 3, 5432.0, TERMS))
    assert bar.bar is not None
    plain = Console(file=io.StringIO(), width=width)
    with plain.capture() as captured:
        plain.print(bar.bar.get_renderable())
    bar.on_train_end()
    return captured.get()


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_the_terms_are_cut_first(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    line = shown(width, monkeypatch)
    assert len(line.splitlines()) == 1
    assert "1234/20000" in line
    assert "-:--:--" in line or ":" in line.partition("20000")[2]
    assert "5,432" in line or width == 60
    assert ("commitment" in line) == (width == 160)


def test_train_shows_progress_if_it_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vaezoo.train("vanilla", out=tmp_path / "silent", **SMALL_JOB)
    assert capsys.readouterr() == ("", "")
    vaezoo.train("vanilla", out=tmp_path / "shown", progress=True, **SMALL_JOB)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "vanilla on sprites, cpu"
    assert lines[1].startswith("data: ")
    assert lines[-1].startswith("epoch 1, validation: loss ")


class Closing(ProgressCallback):
    closed = 0

    def on_train_start(self, title: str, total_steps: int, done: int) -> None:
        raise KeyboardInterrupt

    def close(self) -> None:
        self.closed += 1


def test_a_callback_is_closed_after_an_error_too(tmp_path: Path) -> None:
    """Else the bar of an interrupted cell would stay on the terminal."""
    callback = Closing()
    with pytest.raises(KeyboardInterrupt):
        vaezoo.train("vanilla", out=tmp_path / "r", callback=callback, **SMALL_JOB)
    assert callback.closed == 1


def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def test_a_pipe_gets_a_validation_at_times_and_the_last(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """45 epochs of a quarter of a second: the first, one in 5 s, and the last."""
    now = clock(monkeypatch)
    lines = ProgressLines()
    lines.on_train_start("title", 45, 0)
    for epoch in range(1, 46):
        now[0] += 0.25
        lines.on_validation_end(epoch, RECORD)
    lines.on_train_end()
    found = [line for line in capsys.readouterr().out.splitlines() if "validation" in line]
    assert [line.partition(",")[0] for line in found] == [
        f"epoch {epoch}" for epoch in (1, 21, 41, 45)
    ]


def test_a_pipe_gets_a_line_of_other_work_at_times(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = clock(monkeypatch)
    lines = ProgressLines()
    with listen_to_progress(lines.on_progress):
        for step in range(100):
            now[0] += 0.11
            report_progress("fitting the prior, step", step, 100)
    report_progress("not shown", 0, 1)
    assert capsys.readouterr().out.splitlines() == [
        "fitting the prior, step 45 of 100",
        "fitting the prior, step 91 of 100",
    ]


def test_other_work_has_a_bar_that_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    console = Console(file=file, width=80, force_terminal=True, color_system=None)
    monkeypatch.setattr(progress, "Console", lambda **_: console)
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    now = clock(monkeypatch)
    bar = ProgressBar()
    for done in (0, 10, 20):
        now[0] += 0.6
        bar.on_progress("reading images", done, 100)
    assert bar.work.bar is not None
    reading = bar.work.bar
    assert [(task.description, task.completed) for task in reading.tasks] == [
        ("reading images", 20)
    ]
    bar.on_train_start("title", 10, 0)
    assert not reading.live.is_started
    assert bar.bar is not None
    now[0] += 0.6
    bar.on_progress("fitting the prior, step", 5, 9)
    assert bar.bar.tasks[0].fields["text"] == "fitting the prior, step 5 of 9"
    bar.close()
    assert bar.bar is None
