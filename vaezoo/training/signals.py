"""SIGINT and SIGTERM: the first asks training to save and stop, the second stops it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from vaezoo.distributed import world_size

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequested(BaseException):
    """The first signal, where the body may be left anywhere: past every `except Exception`."""


class StopAtOnce(KeyboardInterrupt):
    """The second signal."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


class SignalHandler:
    """What was asked for by signals.

    asked: the number of the first signal; 0 until then.
    """

    def __init__(self) -> None:
        self.asked = 0
        self._leaving = False

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Signals come here during the body. Off the main thread there are none to catch."""
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
    def interruptible(self) -> Iterator[None]:
        """The body is left by StopAsked as soon as a stop is asked for, or was before.

        Not where several processes do it together: none may leave the others.
        """
        if world_size() > 1:
            yield
            return
        self._leaving = True
        try:
            if self.asked:
                raise StopRequested
            yield
        finally:
            self._leaving = False

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            # A third ends the process whatever it is doing.
            for one in SIGNALS:
                signal.signal(one, signal.SIG_DFL)
            raise StopAtOnce(number)
        self.asked = number
        if self._leaving:
            raise StopRequested
