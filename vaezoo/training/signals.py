"""SIGINT and SIGTERM: the first makes training save and stop, the second stops it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from vaezoo.distributed import world_size

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequested(BaseException):
    """The first signal, raised inside `interruptible`. No `except Exception` catches it."""


class StopAtOnce(KeyboardInterrupt):
    """The second signal."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


class SignalHandler:
    """Handles the signals of a run. asked: the number of the first signal; 0 before it."""

    def __init__(self) -> None:
        self.asked = 0
        self._interruptible = False

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Handle signals during the body. Only the main thread can do that; others skip it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def interruptible(self, *, alone: bool = False) -> Iterator[None]:
        """Raise StopRequested in the body at the first signal, also if it came before.

        alone: whether this rank may leave the others, which then cannot go on; else, nothing is
        raised with several ranks.
        """
        if world_size() > 1 and not alone:
            yield
            return
        self._interruptible = True
        try:
            if self.asked:
                raise StopRequested
            yield
        finally:
            self._interruptible = False

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            # A third signal ends the process at once.
            for each in SIGNALS:
                signal.signal(each, signal.SIG_DFL)
            raise StopAtOnce(number)
        self.asked = number
        if self._interruptible:
            raise StopRequested
