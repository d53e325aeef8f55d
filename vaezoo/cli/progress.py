"""How training looks: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as Bar,
)

from vaezoo.training.callback import ProgressCallback, TrainMetrics

_PLAIN_SECONDS = 5.0
"""At most one plain line of progress in this time: a log is to be read."""
_BAR_SECONDS = 0.1


def make_progress_callback() -> ProgressCallback:
    return ProgressBar() if sys.stdout.isatty() else ProgressLines()


class ProgressBar(ProgressCallback):
    """A progress bar with loss terms, images a second and time left."""

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
        self.task: TaskID = self.bar.add_task("", total=total_steps, completed=done, text="")
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
        text = f"{metrics.images_per_second:,.0f} images/s · {show_terms(metrics.terms)}"
        self.pending = 0
        self.bar.update(self.task, completed=metrics.step, text=text)

    def on_validation_end(self, epoch: int, record: Mapping[str, Any]) -> None:
        self.bar.console.print(validation_line(epoch, record), highlight=False)

    def on_note(self, text: str) -> None:
        self.bar.console.print(text, highlight=False)

    def on_train_end(self) -> None:
        self.bar.stop()


class ProgressLines(ProgressCallback):
    """A line every few seconds, for logs and pipes."""

    def on_train_start(self, title: str, total_steps: int, done: int) -> None:
        self.told = time.perf_counter()
        print(title, flush=True)

    def on_log(self, metrics: TrainMetrics) -> None:
        now = time.perf_counter()
        if now - self.told < _PLAIN_SECONDS:
            return
        self.told = now
        left = metrics.total_steps - metrics.step
        print(
            f"step {metrics.step:,} of {metrics.total_steps:,}, epoch {metrics.epoch}: "
            f"{show_terms(metrics.terms)}, {metrics.images_per_second:,.0f} images/s, "
            f"{left:,} steps left",
            flush=True,
        )

    def on_validation_end(self, epoch: int, record: Mapping[str, Any]) -> None:
        print(validation_line(epoch, record), flush=True)

    def on_note(self, text: str) -> None:
        print(text, flush=True)


def show_terms(terms: Mapping[str, float | None]) -> str:
    """`loss 240.1, rate 16.8, ...`: nats per image."""
    return ", ".join(
        f"{name} {'not a number' if value is None else f'{value:.4g}'}"
        for name, value in terms.items()
    )


def validation_line(epoch: int, record: Mapping[str, Any]) -> str:
    bits = record["bits_per_dim"]
    tail = "" if bits is None else f", {bits:.4f} bits per dimension"
    return f"epoch {epoch}, held out: {show_terms(record['terms'])} nats{tail}"
