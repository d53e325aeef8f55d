"""What code that is not ours may cost: so much time, and no output of ours."""

from __future__ import annotations

import contextlib
import io
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

_AGAIN = 1.0


class TookTooLong(BaseException):
    """Past every `except Exception` on its way out."""


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise TookTooLong in the body once it has taken so long, and again each second after that.

    An alarm signal does it, which ends a sleep, a wait for the network and a loop alike. Three
    things it cannot do: there are no alarms on Windows and none off the main thread, so that the
    body may take its time there; and code of an extension module that never comes back to Python
    is not interrupted. An alarm that was set before goes off afterwards, late if need be.
    """
    if not _can_be_held():
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise TookTooLong(f"it took more than {seconds:g} s")

    handler = signal.signal(signal.SIGALRM, ring)
    begun = time.monotonic()
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            left = max(left - (time.monotonic() - begun), 1e-3)
            signal.setitimer(signal.ITIMER_REAL, left, interval)


@contextlib.contextmanager
def captured() -> Iterator[io.StringIO]:
    """Keep what the body prints, on either stream: it must not get into `vaezoo list --json`.

    What does not go through sys.stdout and sys.stderr (a subprocess, an extension module) passes.
    """
    output = _Recorder()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            yield output
    finally:
        output.recording = False


class _Recorder(io.StringIO):
    """A stream that somebody may keep: a logging handler that was made in the body, for one."""

    recording = True

    def write(self, text: str) -> int:
        return super().write(text) if self.recording else sys.stderr.write(text)


def _can_be_held() -> bool:
    return (
        hasattr(signal, "setitimer")
        and threading.current_thread() is threading.main_thread()
        # None: a handler that is not Python's, and could not be put back.
        and signal.getsignal(signal.SIGALRM) is not None
    )
