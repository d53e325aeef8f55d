"""How every command prints: tables for people, JSON for programs. rich is imported when used."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

WIDEST = 10_000
"""Columns of what is no terminal: a row stays on one line there, so that grep sees it whole."""


def is_first_process() -> bool:
    """Whether this is no job of torchrun's with several processes, or the first of them."""
    return os.environ.get("RANK", "0") == "0"


def is_first_process_here() -> bool:
    """The same among the processes on this machine."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def make_console(file: TextIO | None = None, width: int | None = None) -> Console:
    """A console on stdout that wraps on terminals, and prints plain long lines elsewhere."""
    from rich.console import Console

    console = Console(file=file or sys.stdout, width=width, highlight=False, markup=False)
    if width is None and not console.is_terminal:
        console.width = WIDEST
    return console


def print_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    indent: int = 0,
    console: Console | None = None,
) -> None:
    """A table whose first column is never broken, and whose cells wrap and are never cut."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console = console or make_console()
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for column, heading in enumerate(headings):
        table.add_column(Text(heading), no_wrap=column == 0, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    with console.capture() as capture:
        console.print(Padding(table, (0, 0, 0, indent)))
    for line in capture.get().splitlines():
        print_line(line.rstrip(), console)


def print_line(text: str, console: Console) -> None:
    """Text as it is: what capture() made may hold colours, which are not to be read again."""
    console.file.write(text + "\n")


def print_json(value: Any) -> None:
    """A value as JSON on stdout, in letters that stdout's encoding has."""
    readable = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print(json.dumps(value, indent=2, ensure_ascii=not readable, allow_nan=False))
