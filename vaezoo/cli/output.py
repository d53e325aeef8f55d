"""How commands print: tables for people, JSON for programs. rich is imported where it is used."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

_PIPE_WIDTH = 10_000
"""Columns where stdout is no terminal: a row stays on one line there, so that grep finds it."""


def make_console(file: TextIO | None = None, width: int | None = None) -> Console:
    """A console on stdout: it wraps lines on a terminal, and prints plain long lines elsewhere."""
    from rich.console import Console

    console = Console(file=file or sys.stdout, width=width, highlight=False, markup=False)
    if width is None and not console.is_terminal:
        console.width = _PIPE_WIDTH
    return console


def print_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    indent: int = 0,
    console: Console | None = None,
) -> None:
    """Print a table. Its first column is never wrapped; other cells wrap and are never cut."""
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
        console.file.write(line.rstrip() + "\n")  # not by rich: it may contain colour codes


def print_result(as_json: bool, value: Any, text: str) -> None:
    """Print the value as JSON, or the text for people."""
    if as_json:
        print_json(value)
    else:
        print(text)


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout, in characters that stdout's encoding has.

    JSON has no number for infinity and for NaN: they are null.
    """
    readable = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    text = json.dumps(value, indent=2, ensure_ascii=not readable)
    finite = json.loads(text, parse_constant=lambda name: None)
    print(json.dumps(finite, indent=2, ensure_ascii=not readable, allow_nan=False))
