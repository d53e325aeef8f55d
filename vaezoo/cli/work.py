"""How long work looks: a bar on a terminal, a line now and then elsewhere. Both on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from vaezoo.cli.output import is_first_process

_PLAIN_SECONDS = 10.0
"""At most one plain line in this time: quick work says nothing."""


class Work:
    """Shows progress while it is open: `with Work() as work: ...; work.tell("fid", 3, 10)`."""

    def __init__(self) -> None:
        self.prefix = ""
        self.told = time.perf_counter()
        self.bar = None
        if sys.stderr.isatty() and is_first_process():
            from rich.console import Console
            from rich.progress import Progress

            self.bar = Progress(console=Console(stderr=True), transient=True)

    def __enter__(self) -> Work:
        if self.bar is not None:
            self.bar.start()
            self.task = self.bar.add_task("", total=None)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def tell(self, what: str, done: int, total: int) -> None:
        text = f"{self.prefix}{what}"
        if self.bar is not None:
            self.bar.update(self.task, description=text, completed=done, total=total)
        elif is_first_process() and time.perf_counter() - self.told > _PLAIN_SECONDS:
            self.told = time.perf_counter()
            print(f"vaezoo: {text}, {done:,} of {total:,}", file=sys.stderr, flush=True)
