"""Read damaged files by the thousand, guided by what they reach in our code.

    python tests/fuzz/fuzz.py                       # every target for a minute
    python tests/fuzz/fuzz.py --seconds 600 npz png # two of them for ten
    python tests/fuzz/fuzz.py --json figures.json

Each target has a process of its own, with a limit on memory and on the time of one file. With
atheris (pip install atheris) it is guided by coverage; without, changes are drawn at random. A file
that leads to anything but a value or one line of VaezooError is kept under --found, and the exit
code is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
SLOWEST = 20
"""Seconds that one file may take."""

MEMORY = 3 << 30
"""Bytes that reading may take beyond what was in use before."""


class HangError(BaseException):
    """A file that takes too long; no loader catches it."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all, unless some are named")
    parser.add_argument("--seconds", type=float, default=60, help="for each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--found", type=Path, default=Path("fuzz-found"), metavar="DIR")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--list", action="store_true", help="name the targets")
    parser.add_argument("--worker", metavar="FILE", help=argparse.SUPPRESS)
    args = parser.parse_args()
    found = args.found.absolute()
    if args.worker:
        return work(args.targets[0], args.seconds, args.seed, found, Path(args.worker))
    known = list(load("targets").TARGETS)
    if args.list:
        print("\n".join(known))
        return 0
    unknown = [name for name in args.targets if name not in known]
    if unknown:
        parser.error(f"no target {unknown[0]!r}: --list names them")
    rows = []
    for name in args.targets or known:
        row = fuzz(name, args.seconds, args.seed, found)
        print(
            f"{name:15}{row['files']:9,} files{row['refused']:9,} refused{row['faults']:4} faults"
            f"{row['slowest_seconds']:8.2f} s slowest{row['covered']:7,} edges  {row['ended']}",
            flush=True,
        )
        rows.append(row)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    files, faults = (sum(row[name] for row in rows) for name in ("files", "faults"))
    print(f"{files:,} files, {faults} faults, {'atheris' if find_spec('atheris') else 'at random'}")
    return 1 if faults else 0


def fuzz(name: str, seconds: float, seed: int, found: Path) -> dict[str, Any]:
    """One target in a process of its own; the figures of it."""
    with tempfile.TemporaryDirectory(prefix="vaezoo-fuzz-") as folder:
        figures = Path(folder) / "figures.json"
        command = [
            *(sys.executable, __file__, name, "--worker", str(figures)),
            *("--seconds", str(seconds), "--seed", str(seed), "--found", str(found)),
        ]
        environment = {**os.environ, "TMPDIR": folder, "VAEZOO_CACHE": f"{folder}/cache"}
        done = subprocess.run(command, capture_output=True, cwd=folder, env=environment)
        row: dict[str, Any] = {"target": name, "files": 0, "refused": 0, "faults": 0}
        row |= {"slowest_seconds": 0.0, "covered": 0, "ended": "well"}
        if figures.exists():
            row |= json.loads(figures.read_text(encoding="utf-8"))
        said = done.stderr.decode("utf-8", "replace")
        edges = re.findall(r"cov: (\d+)", said)
        row["covered"] = int(edges[-1]) if edges else 0
        if done.returncode:
            row["faults"] += 1
            row["ended"] = f"exit code {done.returncode}: {said.strip()[-2000:]}"
            for crash in Path(folder).glob("crash-*"):
                keep(found, name, crash.read_bytes(), "the process died")
    return row


def work(name: str, seconds: float, seed: int, found: Path, figures: Path) -> int:
    """In the process of a target. Faults are kept and counted, and it goes on."""
    guided = find_spec("atheris") is not None
    with instrumented() if guided else contextlib.nullcontext():
        targets = load("targets")
    mutate = load("mutate")
    target = targets.TARGETS[name]
    folder = Path(tempfile.mkdtemp())
    seeds = target.seeds()
    for content in seeds:
        refused = targets.read(target, folder, content)
        if refused:
            raise SystemExit(f"a sound file was refused: {refused}")
    row = {"files": 0, "refused": 0, "faults": 0, "slowest_seconds": 0.0}
    known: set[str] = set()
    written = time.monotonic()

    def read(content: bytes) -> None:
        nonlocal written
        begun = time.monotonic()
        row["files"] += 1
        try:
            with limited(SLOWEST):
                row["refused"] += bool(targets.read(target, folder, content))
        except (Exception, HangError) as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            fault = f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}"
            if fault not in known:
                known.add(fault)
                row["faults"] += 1
                keep(found, name, content, traceback.format_exc())
        now = time.monotonic()
        row["slowest_seconds"] = max(row["slowest_seconds"], now - begun)
        if now - written > 1:
            written = now
            figures.write_text(json.dumps(row), encoding="utf-8")

    chance = random.Random(seed)

    def changed(content: bytes) -> bytes:
        """Changed in one of the ways of a target: as it is, or inside its packing."""
        if target.packing and chance.random() < 0.5:
            with contextlib.suppress(Exception):
                inside = target.packing.unpack(content)
                return target.packing.pack(mutate.mutated(inside, chance))
        return mutate.mutated(content, chance)

    with targets.limited_memory(MEMORY):
        if guided:
            return guide(read, changed, seeds, seconds, seed)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            read(changed(chance.choice(seeds)))
    figures.write_text(json.dumps(row), encoding="utf-8")
    return 0


def guide(read: Any, changed: Any, seeds: list[bytes], seconds: float, seed: int) -> int:
    """atheris, with changes of its own and of ours. It ends the process when the time is up."""
    import atheris

    corpus = Path(tempfile.mkdtemp())
    for number, content in enumerate(seeds):
        (corpus / str(number)).write_bytes(content)
    chance = random.Random(seed + 1)

    def mutate(content: bytes, limit: int, number: int) -> bytes:
        if chance.random() < 0.5:
            return changed(content)[:limit]
        return bytes(atheris.Mutate(content, limit))

    longest = max(8192, *(2 * len(content) for content in seeds))
    options = [
        *(f"-max_total_time={int(seconds)}", f"-max_len={longest}", f"-seed={seed + 1}"),
        *("-timeout=60", "-rss_limit_mb=8192", str(corpus)),
    ]
    atheris.Setup([sys.argv[0], *options], read, custom_mutator=mutate)
    atheris.Fuzz()
    return 0


@contextlib.contextmanager
def instrumented() -> Iterator[None]:
    import atheris

    with atheris.instrument_imports(include=["vaezoo", "yaml", "PIL"]):
        yield


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise HangError(f"it took more than {seconds} s")

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def keep(found: Path, name: str, content: bytes, why: str) -> None:
    found.mkdir(parents=True, exist_ok=True)
    path = found / f"{name.replace(' ', '-')}-{time.time_ns()}"
    path.write_bytes(content)
    path.with_name(path.name + ".txt").write_text(why, encoding="utf-8")


def load(stem: str) -> ModuleType:
    spec = spec_from_file_location(f"fuzz_{stem}", HERE / f"{stem}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.exit(main())
