"""What one subprocess measures, as it travels there. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Mode = Literal["train", "encode", "decode", "sample"]
MODES: tuple[Mode, ...] = ("train", "encode", "decode", "sample")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row to be: a mode at a batch size, in a precision, compiled or not."""

    mode: Mode
    batch_size: int
    precision: str
    compile: str


@dataclass(frozen=True, kw_only=True)
class Job:
    """One model with its cases.

    options: the model's and the loss's, flat. shape: of an image. windows, seconds: how many timed
    windows, and how long one lasts at least. end_to_end: whether training rows include the data.
    largest: look for the largest batch that fits, instead of the case's own.
    gemm, copy: the machine's measured rates by precision, FLOP/s, and in bytes/s.
    """

    model: str
    loss: str | None
    options: Mapping[str, Any]
    shape: tuple[int, int, int]
    device: str
    cases: tuple[Case, ...]
    windows: int
    seconds: float
    end_to_end: bool
    largest: bool
    gemm: Mapping[str, float]
    copy: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Job:
        cases = tuple(Case(**case) for case in values["cases"])
        return cls(**{**values, "cases": cases, "shape": tuple(values["shape"])})
