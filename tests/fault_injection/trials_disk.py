"""A disk that is full: a small one of our own where that is allowed, else a limit on files."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from trial import Kind, Trial

_LARGE = 64 << 20


def full_disk(trial: Trial) -> str:
    """A run on a disk of some random size, then on the same disk made larger."""
    trial.pick_job()
    saving = ["--checkpoint-every", str(trial.random.randint(1, 4))]
    disk = trial.folder / "disk"
    disk.mkdir()
    trial.folder = disk
    size = trial.random.randint(16, 400) << 10
    trial.log.append(f"disk of {size} bytes")
    with _mounted(disk, size):
        ended = trial.server.run(trial.args(*saving))
        if ended.code == 0:
            trial.check(ended)
            return "the disk was large enough"
        trial.expect(ended.code == 2, f"ended with {ended.code}", ended)
        trial.one_line(ended, holds="disk is full")
        _mount(disk, _LARGE, "remount,")
        _sound(trial)
        trial.check(trial.server.run(trial.args()))
    return "full, then made larger"


def limited_files(trial: Trial) -> str:
    """No file may grow beyond a random size; then the limit is gone."""
    trial.pick_job()
    saving = ["--checkpoint-every", str(trial.random.randint(1, 4))]
    size = trial.random.randint(1, 150) << 10
    trial.log.append(f"files up to {size} bytes")
    ended = trial.server.run(trial.args(*saving), faults=[("limit_files", {"size": size})])
    if ended.code == 0:
        trial.check(ended)
        return "the files were small enough"
    trial.expect(ended.code == 2, f"ended with {ended.code}", ended)
    trial.one_line(ended, holds="File too large")
    _sound(trial)
    trial.check(trial.server.run(trial.args()))
    return "refused, then allowed"


def _sound(trial: Trial) -> None:
    """Whatever checkpoints there are can be read."""
    from vaezoo.checkpoint.format import verify
    from vaezoo.errors import RunError

    for path in (trial.out / "checkpoint").glob("step-*"):
        try:
            verify(path)
        except RunError as error:
            trial.expect(False, str(error))


@contextlib.contextmanager
def _mounted(folder: Path, size: int) -> Iterator[None]:
    _mount(folder, size)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _mount(folder: Path, size: int, more: str = "") -> None:
    options = f"{more}size={size}"
    command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    subprocess.run(command, check=True, capture_output=True)


def _may_mount() -> str:
    if not hasattr(os, "geteuid") or os.geteuid():
        return "only root may mount a small disk"
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        try:
            with _mounted(Path(name), 4096):
                return ""
        except (OSError, subprocess.CalledProcessError):
            return "no disk may be mounted here"


KINDS = [
    Kind("full disk", full_disk, weight=1.5, possible=_may_mount),
    Kind("files limited", limited_files, weight=0.75),
]
