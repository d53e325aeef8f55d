"""How training and other long work shows its progress: a bar on a terminal, else plain lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from vaezoo.cli.output import is_rank0
from vaezoo.training.loggers import ProgressCallback, TrainMetrics

_LINE_SECONDS = 5.0
"""At most one plain line of training in this time."""
_BAR_SECONDS = 0.1
_QUIET_SECONDS = 10.0
"""At most one plain line of other work in this time, so that short work prints nothing."""


class Progress:
    """Progress of work on stderr, while it is open as a context manager.

    prefix: text before what `update` is given.
    """

    def __init__(self) -> None:
        self.prefix = ""
        self.printed = time.perf_counter()
        self.bar: Bar | None = None
        if sys.stderr.isatty() and is_rank0():
            self.bar = Bar(console=Console(stderr=True), transient=True)

    def __enter__(self) -> Progress:
        if self.bar is not None:
            self.bar.start()
            self.task = self.bar.add_task("", total=None)
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def update(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` parts of something are finished."""
        text = f"{self.prefix}{what}"
        if self.bar is not None:
            self.bar.update(self.task, description=text, completed=done, total=total)
        elif is_rank0() and time.perf_counter() - self.printed > _QUIET_SECONDS:
            self.printed = time.perf_counter()
            print(f"vaezoo: {text}, {done:,} of {total:,}", file=sys.stderr, flush=True)


def make_progress_callback() -> ProgressCallback:
    """A progress bar if stdout is a terminal, else plain lines."""
    return ProgressBar() if sys.stdout.isatty() else ProgressLines()


class _Notes(ProgressCallback):
    """A callback that shows each validation as a note."""

    def on_validation_end(self, epoch: int, record: Mapping[str, Any]) -> None:
        bits = record["bits_per_dim"]
        tail = "" if bits is None else f", {bits:.4f} bits per dimension"
        self.on_note(f"epoch {epoch}, validation: {_format_terms(record['terms'])} nats{tail}")


class ProgressBar(_Notes):
    """A progress bar of training, with loss terms, images per second and time left."""

    def on_train_start(self, title: str, total_steps: int, done: int) -> None:
        self.console = Console()
        self.console.print(title, highlight=False)
        self.bar = Bar(
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
            console=self.console,
        )
        self.task = self.bar.add_task("", total=total_steps, completed=done, text="")
        self.pending = 0
        self.drawn = time.perf_counter()
        self.bar.start()

    def on_step_end(self) -> None:
        self.pending += 1
        now = time.perf_counter()
        if now - self.drawn > _BAR_SECONDS:
            self.bar.advance(self.task, self.pending)
            self.pending, self.drawn = 0, now

    def on_log(self, metrics: TrainMetrics) -> None:
        text = f"{metrics.images_per_second:,.0f} images/s · {_format_terms(metrics.terms)}"
        self.pending = 0
        self.bar.update(self.task, completed=metrics.step, text=text)

    def on_note(self, text: str) -> None:
        self.console.print(text, highlight=False)

    def on_train_end(self) -> None:
        self.bar.stop()


class ProgressLines(_Notes):
    """A line of training progress every few seconds, for logs and pipes."""

    def on_train_start(self, title: str, total_steps: int, done: int) -> None:
        self.printed = time.perf_counter()
        self.on_note(title)

    def on_log(self, metrics: TrainMetrics) -> None:
        now = time.perf_counter()
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
