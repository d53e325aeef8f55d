"""How training and other long work shows its progress: a bar on a terminal, else plain lines."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Column

from vaezoo.runtime import is_rank0
from vaezoo.training.loggers import ProgressCallback, TrainMetrics

_LINE_SECONDS = 5.0
"""At most one plain line of each kind in this time: of training, of validation, of other work."""
_CUT = Column(no_wrap=True, overflow="ellipsis", ratio=1)
_BAR_SECONDS = 0.1
_WAIT_SECONDS = 1.0
_QUIET_SECONDS = 10.0
"""At most one plain line of other work in this time, so that short work prints nothing."""


class Progress:
    """Progress of work on stderr, while it is open as a context manager. A bar appears after 1 s.

    prefix: text before what `update` is given.
    """

    def __init__(self) -> None:
        self.prefix = ""
        self.printed = time.perf_counter()
        self.bar: Bar | None = None
        if sys.stderr.isatty() and is_rank0():
            self.bar = Bar(console=Console(stderr=True), transient=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def update(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` parts of something are finished."""
        text = f"{self.prefix}{what}"
        if self.bar is not None:
            if not self.bar.tasks and time.perf_counter() - self.printed > _WAIT_SECONDS:
                self.bar.add_task("")
                self.bar.start()
            for task in self.bar.task_ids:
                self.bar.update(task, description=text, completed=done, total=total)
        elif is_rank0() and time.perf_counter() - self.printed > _QUIET_SECONDS:
            self.printed = time.perf_counter()
            print(f"vaezoo: {text}, {done:,} of {total:,}", file=sys.stderr, flush=True)


def make_progress_callback() -> ProgressBar | ProgressLines:
    """A progress bar if stdout is a terminal, else plain lines."""
    return ProgressBar() if sys.stdout.isatty() else ProgressLines()


class _Notes(ProgressCallback):
    """A callback that shows validations as notes: the last one, and others every few seconds."""

    def __init__(self) -> None:
        self.validated, self.validation = -math.inf, ""
        self.worked = time.perf_counter()

    def on_validation_end(self, epoch: int, record: Mapping[str, Any]) -> None:
        bits = record["bits_per_dim"]
        tail = "" if bits is None else f", {bits:.4f} bits per dimension"
        terms = _format_terms(record["terms"])
        self.validation = f"epoch {epoch}, validation: {terms} nats{tail}"
        if time.perf_counter() - self.validated >= _LINE_SECONDS:
            self._note_validation()

    def _note_validation(self) -> None:
        if self.validation:
            self.on_note(self.validation)
            self.validated, self.validation = time.perf_counter(), ""

    def on_train_end(self) -> None:
        self._note_validation()


class ProgressBar(_Notes):
    """A progress bar of training, with loss terms, images per second and time left."""

    def __init__(self) -> None:
        super().__init__()
        self.console = Console()
        self.bar: Bar | None = None
        self.work = Progress()

    def on_train_start(self, title: str, total_steps: int, done: int) -> None:
        self.close()
        self.console.print(title, highlight=False)
        # The text is cut where a line is too short; numbers stay.
        self.bar = Bar(
            BarColumn(bar_width=24 if self.console.width >= 80 else 8),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[text]}", table_column=_CUT, markup=False),
            console=self.console,
            expand=True,
        )
        self.task = self.bar.add_task("", total=total_steps, completed=done, text="")
        self.pending, self.drawn = 0, time.perf_counter()
        self.bar.start()

    def on_progress(self, what: str, done: int, total: int) -> None:
        if self.bar is None:
            self.work.update(what, done, total)
        elif time.perf_counter() - self.drawn > _BAR_SECONDS:
            self.bar.update(self.task, text=f"{what} {done:,} of {total:,}")
            self.drawn = time.perf_counter()

    def on_step_end(self) -> None:
        self.pending += 1
        now = time.perf_counter()
        if now - self.drawn > _BAR_SECONDS and self.bar is not None:
            self.bar.advance(self.task, self.pending)
            self.pending, self.drawn = 0, now

    def on_log(self, metrics: TrainMetrics) -> None:
        text = f"{metrics.images_per_second:,.0f} images/s · {_format_terms(metrics.terms)}"
        self.pending = 0
        if self.bar is not None:
            self.bar.update(self.task, completed=metrics.step, text=text)

    def on_note(self, text: str) -> None:
        self.console.print(text, highlight=False)

    def on_train_end(self) -> None:
        super().on_train_end()
        self.close()

    def close(self) -> None:
        """End the bar, and remove that of other work."""
        self.work.__exit__()
        self.work = Progress()
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


class ProgressLines(_Notes):
    """A line of progress every few seconds, for logs and pipes."""

    def on_progress(self, what: str, done: int, total: int) -> None:
        now = time.perf_counter()
        if now - self.worked >= _LINE_SECONDS and is_rank0():
            self.worked = now
            self._note_validation()
            self.on_note(f"{what} {done:,} of {total:,}")

    def on_train_start(self, title: str, total_steps: int, done: int) -> None:
        self.printed = time.perf_counter()
        self.on_note(title)

    def on_log(self, metrics: TrainMetrics) -> None:
        now = time.perf_counter()
        self.worked = now
        if now - self.printed < _LINE_SECONDS:
            return
        self.printed = now
        self.on_note(
            f"step {metrics.step:,} of {metrics.total_steps:,}, epoch {metrics.epoch}: "
            f"{_format_terms(metrics.terms)}, {metrics.images_per_second:,.0f} images/s, "
            f"{metrics.total_steps - metrics.step:,} steps left"
        )

    def on_note(self, text: str) -> None:
        print(text, flush=True)


def _format_terms(terms: Mapping[str, float | None]) -> str:
    """`loss 240.1, rate 16.8, ...`, in nats per image."""
    texts = {n: "not a number" if value is None else f"{value:.4g}" for n, value in terms.items()}
    return ", ".join(f"{name} {text}" for name, text in texts.items())
