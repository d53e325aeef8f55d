"""Fixtures of the training tests."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vaezoo.training.loggers import ProgressCallback


class Notes(ProgressCallback):
    """Keeps the messages for the user."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def on_note(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def host_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The name of each call that reads a tensor back to the host: item, tolist, a truth value."""
    reads: list[str] = []
    for name in ("item", "tolist", "__bool__", "__float__", "__int__"):
        honest = getattr(torch.Tensor, name)

        def counted(
            tensor: torch.Tensor, *args: Any, name: str = name, honest: Any = honest
        ) -> Any:
            reads.append(name)
            return honest(tensor, *args)

        monkeypatch.setattr(torch.Tensor, name, counted)
    return reads
