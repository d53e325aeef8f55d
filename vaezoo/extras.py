"""Packages that only some commands need: imported when they do, missed in one clear line."""

from __future__ import annotations

import importlib
from typing import Any

from vaezoo.errors import VaezooError


class MissingExtraError(VaezooError):
    """A package of an extra that is not installed."""


def need(module: str, what: str, extra: str) -> Any:
    """The module. MissingExtraError, with the command that installs it, if it is not here.

    what: who asks, as the user has it on the line: "--method umap". extra: of vaezoo's own extras.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # What a package that is here misses by itself is its own trouble: name that.
        package = (error.name or module).partition(".")[0]
        raise MissingExtraError(
            f"{what} needs the package {package}, which is not installed: "
            f"pip install 'vaezoo[{extra}]'"
        ) from None
