"""The interface of what takes a run's numbers elsewhere, beside metrics.jsonl."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vaezoo.checkpoint.folder import RunFolder
from vaezoo.config import RunConfig
from vaezoo.errors import VaezooError
from vaezoo.plugins.registry import registry

Line = Mapping[str, Any]
"""A line of metrics.jsonl: `kind`, `step`, `epoch`, `terms` in nats, and what docs/json.md says."""


class BaseLogger(ABC):
    """Gets every line of metrics.jsonl when it is written. Registered with a vaezoo.LoggerSpec.

    folder: the run's. config: all options, as in config.yaml.
    """

    def __init__(self, folder: Path, config: Mapping[str, Mapping[str, Any]]) -> None:
        self.folder = folder
        self.config = config

    @classmethod
    def check(cls) -> None:
        """Called before anything is trained: VaezooError says what is not installed."""
        return

    @abstractmethod
    def start(self, past: Sequence[Line]) -> None:
        """The first line is about to come, after these, which the run has from before.

        What was written after the last of them will be written again: forget it.
        """

    @abstractmethod
    def write(self, line: Line) -> None:
        """One line more."""

    def close(self) -> None:
        """Training is over, one way or another."""
        return


def check_loggers(names: Iterable[str]) -> None:
    """VaezooError unless there are such writers, and what they need is here."""
    for name in names:
        _load(name).check()


@contextmanager
def writing(folder: RunFolder, config: RunConfig, note: Callable[[str], None]) -> Iterator[None]:
    """Inside, the writers that the configuration names get every line of the folder's metrics.

    A writer starts with the first line, so that a process which writes none has no writers. One
    that fails costs a line of `note` and gets no more; training goes on.
    """
    past = folder.read_metrics() if config.train.log else []
    guarded = [
        _Guarded(name, _load(name)(folder.path, config.to_dict()), past, note)
        for name in config.train.log
    ]
    before = list(folder.listeners)
    folder.listeners += [one.write for one in guarded]
    try:
        yield
    finally:
        folder.listeners[:] = before
        for one in guarded:
            one.close()


class _Guarded:
    """A writer whose failures are told once and end it."""

    def __init__(
        self, name: str, writer: BaseLogger, past: Sequence[Line], note: Callable[[str], None]
    ) -> None:
        self.name, self.writer, self.past, self.note = name, writer, past, note
        self.started = self.broken = False

    def write(self, line: Line) -> None:
        if not self.started:
            self.started = True
            self._try(lambda: self.writer.start(self.past))
        self._try(lambda: self.writer.write(line))

    def close(self) -> None:
        if self.started:
            self._try(self.writer.close)

    def _try(self, action: Callable[[], None]) -> None:
        if self.broken:
            return
        try:
            action()
        except Exception as error:  # a stranger's service may fail in any way
            self.broken = True
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            self.note(f"--log {self.name} gets no more: {reason}")


def _load(name: str) -> type[BaseLogger]:
    spec = registry().logger(name)
    found = spec.load()
    if not (isinstance(found, type) and issubclass(found, BaseLogger)):
        raise VaezooError(f"writer {name}: {spec.target} is no BaseLogger")
    return found
