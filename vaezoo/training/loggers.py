"""What receives the progress of training: callbacks, and loggers of every line of metrics.jsonl."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaezoo.checkpoint.folder import RunFolder
from vaezoo.errors import VaezooError
from vaezoo.plugins.registry import registry


@dataclass(frozen=True)
class TrainMetrics:
    """A log line. terms: means since the last line, in nats per image; None if not finite."""

    step: int
    total_steps: int
    epoch: int
    images_per_second: float
    terms: Mapping[str, float | None]


class ProgressCallback:
    """Base of progress callbacks. Each method does nothing until a subclass overrides it."""

    def on_train_start(self, title: str, total_steps: int, done: int) -> None:
        """Training starts, or resumes after `done` steps."""

    def on_step_end(self) -> None:
        """A step was given to the device."""

    def on_log(self, metrics: TrainMetrics) -> None:
        """A log line was written."""

    def on_validation_end(self, epoch: int, record: Mapping[str, Any]) -> None:
        """A validation is done. record: its line of metrics.jsonl."""

    def on_progress(self, what: str, done: int, total: int) -> None:
        """`done` of `total` parts of other long work are finished: reading, fitting, evaluating."""

    def on_note(self, text: str) -> None:
        """A message for the user, in one line."""

    def on_train_end(self) -> None:
        """Training is over, with or without an error. Called once."""

    def close(self) -> None:
        """All work is over, also after an error: called when `vaezoo.train` returns or raises."""


Line = Mapping[str, Any]
"""A line of metrics.jsonl: `kind`, `step`, `epoch`, `terms` in nats, and more (docs/json.md)."""


class BaseLogger(ABC):
    """Base of loggers, which receive every line of metrics.jsonl when it is written.

    Register one with a vaezoo.LoggerSpec. folder: the run folder. config: all options, as in
    config.yaml.
    """

    def __init__(self, folder: Path, config: Mapping[str, Mapping[str, Any]]) -> None:
        self.folder = folder
        self.config = config

    @classmethod
    def check(cls) -> None:
        """Called before training starts: raise a VaezooError if something is not installed."""
        return

    @abstractmethod
    def start(self, past: Sequence[Line]) -> None:
        """Called before the first line. past: the lines that a resumed run has already.

        Lines after the last of `past` will be written again: drop what you have of them.
        """

    @abstractmethod
    def write(self, line: Line) -> None:
        """Write one line."""

    def close(self) -> None:
        """Called when training is over, with or without an error."""
        return


def check_loggers(names: Iterable[str]) -> None:
    """Raise a VaezooError if a logger does not exist, or needs something that is not installed."""
    for name in names:
        _load(name).check()


@contextmanager
def attach_loggers(
    folder: RunFolder,
    names: Sequence[str],
    config: Mapping[str, Mapping[str, Any]],
    note: Callable[[str], None],
) -> Iterator[None]:
    """Send every line of the folder's metrics to these loggers during the body.

    A logger starts with the first line, so that a process which writes no line starts none. If a
    logger raises, it is not called again, `note` gets a line about it, and training continues.
    """
    past = folder.read_metrics() if names else []
    guards = [_GuardedLogger(name, _load(name)(folder.path, config), past, note) for name in names]
    before = list(folder.listeners)
    folder.listeners += [guard.write for guard in guards]
    try:
        yield
    finally:
        folder.listeners[:] = before
        for guard in guards:
            guard.close()


@dataclass
class _GuardedLogger:
    """A logger that is disabled by its first error."""

    name: str
    logger: BaseLogger
    past: Sequence[Line]
    note: Callable[[str], None]
    started: bool = False
    failed: bool = False

    def write(self, line: Line) -> None:
        if not self.started:
            self.started = True
            self._call(lambda: self.logger.start(self.past))
        self._call(lambda: self.logger.write(line))

    def close(self) -> None:
        if self.started:
            self._call(self.logger.close)

    def _call(self, action: Callable[[], None]) -> None:
        if self.failed:
            return
        try:
            action()
        except Exception as error:  # an external service can fail in any way
            self.failed = True
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            self.note(f"--log {self.name} gets no more lines: {reason}")


def _load(name: str) -> type[BaseLogger]:
    spec = registry().get("logger", name)
    found = spec.load()
    if not (isinstance(found, type) and issubclass(found, BaseLogger)):
        raise VaezooError(f"logger {name}: {spec.target} is not a BaseLogger")
    return found
