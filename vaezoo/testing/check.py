"""The types Subject, Check and Result."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from vaezoo.options import Options
from vaezoo.plugins.specs import Spec

Status = Literal["passed", "failed", "expected failure", "does not apply", "left out"]


class CheckFailed(AssertionError):
    """Raised by a check with what is wrong, in one line."""


class CheckSkipped(Exception):
    """Raised by a check that does not apply to a subject, with the reason."""


def fail_if(wrong: object, message: str) -> None:
    """CheckFailed with this message if something is wrong."""
    if wrong:
        raise CheckFailed(message)


class Subject:
    """The subject of checks: a model with its loss, or a data set.

    options: "model NAME" and so on -> its options.
    """

    spec: Spec
    tags: tuple[str, ...]
    expected_failures: Mapping[str, str]
    options: Mapping[str, Options]

    @property
    def name(self) -> str:
        return self.spec.name


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
    def cause(self) -> BaseException | None:
        """The error that the check did not expect; None if there is none."""
        error = self.error.__cause__ if isinstance(self.error, CheckFailed) else self.error
        return None if isinstance(error, CheckFailed) else error

    @property
    def details(self) -> str:
        """The traceback of `cause`; "" if there is none."""
        return "" if self.cause is None else "".join(traceback.format_exception(self.cause))

    def after(self, others: Iterable[Result]) -> Result:
        """This result, or, if one of the others has the same error, one that only names it."""
        for other in others:
            if self.cause and _same(self.cause, other.cause):
                reason = f"the same error as in {other.check}"
                return replace(self, reason=reason, hint="", error=None)
        return self


def _same(error: BaseException, other: BaseException | None) -> bool:
    """Whether two errors are of one type, text and line."""

    def key(one: BaseException) -> tuple[object, ...]:
        frame = traceback.extract_tb(one.__traceback__)[-1]
        return type(one), str(one), frame.filename, frame.lineno

    return other is not None and key(error) == key(other)


@dataclass(frozen=True)
class Check:
    """One thing that must be true of a subject.

    what: what must be true. hint: what to do if it is not.
    requires: tags that a subject needs. slow: whether it runs only with `slow=True`.
    """

    name: str
    what: str
    hint: str
    function: Callable[[Any], None]
    requires: tuple[str, ...] = ()
    slow: bool = False

    def result(self, status: Status, *details: Any) -> Result:
        """A result of this check. details: its reason, hint and error."""
        return Result(self.name, self.what, status, *details)

    def run(self, subject: Subject, expected: Mapping[str, str]) -> Result:
        """Run the check. expected: check -> reason; such a check must fail."""
        excuse = {**subject.expected_failures, **expected}.get(self.name)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.function(subject)
        except CheckSkipped as skipped:
            return self.result("does not apply", str(skipped))
        except Exception as error:
            if excuse is not None:
                return self.result("expected failure", excuse)
            kind = "" if isinstance(error, CheckFailed) else f"{type(error).__name__}: "
            return self.result("failed", kind + " ".join(str(error).split()), self.hint, error)
        if excuse is None:
            return self.result("passed")
        reason = f"it is expected to fail ({excuse}), but passes"
        return self.result("failed", reason, "remove it from expected_failures")


def check(
    hint: str, *, requires: tuple[str, ...] = (), slow: bool = False
) -> Callable[[Callable[[Any], None]], Check]:
    """Turn a function into a Check with its name and the first line of its docstring."""

    def make(function: Callable[[Any], None]) -> Check:
        what = (function.__doc__ or "").splitlines()[0].removesuffix(".")
        return Check(function.__name__, what, hint, function, requires, slow)

    return make
