"""A job of two processes that loses one of them at some moment, and is started again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from jobs import start
from trial import Kind, Lost, Trial

_PATIENCE = 60.0
"""Seconds within which a job must have ended when a process of it is gone."""
_LONGEST = 600.0


def lost_process(trial: Trial) -> str:
    """torchrun begins again by itself: the run comes to its end, with no line lost or doubled."""
    trial.job = "vanilla"
    job = _Job(trial, "--max-restarts", "3")
    rank = trial.random.randrange(2)
    trial.log.append(f"process {rank} is killed")
    killed = job.kill(rank, after=trial.random.uniform(0.0, 10.0))
    if job.wait(_LONGEST) != 0:
        raise Lost(f"the job did not come to its end: {job.said()}")
    job.check()
    return f"process {rank} lost, started again" if killed else "ended before the kill"


def lost_for_good(trial: Trial) -> str:
    """The others end within a minute and say how to go on; one process then does."""
    trial.job = "vanilla"
    job = _Job(trial)
    rank = trial.random.randrange(2)
    killed = job.kill(rank, after=trial.random.uniform(3.0, 9.0))
    begun = time.monotonic()
    code = job.wait(_LONGEST)
    if not killed:
        return "ended before the kill"
    trial.expect(code != 0, "a job that lost a process ended well")
    took = time.monotonic() - begun
    trial.expect(took < _PATIENCE, f"it took {took:.0f} s to end")
    if not (trial.out / "config.yaml").exists():
        return "lost before there was a run"
    done = subprocess.run(
        [sys.executable, "-m", "vaezoo", "train", "--resume", str(trial.out)],
        env=job.environment,
        capture_output=True,
        text=True,
        timeout=_LONGEST,
    )
    if done.returncode != 0 and "has finished" not in done.stderr:
        raise Lost(f"one process did not go on: {done.stderr}")
    job.check()
    return f"process {rank} lost, one went on"


class _Job:
    """torchrun with two processes, in a process group of its own."""

    def __init__(self, trial: Trial, *options: str) -> None:
        self.trial = trial
        self.log = trial.folder / "torchrun.log"
        root = Path(__file__).parents[2]
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(root), str(root / "plugins")]),
            "OMP_NUM_THREADS": "1",
            "VAEZOO_CACHE": str(trial.folder / "cache"),
        }
        command = start(trial.job, trial.out, trial.references.images, "--checkpoint-every", "3")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "torch.distributed.run", "--standalone", *options),
                    *("--nproc-per-node", "2", "-m", "vaezoo", *command),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
            )

    def kill(self, rank: int, after: float) -> bool:
        """after: seconds since that process was started. Whether it was still there to kill."""
        pid = None
        while pid is None and self.process.poll() is None:
            pid = self._find(rank)
            time.sleep(0.01)
        time.sleep(after)
        if pid is None or pid not in _children(self.process.pid):
            return False
        os.kill(pid, signal.SIGKILL)
        return True

    def _find(self, rank: int) -> int | None:
        for pid in _children(self.process.pid):
            with contextlib.suppress(OSError):  # it may end meanwhile
                environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                if f"RANK={rank}".encode() in environment:
                    return pid
        return None

    def wait(self, seconds: float) -> int:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.terminate()
            raise Lost(f"the job hangs: {self.said()}") from None

    def said(self) -> str:
        lines = self.log.read_text().splitlines()
        return "\n".join([x for x in lines if x.startswith("vaezoo:")] + lines[-5:])

    def check(self) -> None:
        """The run is whole: every step once, in order, to the last."""
        text = (self.trial.out / "metrics.jsonl").read_text()
        steps = [x["step"] for x in map(json.loads, text.splitlines()) if x["kind"] == "train"]
        wanted = [4, 6, 10, 12, 16, 18, 22, 24]
        if steps != wanted or not (self.trial.out / "summary.json").exists():
            raise Lost(f"the run has lines for steps {steps}, not {wanted}")


def _children(pid: int) -> list[int]:
    """The processes that one started; none of one that has ended."""
    with contextlib.suppress(OSError):
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    return []


def _possible() -> str:
    return "" if Path("/proc/self/environ").exists() else "there is no /proc here"


KINDS = [
    Kind("lost process", lost_process, 0.3, _possible),
    Kind("process lost for good", lost_for_good, 0.3, _possible),
]
