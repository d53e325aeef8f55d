"""The types Check and Result, and the function that runs a check."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

Status = Literal["passed", "failed", "expected failure", "does not apply", "left out"]


class CheckFailed(AssertionError):
    """Raised by a check with what is wrong, in one line."""


def fail_if(wrong: object, message: str) -> None:
    """CheckFailed with this message if something is wrong."""
    if wrong:
        raise CheckFailed(message)


class CheckSkipped(Exception):
    """Raised by a check that does not apply to a subject, with the reason."""


class Subject(Protocol):
    """The subject of checks: a model with its loss, or a data set."""

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

    what: what must be true. hint: what to do if it is not.
    requires: tags that a subject needs. slow: whether it runs only with `slow=True`.
    """

    name: str
    what: str
    hint: str
    function: Callable[[SubjectT], None]
    requires: tuple[str, ...] = ()
    slow: bool = False


@dataclass(frozen=True)
class Result:
    """The result of one check. reason: why it failed, was expected to fail, or does not apply."""

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
        """The traceback of an error that the check did not expect; "" if there is none."""
        if self.error is None or isinstance(self.error, CheckFailed):
            return ""
        return "".join(traceback.format_exception(self.error))


def check(
    hint: str, *, requires: tuple[str, ...] = (), slow: bool = False
) -> Callable[[Callable[[SubjectT], None]], Check[SubjectT]]:
    """Turn a function into a Check with its name and the first line of its docstring."""

    def make(function: Callable[[SubjectT], None]) -> Check[SubjectT]:
        what = (function.__doc__ or "").splitlines()[0].removesuffix(".")
        return Check(function.__name__, what, hint, function, requires, slow)

    return make


def run_check(
    check: Check[SubjectT], subject: SubjectT, expected: Mapping[str, str] | None = None
) -> Result:
    """Run one check. expected: check -> reason; such a check must fail."""
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
        reason = f"it is expected to fail ({excuse}), but passes"
        return Result(check.name, check.what, "failed", reason, "remove it from expected_failures")
    if excuse is not None:
        return Result(check.name, check.what, "expected failure", excuse)
    said = " ".join(str(error).split())
    reason = said if isinstance(error, CheckFailed) else f"{type(error).__name__}: {said}"
    return Result(check.name, check.what, "failed", reason, check.hint, error)
