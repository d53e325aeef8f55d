"""Command lines that must be refused in one line."""

from __future__ import annotations

import pytest

from vaezoo.cli.main import main


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """The one line on stderr of a command that ends with exit code 2."""
    capsys.readouterr()
    assert main([str(arg) for arg in args]) == 2
    error = capsys.readouterr().err
    assert error.startswith("vaezoo: ")
    assert error.count("\n") == 1
    return error
