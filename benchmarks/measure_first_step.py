"""Seconds from starting a command to the end of its first training step. Prints one JSON object.

A loss that can be read ends a step: the tutorial's script prints it, vaezoo writes it as the first
line of `metrics.jsonl`. The command is then ended.
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
from pathlib import Path

HERE = Path(__file__).parent


def tutorial(images: str) -> float:
    command = [sys.executable, str(HERE / "baseline_tutorial.py"), "--mode", "epochs"]
    begun = time.perf_counter()
    with subprocess.Popen(
        [*command, "--images", images, "--print-steps"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # its loader's workers end with it
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - begun
        os.killpg(process.pid, signal.SIGKILL)
    if not line:
        sys.exit("the tutorial's script ended before its first step")
    return seconds


def vaezoo(images: str, cold: bool) -> float:
    """cold: with an empty cache, so that all images are decoded before the first step."""
    config_file = HERE.parent / "configs" / "simpsons.yaml"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        environment = dict(os.environ)
        if cold:
            environment["VAEZOO_CACHE"] = str(Path(folder) / "cache")
        command = [sys.executable, "-m", "vaezoo", "train", "--config", str(config_file)]
        begun = time.perf_counter()
        with subprocess.Popen(
            [*command, "--root", images, "--log-every", "1", "--out", str(out)],
            stdout=subprocess.DEVNULL,
            env=environment,
        ) as process:
            lines = out / "metrics.jsonl"
            while not (lines.exists() and lines.stat().st_size):
                if process.poll() is not None:
                    sys.exit("vaezoo ended before its first step")
                time.sleep(0.01)
            seconds = time.perf_counter() - begun
            process.kill()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("who", choices=("tutorial", "vaezoo"))
    parser.add_argument("--images", required=True)
    parser.add_argument("--cold", action="store_true", help="vaezoo with an empty cache")
    args = parser.parse_args()
    seconds = tutorial(args.images) if args.who == "tutorial" else vaezoo(args.images, args.cold)
    print(json.dumps({"first_step_seconds": seconds}))


if __name__ == "__main__":
    main()
