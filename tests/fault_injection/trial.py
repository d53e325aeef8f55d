"""What a kind of trial is, and what each has at hand."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from jobs import MODELS, Result, draw_images, remains, result, resume, start
from processes import Ended, Server


class Lost(Exception):
    """Something was lost, or said wrongly: what must never happen."""


@dataclass(frozen=True)
class Kind:
    """A kind of trial. run: does one and says in a few words how it went; Lost if it went wrong.

    weight: how often it comes, against the others. possible: "" or why it cannot be tried here.
    """

    name: str
    run: Callable[[Trial], str]
    weight: float = 1.0
    possible: Callable[[], str] = lambda: ""


@dataclass
class Trial:
    """One trial: its own random numbers and its own empty folder."""

    server: Server
    random: Random
    folder: Path
    references: References
    job: str = ""
    log: list[str] = field(default_factory=list)
    """What was done, so that a failure can be understood."""

    def pick_job(self) -> str:
        self.job = self.random.choice(list(self.references.jobs))
        self.log.append(self.job)
        return self.job

    @property
    def out(self) -> Path:
        return self.folder / "run"

    def args(self, *more: str) -> list[str]:
        """The command that a user, or a script, gives next: begin, or go on."""
        self.log.append(" ".join(more))
        if self.out.exists():
            return resume(self.job, self.out, *more)
        return start(self.job, self.out, self.references.images, *more)

    def checkpoints(self) -> list[str]:
        """How often to save, at random: by steps, by time, rarely."""
        return self.random.choice(
            [
                ["--checkpoint-every", str(self.random.randint(1, 9))],
                ["--checkpoint-every", str(self.random.randint(1, 4)), "--keep-checkpoints", "1"],
                ["--checkpoint-seconds", str(self.random.uniform(0.005, 0.1))],
                [],
            ]
        )

    def check(self, ended: Ended) -> None:
        """A run that came to its end is what it would have been: every bit of it."""
        self.expect(ended.code == 0, f"ended with {ended.code}", ended)
        difference = result(self.out).differs_from(self.references.get(self.job).result)
        self.expect(not difference, difference, ended)
        self.expect(not remains(self.out), f"left {remains(self.out)}", ended)

    def check_finished(self, ended: Ended) -> None:
        """As `check`; a run that was through before its process was killed says that it is."""
        through = "has finished its" in ended.stderr or "ran out of patience" in ended.stderr
        if ended.code == 2 and through:
            self.one_line(ended)
            ended = replace(ended, code=0)
        self.check(ended)

    def expect(self, true: bool, otherwise: str, ended: Ended | None = None) -> None:
        if true:
            return
        said = "" if ended is None else f"\n{ended.stdout[-2000:]}\n{ended.stderr[-4000:]}"
        raise Lost(f"{otherwise}\n{self.log}{said}")

    def one_line(self, ended: Ended, *, holds: str = "") -> str:
        """The one line on stderr with which a user's error ends."""
        lines = [line for line in ended.stderr.splitlines() if line]
        self.expect(not ended.has_traceback, "a traceback", ended)
        self.expect(len(lines) == 1 and holds in lines[0], f"not one line with {holds!r}", ended)
        return lines[0]


@dataclass(frozen=True)
class Reference:
    """A job that nothing disturbed. counts: how often it came to each place of faults.py."""

    result: Result
    seconds: float
    counts: dict[str, int]


class References:
    """The jobs and what they come to, each run once, when first asked for."""

    def __init__(self, server: Server, folder: Path, jobs: list[str] | None = None) -> None:
        self.jobs = jobs or list(MODELS)
        self._server, self._folder = server, folder
        self._known: dict[str, Reference] = {}
        self.images = folder / "images"
        draw_images(self.images)

    def get(self, job: str) -> Reference:
        if job not in self._known:
            out = self._folder / job
            shutil.rmtree(out, ignore_errors=True)
            ended = self._server.run(
                start(job, out, self.images, "--checkpoint-every", "5"),
                faults=[("count_places", {})],
                cache=self._folder / f"cache-{job}",
                counts=True,
            )
            if ended.code:
                raise RuntimeError(f"{job} fails by itself: {ended.stdout}{ended.stderr}")
            self._known[job] = Reference(result(out), ended.seconds, ended.counts)
        return self._known[job]
