"""Processes that run `vaezoo`, and what became of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

HERE = Path(__file__).parent
SECONDS = 300.0
"""What takes longer hangs."""


@dataclass(frozen=True)
class Ended:
    """How a process ended. code: as subprocess has it: -9 for SIGKILL."""

    code: int
    stdout: str
    stderr: str
    seconds: float
    counts: dict[str, int]

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    @property
    def has_traceback(self) -> bool:
        return "Traceback (most recent call last)" in self.stderr


class Process:
    """One that is running."""

    def __init__(self, server: Server, pid: int, folder: Path) -> None:
        self._server, self.pid, self._folder = server, pid, folder
        self._begun = time.monotonic()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)  # nobody has waited for it yet: the number is still its own

    def wait(self, kill_after: float | None = None) -> Ended:
        """How it ended; kill_after: seconds since it began."""
        kills = [threading.Timer(SECONDS, self.signal, (signal.SIGABRT,))]
        if kill_after is not None:
            left = max(0.0, kill_after - (time.monotonic() - self._begun))
            kills.append(threading.Timer(left, self.signal, (signal.SIGKILL,)))
        for timer in kills:
            timer.start()
        code = self._server.ask({"wait": self.pid})["code"]
        for timer in kills:
            timer.cancel()
        counts = self._folder / "counts.json"
        return Ended(
            code,
            (self._folder / "stdout").read_text(errors="replace"),
            (self._folder / "stderr").read_text(errors="replace"),
            time.monotonic() - self._begun,
            json.loads(counts.read_text()) if counts.exists() else {},
        )


class Server:
    """Starts processes: see server.py."""

    def __init__(self, cache: Path) -> None:
        """cache: where decoded images are kept, unless a call names another place."""
        self.cache = cache
        self._folder = tempfile.TemporaryDirectory(prefix="vaezoo-faults-")
        self._number = 0
        root = HERE.parents[1]
        paths = [str(root), str(root / "plugins"), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)},
        )
        self._lock = threading.Lock()
        self._read()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._folder.cleanup()

    def start(
        self,
        args: list[str],
        *,
        faults: list[tuple[str, dict[str, Any]]] | None = None,
        cache: Path | None = None,
        counts: bool = False,
        environment: dict[str, str] | None = None,
    ) -> Process:
        """Begin `vaezoo ARGS`. faults: functions of faults.py with their arguments."""
        self._number += 1
        folder = Path(self._folder.name) / str(self._number)
        folder.mkdir()
        job = {
            "args": args,
            "folder": str(folder),
            "faults": faults or [],
            "counts": counts,
            "environment": {"VAEZOO_CACHE": str(cache or self.cache), **(environment or {})},
        }
        return Process(self, self.ask(job)["pid"], folder)

    def run(self, args: list[str], *, kill_after: float | None = None, **more: Any) -> Ended:
        """Begin it, and wait until it ends."""
        return self.start(args, **more).wait(kill_after)

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the server ended")
        answer: dict[str, Any] = json.loads(line)
        return answer
