"""Errors for users: one clear line each, exit code 2, no traceback."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable
from contextvars import ContextVar
from pathlib import Path

on_command_line = ContextVar("on_command_line", default=False)
"""Whether messages name options as the command line does: `--batch-size`, not `batch_size`."""
_PYTHON_NAMES = {"class": "label", "metric": "metrics"}


def python_names(message: str) -> str:
    """The message with arguments of Python for flags, but for those of a whole command."""
    pieces = re.split(r"(vaezoo [a-z-]+ [^;()]*)", message)

    def name(flag: re.Match[str]) -> str:
        return _PYTHON_NAMES.get(flag[1], flag[1].replace("-", "_"))

    return "".join(
        piece if number % 2 else re.sub(r"(?<![\w-])--([a-z][a-z0-9-]*)", name, piece)
        for number, piece in enumerate(pieces)
    )


class VaezooError(Exception):
    """Base of all errors for users; the message is one line: what was wrong and what to do."""

    exit_code = 2


class UnknownNameError(VaezooError):
    """No plugin registered this model, loss or data set."""


class BrokenPluginError(VaezooError):
    """The constructor of a plugin's class raised an error."""


class OptionError(VaezooError):
    """An option does not exist, or does not take this value."""


class DataError(VaezooError):
    """Data is missing, cannot be read, or does not fit the model."""


class RunError(VaezooError):
    """A run folder cannot be written, read or resumed."""


class TrainingError(VaezooError):
    """Training cannot go on; the message names the step and the term."""


class VaezooWarning(UserWarning):
    """Something is likely not what the user wants; the message is one line."""


class ProcessLostError(VaezooError):
    """Another process of the job was lost, so this one cannot go on."""

    def __init__(self, reason: str) -> None:
        # Without the source location at its start and the advice at its end.
        first = re.sub(r"^\[[^]]*\] *", "", reason.strip()).splitlines() or ["no reason given"]
        why = first[0].partition(". ")[0][:200]
        super().__init__(
            f"another process of the job is gone, and this one cannot go on alone: {why}"
        )


class RunStopped(VaezooError):
    """Training was stopped by a signal and saved a checkpoint.

    signal: its number; the exit code is 128 more, as in shells.
    """

    def __init__(self, path: Path, step: int, signal: int = 2) -> None:
        self.path = path
        self.exit_code = 128 + signal
        super().__init__(f"stopped after step {step}; {how_to_resume(path)}")


def how_to_resume(path: Path) -> str:
    """The command that resumes a run, to copy and paste."""
    return f"to go on: vaezoo train --resume {shlex.quote(str(path))}"


def counted(number: int, what: str) -> str:
    """`1 example`, `2,000 examples`. what: a noun whose plural has an s."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def quoted(word: object) -> str:
    """A word of the user in quotes on one line, shortened if it is long."""
    text = repr(word)
    return text if len(text) <= 100 else f"{text[:90]}..."


def printable(text: str) -> str:
    """The text without control characters and invalid characters, on one line."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "�" for c in text)


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x' or 'y'?`, or "" if no known name is similar."""
    return did_you_mean(find_similar(name, known))


def did_you_mean(words: Iterable[str]) -> str:
    """`; did you mean 'x' or 'y'?`, or "" without a word."""
    listed = " or ".join(map(repr, words))
    return f"; did you mean {listed}?" if listed else ""


def find_similar(name: str, known: Iterable[str], cutoff: float = 0.6) -> list[str]:
    """At most three known names that are similar; one, if it differs by case or a plural only."""
    plain = {word.lower(): word for word in known}
    name = name.lower()
    if len(name) > 100:
        return []
    if same := [word for lower, word in plain.items() if lower.rstrip("s") == name.rstrip("s")]:
        return same
    return [plain[word] for word in difflib.get_close_matches(name, plain, n=3, cutoff=cutoff)]
