"""Python processes that start quickly: one process imports torch once, and is forked for each.

A process takes what `subprocess.run([sys.executable, ...])` takes: `-m MODULE`, `-c CODE` or a
script, then arguments. It has an environment, a folder, `sys.argv` and `sys.path` of its own. What
only a new interpreter shows (how long imports take, encodings) needs `subprocess`.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import site
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

STREAMS = ("stdin", "stdout", "stderr")


class ForkServer:
    """Forks processes that have some modules imported. Nothing is computed before a fork."""

    def __init__(self, *modules: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fork-server-")
        self._started = 0
        self._server = subprocess.Popen(
            [sys.executable, __file__, *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    @property
    def pid(self) -> int:
        return self._server.pid

    def close(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()
        self._folder.cleanup()

    def start(
        self,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        packages: Path | None = None,
        stdin: int | None = None,
        **_: object,
    ) -> Process:
        """Start `command`, whose first word is Python's path. packages: one more site-packages.

        stdin: if PIPE, the process has `stdin`, `stdout` and `stderr` to write to and read from.
        """
        self._started += 1
        folder = Path(self._folder.name, str(self._started))
        folder.mkdir()
        for name in STREAMS if stdin else ():
            os.mkfifo(folder / name)
        job = {
            "command": [str(word) for word in command],
            "output": str(folder),
            "cwd": os.getcwd(),
            "env": dict(os.environ if env is None else env),
            "packages": packages and str(packages),
        }
        process = Process(self, [*job["command"]], self.ask(job), folder)
        if stdin:  # in the order of the other side, which waits for this one
            process.stdin, process.stdout, process.stderr = (
                (folder / name).open("r" if number else "w") for number, name in enumerate(STREAMS)
            )
        return process

    def run(self, command: Sequence[str | Path], **more: Any) -> subprocess.CompletedProcess[str]:
        """Start it, and wait until it ends."""
        process = self.start(command, **more)
        out, err = process.communicate(timeout=600)
        assert process.returncode is not None
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def ask(self, question: dict[str, Any]) -> Any:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(question) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())


class Process:
    """A process that was started, with the part of `subprocess.Popen` that tests use."""

    def __init__(self, server: ForkServer, args: list[str], pid: int, folder: Path) -> None:
        self._server, self._folder = server, folder
        self.args, self.pid = args, pid
        self.returncode: int | None = None
        self.stdin: IO[str] | None = None
        self.stdout: IO[str] | None = None
        self.stderr: IO[str] | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._server.ask({"poll": self.pid})
        return self.returncode

    def communicate(self, timeout: float) -> tuple[str, str]:
        self.wait(timeout)
        out, err = ((self._folder / name).read_text() for name in ("stdout", "stderr"))
        return out, err

    def wait(self, timeout: float = 600.0) -> int:
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(0.01)
        return code

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def serve(modules: Sequence[str]) -> None:
    for name in modules:
        importlib.import_module(name)
    gc.freeze()
    for line in sys.stdin:
        job = json.loads(line)
        if "poll" in job:
            pid, status = os.waitpid(job["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if answer == 0:
                run_job(job)
        print(json.dumps(answer), flush=True)


def run_job(job: dict[str, Any]) -> None:
    """Become the process that was asked for, and end."""
    code: object = 1
    try:
        for number, name in enumerate(STREAMS):
            path = os.path.join(job["output"], name)
            if number:
                file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            else:
                file = os.open(path if os.path.exists(path) else os.devnull, os.O_RDONLY)
            os.dup2(file, number)
            os.close(file)
        os.chdir(job["cwd"])
        before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        os.environ.clear()
        os.environ.update(job["env"])
        added = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p not in before]
        sys.executable, first, *rest = job["command"]
        if job["packages"]:
            site.addsitedir(job["packages"])
        folder = os.getcwd() if first == "-m" else "" if first == "-c" else os.path.dirname(first)
        sys.path[:1] = [folder, *added]
        run(first, rest)
        code = 0
    except SystemExit as error:
        code = 0 if error.code is None else error.code
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
            sys.stdout.flush()
        finally:
            os._exit(code if isinstance(code, int) else 1)


def run(first: str, rest: list[str]) -> None:
    if first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *rest[1:]]
        main = type(sys)("__main__")
        sys.modules["__main__"] = main
        exec(rest[0], vars(main))
    else:
        sys.argv = [first, *rest]
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    serve(sys.argv[1:])
