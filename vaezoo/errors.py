"""Errors that are the user's business: one clear line each, exit code 2, never a traceback."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable
from pathlib import Path


class VaezooError(Exception):
    """Base of every error that says what was wrong and what to do, in one line."""

    exit_code = 2


class UnknownNameError(VaezooError):
    """A model, loss or data set that no plugin has registered."""


class BrokenPluginError(VaezooError):
    """Somebody's class that raises where it is built, with the place in its file."""


class OptionError(VaezooError):
    """An option that does not exist, or a value that it does not take."""


class DataError(VaezooError):
    """Data that is missing, cannot be read, or does not fit the model."""


class RunError(VaezooError):
    """A run folder that cannot be written, read or resumed."""


class TrainingError(VaezooError):
    """Training that cannot go on, with the step and the term that broke."""


class ProcessLostError(VaezooError):
    """Another process of the job is gone, and this one cannot go on without it."""

    def __init__(self, reason: str) -> None:
        # Without the place in somebody's source that it begins with, and the advice that follows.
        first = re.sub(r"^\[[^]]*\] *", "", reason.strip()).splitlines() or ["no reason given"]
        why = first[0].partition(". ")[0][:200]
        super().__init__(
            f"another process of the job is gone, and this one cannot go on alone: {why}"
        )


class RunStopped(VaezooError):
    """Training that was asked to stop, and has saved what it needs to go on.

    signal: the number of the signal that asked; the exit code is 128 more, as shells have it.
    """

    def __init__(self, path: Path, step: int, signal: int = 2) -> None:
        self.path = path
        self.exit_code = 128 + signal
        super().__init__(f"stopped after step {step}; {how_to_resume(path)}")


def how_to_resume(path: Path) -> str:
    """Words to copy and run."""
    return f"to go on: vaezoo train --resume {shlex.quote(str(path))}"


def quoted(word: object) -> str:
    """What someone wrote, in quotes and on one line, cut where it is long."""
    text = repr(word)
    return text if len(text) <= 100 else f"{text[:90]}..."


def printable(text: str) -> str:
    """One line of valid text that moves no cursor: names on disk may hold anything."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "�" for c in text)


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x' or 'y'?`, or nothing where nothing is near."""
    if len(name) > 100:
        return ""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    if not close:
        return ""
    return "; did you mean " + " or ".join(repr(match) for match in close) + "?"
