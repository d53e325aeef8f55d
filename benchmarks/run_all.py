"""All parts of `run_all.sh`, one after another, each within its seconds.

A part is a command. It is stopped when its time is over, and what it had written by then is kept.
run_all-DEVICE.json and .md in the results say which parts passed, and how long each took; the
output of each part lies in run_all-DEVICE/. Exit code 1 if a part failed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from harness import HERE, RESULTS, short_name

ROOT = HERE.parent
COUNT, TINY_COUNT = 4000, 128
"""Photographs."""
_GRACE = 15
"""Seconds after an interrupt in which a part may write what it has."""


@dataclass(frozen=True)
class Part:
    """A command, and the seconds that it may take."""

    name: str
    command: list[str]
    seconds: float


@dataclass(frozen=True)
class Outcome:
    name: str
    status: str
    seconds: float
    last_line: str


def parts(images: Path, device: str, tiny: bool, results: Path, short: str) -> Iterator[Part]:
    """What is run, the most important first.

    results: where `vaezoo bench` writes. short: of the device, in the names of files.
    """

    def script(name: str, *args: str) -> list[str]:
        return [sys.executable, str(HERE / name), *args]

    bench = [sys.executable, "-m", "vaezoo", "bench", "--device", device]
    timed = ["--seconds", "0.05", "--image-size", "16"] if tiny else ["--seconds", "0.2"]
    some = ["vanilla", "vq_vae"] if tiny else []
    tests = ["-m", "cuda"] if device != "cpu" else ["-k", "cuda or device", "tests/runtime"]
    given = ["--images", str(images)]
    rounds = ["--rounds", "1" if tiny else "3"]
    yield Part(
        "tests", [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests], 150
    )
    total = "640" if tiny else "1500000"
    yield Part("speedrun", script("speedrun.py", *given, "--total", total), 120)
    for modes in ("train", "encode,decode,sample"):
        name = f"bench-{modes.replace(',', '-')}"
        stem = f"{results / name}-{short}"
        files = [f"--json={stem}.json", f"--markdown={stem}.md", f"--plot={stem}.png"]
        yield Part(name, [*bench, *some, "--mode", modes, *timed, *files], 100)
    batch = ["--batch-size", "4" if tiny else "64", "--workers", "4"]
    yield Part("tutorial", script("tutorial.py", *given, *rounds, *batch), 90)
    yield Part("first_step", script("first_step.py", *given, "--rounds", "2" if tiny else "3"), 60)
    tasks = ["--scale", "0.01", "--only", "likelihood,encode,sample,folder,prior"] if tiny else []
    after = script("after_training.py", *given, "--rounds", "1", *tasks)
    yield Part("after_training", after, 120)
    largest = ["64", "32", "1000"] if tiny else ["4096", "256", "100000"]
    flags = ("--largest-batch", "--largest-image", "--most-images")
    scale = [text for pair in zip(flags, largest, strict=True) for text in pair]
    few = ["--processes", "--seconds", "0.05"]  # no jobs of several processes
    yield Part("scaling", script("scaling.py", *scale, *few), 90)
    brief = ["--seconds", "0.2", "--only", "simvq,fsq"] if tiny else ["--seconds", "4"]
    yield Part("quantizers", script("quantizers.py", *brief), 90)
    epochs = ["--images", "128", "--epochs", "1"] if tiny else []
    yield Part("pythae", script("pythae_trainer.py", *epochs, *rounds), 60)


NEEDS = {"quantizers": "vector_quantize_pytorch", "pythae": "pythae"}
"""The packages of the parts that are left out where these are missing."""


def run(part: Part, log: Path, seconds: float) -> Outcome:
    """Run a part for so many seconds at most, with its output in a file."""
    begun = time.monotonic()
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            part.command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that an interrupt reaches all of its processes
        )
        try:
            code = process.wait(seconds)
            status = "passed" if code == 0 else f"failed with exit code {code}"
        except subprocess.TimeoutExpired:
            status = f"stopped after {seconds:.0f} s"
            for sent in (signal.SIGINT, signal.SIGKILL):
                os.killpg(process.pid, sent)
                try:
                    process.wait(_GRACE)
                    break
                except subprocess.TimeoutExpired:
                    continue  # it did not stop by itself: it is killed
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return Outcome(
        part.name, status, round(time.monotonic() - begun, 1), lines[-1][:200] if lines else ""
    )


def write(outcomes: list[Outcome], device: str, stem: Path) -> None:
    record = {"device": device, "parts": [asdict(outcome) for outcome in outcomes]}
    stem.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    lines = [f"On {device}:", "", "| part | | seconds | last line |", "| --- | --- | --- | --- |"]
    for outcome in outcomes:
        last = outcome.last_line.replace("|", "/")
        lines.append(f"| {outcome.name} | {outcome.status} | {outcome.seconds} | {last} |")
    stem.with_suffix(".md").write_text("\n".join(lines) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, help="a folder of JPEGs; without it, drawn ones")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tiny", action="store_true", help="all parts, as short as they can be")
    parser.add_argument("--minutes", type=float, default=9.5, help="of all parts together")
    parser.add_argument(
        "--results", type=Path, help="folder; without it benchmarks/results, or of --tiny a new one"
    )
    args = parser.parse_args()
    from vaezoo.runtime.device import device_name, resolve_device

    device = resolve_device(args.device)
    if device.type == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the scripts take the device that there is
    with tempfile.TemporaryDirectory() as temporary:
        results = args.results or (Path(tempfile.mkdtemp()) if args.tiny else RESULTS)
        results = results.absolute()
        os.environ["VAEZOO_BENCHMARK_RESULTS"] = str(results)
        name = device_name(device)
        stem = results / f"run_all-{short_name(name)}"
        stem.mkdir(parents=True, exist_ok=True)
        photographs = Path(temporary) / "photographs"
        source = [str(args.images)] if args.images else []
        count = str(TINY_COUNT if args.tiny else COUNT)
        made = ["photographs.py", *source, "-o", str(photographs), "--count", count]
        subprocess.run([sys.executable, str(HERE / made[0]), *made[1:]], check=True)
        outcomes: list[Outcome] = []
        end = time.monotonic() + 60 * args.minutes
        for part in parts(photographs, device.type, args.tiny, results, short_name(name)):
            package = NEEDS.get(part.name)
            left = end - time.monotonic() - _GRACE
            if package and find_spec(package) is None:
                outcomes.append(Outcome(part.name, f"left out: no {package} here", 0, ""))
            elif left < 5:
                outcomes.append(Outcome(part.name, "left out: no time", 0, ""))
            else:
                outcomes.append(run(part, stem / f"{part.name}.log", min(part.seconds, left)))
            print(f"{part.name}: {outcomes[-1].status}, {outcomes[-1].seconds} s", flush=True)
            write(outcomes, name, stem)  # after each part: the next one may end the machine
        print(f"\n{stem.with_suffix('.md').read_text()}\nresults: {results}")
    return int(any(outcome.status.startswith("failed") for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
