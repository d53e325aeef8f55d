"""Contestants in turn, A B A B, each in a process of its own; a result file and a line in a table.

A contestant is a command that prints a JSON object of numbers as its last line. Medians are quoted,
and ratios to the baseline, because timings of one machine drift while contestants run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = Path(os.environ.get("VAEZOO_BENCHMARK_RESULTS", HERE / "results"))
_START, _END = "<!-- results -->", "<!-- end of results -->"


def contest(
    contestants: Mapping[str, Sequence[str]], *, rounds: int, seeded: bool = False
) -> dict[str, list[dict[str, Any]]]:
    """Run every contestant `rounds` times, in turn. A contestant that fails ends the contest.

    seeded: each round has its own --seed, so that what they come to has a spread.
    """
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name, command in contestants.items():
            command = [*command, "--seed", str(number)] if seeded else command
            begun = time.perf_counter()
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                sys.exit(f"{name} failed with exit code {done.returncode}: {' '.join(command)}")
            numbers = json.loads(done.stdout.strip().splitlines()[-1])
            numbers["process_seconds"] = time.perf_counter() - begun
            results[name].append(numbers)
            rate = numbers.get("images_per_second")
            shown = f"{rate:,.0f} images/s" if rate else f"{numbers['process_seconds']:.1f} s"
            print(f"round {number + 1}: {name}: {shown}", flush=True)
    return results


def median(runs: Sequence[Mapping[str, Any]], name: str) -> float:
    return statistics.median(run[name] for run in runs)


def spread(runs: Sequence[Mapping[str, Any]], name: str) -> str:
    """The median, and between what the runs lie."""
    values = [run[name] for run in runs]
    return f"{median(runs, name):.1f} ({min(values):.1f} to {max(values):.1f})"


def publish(name: str, device: str, lines: Sequence[str], record: Mapping[str, Any]) -> None:
    """Write results/<name>-<device>.json, and put its lines into the table of the README."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{short_name(device)}.json"
    full = {
        "benchmark": name,
        "date": date.today().isoformat(),
        "device": device,
        "platform": platform.platform(),
        "python": platform.python_version(),
        **record,
    }
    path.write_text(json.dumps(full, indent=2) + "\n", encoding="utf-8")
    link = f"[{path.stem}](results/{path.name})"
    rows = [f"| {name} | {device} | {line} | {link} |" for line in lines]
    if RESULTS == HERE / "results":  # else it is a trial
        _replace_rows(name, device, rows)
    print("\n".join(rows))


def file_name(text: str) -> str:
    """A text as the name of a file or folder: what is no letter and no digit becomes a hyphen."""
    return "".join(c if c.isalnum() else "-" for c in text)


def short_name(device: str) -> str:
    """The name of a device in names of files."""
    return file_name(device.lower()).strip("-")[:40]


def peak_bytes() -> int:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def _replace_rows(name: str, device: str, rows: Sequence[str]) -> None:
    readme = HERE / "README.md"
    head, rest = readme.read_text(encoding="utf-8").split(_START)
    table, tail = rest.split(_END)
    kept = [
        line for line in table.strip().splitlines() if not line.startswith(f"| {name} | {device} |")
    ]
    body = "\n".join([*kept, *rows])
    readme.write_text(f"{head}{_START}\n{body}\n{_END}{tail}", encoding="utf-8")


def script(name: str, *args: str) -> list[str]:
    """The command of a contestant that is a script beside this one."""
    return [sys.executable, str(HERE / name), *args]


def tutorial_parser(description: str | None) -> argparse.ArgumentParser:
    """The arguments that both contestants of the tutorial's job take."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--mode", choices=("step", "epochs"), required=True)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def device_of_this_machine() -> str:
    from vaezoo.runtime.device import device_name, resolve_device

    return device_name(resolve_device("auto"))
