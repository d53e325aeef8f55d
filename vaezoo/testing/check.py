"""What a check is, and what comes of it."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

Status = Literal["passed", "failed", "expected failure", "does not apply", "left out"]


class CheckFailed(AssertionError):
    """What a check found wrong, in one line."""


def fail_if(wrong: object, message: str) -> None:
    """CheckFailed with this message if something is wrong."""
    if wrong:
        raise CheckFailed(message)


class CheckSkipped(Exception):
    """Raised by a check that has nothing to look at, with the reason."""


class Subject(Protocol):
    """What is checked: a model with its loss, or a data set."""

    @property
    def name(self) -> str: ...
    @property
    def tags(self) -> tuple[str, ...]: ...
    @property
    def expected_failures(self) -> Mapping[str, str]: ...


SubjectT = TypeVar("SubjectT", bound=Subject)


@dataclass(frozen=True)
class Check(Generic[SubjectT]):
    """One thing that must be true of a subject.

    what: what must be true. hint: what to do where it is not.
    requires: tags of those that it is for. slow: whether it is left out unless asked for.
    """

    name: str
    what: str
    hint: str
    function: Callable[[SubjectT], None]
    requires: tuple[str, ...] = ()
    slow: bool = False


@dataclass(frozen=True)
class Result:
    """What came of one check. reason: why it failed, was expected to, or does not apply."""

    check: str
    what: str
    status: Status
    reason: str = ""
    hint: str = ""
    error: BaseException | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        values = asdict(self)
        del values["error"]
        return {**values, "details": self.details or None}

    @property
    def details(self) -> str:
        """The traceback of what a check ran into and did not look for; "" otherwise."""
        if self.error is None or isinstance(self.error, CheckFailed):
            return ""
        return "".join(traceback.format_exception(self.error))


def check(
    hint: str, *, requires: tuple[str, ...] = (), slow: bool = False
) -> Callable[[Callable[[SubjectT], None]], Check[SubjectT]]:
    """Make a check of a function, whose name and docstring's first line are the check's."""

    def make(function: Callable[[SubjectT], None]) -> Check[SubjectT]:
        what = (function.__doc__ or "").splitlines()[0].removesuffix(".")
        return Check(function.__name__, what, hint, function, requires, slow)

    return make


def run_check(
    check: Check[SubjectT], subject: SubjectT, expected: Mapping[str, str] | None = None
) -> Result:
    """Run one check. expected: check -> why it is known to fail; it must, then."""
    excuse = {**subject.expected_failures, **(expected or {})}.get(check.name)
    error: Exception | None = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check.function(subject)
    except CheckSkipped as excused:
        return Result(check.name, check.what, "does not apply", str(excused))
    except Exception as raised:
        error = raised
    if error is None and excuse is None:
        return Result(check.name, check.what, "passed")
    if error is None:
        reason = f"it is known to fail ({excuse}), and passes"
        return Result(check.name, check.what, "failed", reason, "take it off expected_failures")
    if excuse is not None:
        return Result(check.name, check.what, "expected failure", excuse)
    said = " ".join(str(error).split())
    reason = said if isinstance(error, CheckFailed) else f"{type(error).__name__}: {said}"
    return Result(check.name, check.what, "failed", reason, check.hint, error)
