"""What is done to a process from inside: it is killed at the n-th time that it comes to a place.

The product knows nothing of this: functions are replaced in the child before it begins.
"""

from __future__ import annotations

import importlib
import os
import resource
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

PLACES: dict[str, tuple[str, str]] = {
    "fsync": ("os", "fsync"),
    "rename": ("os", "rename"),
    "replace": ("os", "replace"),
    "unlink": ("os", "unlink"),
    "rmdir": ("os", "rmdir"),
    "truncate": ("os", "truncate"),
    "tensors": ("vaezoo.checkpoint.format", "write_tensors"),
    "checkpoint": ("vaezoo.training.checkpoints", "save_checkpoint"),
    "prune": ("vaezoo.checkpoint.format", "_prune"),
    "append": ("vaezoo.checkpoint.folder", "RunFolder.append_metrics"),
    "create": ("vaezoo.checkpoint.folder", "RunFolder.write_start"),
    "step": ("vaezoo.training.train_step", "TrainStep.__call__"),
    "validation": ("vaezoo.training.trainer", "evaluate_loss"),
    "finish": ("vaezoo.training.trainer", "Trainer._finish"),
    "evaluation": ("vaezoo.runs.train", "evaluate"),
    "pictures": ("vaezoo.runs.train", "save_examples"),
    "curves": ("vaezoo.runs.train", "save_curves"),
    "summary": ("vaezoo.runs.train", "write_json"),
    "store": ("vaezoo_files.cache", "Writer.append"),
    "seal": ("vaezoo_files.cache", "Writer.finish"),
    "resume": ("vaezoo.training.state", "TrainingState.restore"),
}
"""Where a process can be killed: module and function."""

MANNERS = ("before", "after", "during", "torn")
"""during: some thousandths of a second after it began. torn: the file that it wrote is cut."""

counts: Counter[str] = Counter()


def count_places() -> None:
    """Count how often each place is come to."""
    for place in PLACES:
        _replace(place, lambda honest, place: _counting(honest, place))


def kill_at(place: str, number: int, manner: str, fraction: float) -> None:
    """Kill this process at the number-th time (from 1) that it comes to a place."""

    def watched(honest: Callable[..., Any], place: str) -> Callable[..., Any]:
        def function(*args: Any, **kwargs: Any) -> Any:
            counts[place] += 1
            if counts[place] != number:
                return honest(*args, **kwargs)
            if manner == "before":
                _die()
            if manner == "during":
                threading.Thread(target=_die_after, args=(fraction * 0.02,), daemon=True).start()
            value = honest(*args, **kwargs)
            if manner == "torn":
                _tear(place, args, fraction)
            if manner != "during":
                _die()
            return value

        return function

    _replace(place, watched)


def raise_at(place: str, number: int) -> None:
    """Raise an error, as a plugin with a fault does, at the number-th time from then on."""

    def watched(honest: Callable[..., Any], place: str) -> Callable[..., Any]:
        def function(*args: Any, **kwargs: Any) -> Any:
            counts[place] += 1
            if counts[place] >= number:
                raise ValueError("a fault of a plugin")
            return honest(*args, **kwargs)

        return function

    _replace(place, watched)


def forget() -> None:
    """Plant a fault: a resume does not bring the generators back. Trials must notice it."""
    module = importlib.import_module("vaezoo.training.state")
    setattr(module, "set_random_state", lambda *args: None)  # noqa: B010


def limit_files(size: int) -> None:
    """No file may grow larger than this: writing fails, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def _counting(honest: Callable[..., Any], place: str) -> Callable[..., Any]:
    def function(*args: Any, **kwargs: Any) -> Any:
        counts[place] += 1
        return honest(*args, **kwargs)

    return function


def _replace(place: str, make: Callable[[Callable[..., Any], str], Callable[..., Any]]) -> None:
    module, name = PLACES[place]
    owner: Any = importlib.import_module(module)
    *classes, name = name.split(".")
    for part in classes:
        owner = getattr(owner, part)
    setattr(owner, name, make(getattr(owner, name), place))


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_after(seconds: float) -> None:
    time.sleep(seconds)
    _die()


def _tear(place: str, args: tuple[Any, ...], fraction: float) -> None:
    path = {"tensors": lambda: args[0], "append": lambda: args[0].metrics}.get(place)
    if path is not None:
        _cut(path(), fraction, whole=place == "tensors")


def _cut(path: Path, fraction: float, *, whole: bool) -> None:
    """Keep a part of the file, or of its last line."""
    data = path.read_bytes()
    start = 0 if whole else data.rstrip(b"\n").rfind(b"\n") + 1
    with path.open("r+b") as file:
        file.truncate(start + int((len(data) - start) * fraction))
