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

from vaezoo.training.progress import ProgressCallback, TrainMetrics

_PLAIN_SECONDS = 5.0
"""At most one plain line of progress in this time: a log is to be read."""
_BAR_SECONDS = 0.1


def pick_reporter() -> ProgressCallback:
    return BarReporter() if sys.stdout.isatty() else PlainReporter()


class BarReporter(ProgressCallback):
    """A progress bar with loss terms, images a second and time left."""

    def start(self, title: str, total_steps: int, done: int) -> None:
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

    def step(self) -> None:
        self.pending += 1
        now = time.perf_counter()
        if now - self.drawn > _BAR_SECONDS:
            self.bar.advance(self.task, self.pending)
            self.pending, self.drawn = 0, now

    def window(self, progress: TrainMetrics) -> None:
        text = f"{progress.images_per_second:,.0f} images/s · {show_terms(progress.terms)}"
        self.pending = 0
        self.bar.update(self.task, completed=progress.step, text=text)

    def validation(self, epoch: int, record: Mapping[str, Any]) -> None:
        self.bar.console.print(validation_line(epoch, record), highlight=False)

    def note(self, text: str) -> None:
        self.bar.console.print(text, highlight=False)

    def stop(self) -> None:
        self.bar.stop()


class PlainReporter(ProgressCallback):
    """A line every few seconds, for logs and pipes."""

    def start(self, title: str, total_steps: int, done: int) -> None:
        self.told = time.perf_counter()
        print(title, flush=True)

    def window(self, progress: TrainMetrics) -> None:
        now = time.perf_counter()
        if now - self.told < _PLAIN_SECONDS:
            return
        self.told = now
        left = progress.total_steps - progress.step
        print(
            f"step {progress.step:,} of {progress.total_steps:,}, epoch {progress.epoch}: "
            f"{show_terms(progress.terms)}, {progress.images_per_second:,.0f} images/s, "
            f"{left:,} steps left",
            flush=True,
        )

    def validation(self, epoch: int, record: Mapping[str, Any]) -> None:
        print(validation_line(epoch, record), flush=True)

    def note(self, text: str) -> None:
        print(text, flush=True)


def show_terms(terms: Mapping[str, float | None]) -> str:
    """`objective 240.1, rate 16.8, ...`: nats per image."""
    return ", ".join(
        f"{name} {'not a number' if value is None else f'{value:.4g}'}"
        for name, value in terms.items()
    )


def validation_line(epoch: int, record: Mapping[str, Any]) -> str:
    bits = record["bits_per_dim"]
    tail = "" if bits is None else f", {bits:.4f} bits per dimension"
    return f"epoch {epoch}, held out: {show_terms(record['terms'])} nats{tail}"
