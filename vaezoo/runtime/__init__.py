"""The machine of a run: its device, its memory, its CPUs; and reports of the progress of long work.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and the total."""

_listeners: list[OnProgress] = []


def report_progress(what: str, done: int, total: int) -> None:
    """Report that `done` of `total` parts of long work are finished; a command may show it."""
    if _listeners:
        _listeners[-1](what, done, total)


@contextmanager
def listen_to_progress(listener: OnProgress) -> Iterator[None]:
    """Call `listener` with each report in the body."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
