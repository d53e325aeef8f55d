"""How threads wait for one another: images/s of CPU training with each setting of libgomp.

`threads.py [ROUNDS]`: one process for each setting. In each round they train in turn, for two
seconds each, first on the idle machine and then beside a process that keeps one core busy. Prints
the medians.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

SETTINGS: dict[str, dict[str, str]] = {
    "libgomp's own": {},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
}
OWN = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
SECONDS, BATCH = 2.0, 64


def train() -> None:
    """Train for two seconds, and print the images per second, for each line of stdin."""
    import torch

    import vaezoo
    from vaezoo.data.base import Batch
    from vaezoo.losses.base import StepContext, loss_of
    from vaezoo.runtime.device import Runtime, precision_context, tune_malloc
    from vaezoo.training.options import TrainOptions
    from vaezoo.training.train_step import TrainStep

    tune_malloc()
    model = vaezoo.create_model("vanilla", (1, 32, 32), hidden=(16, 32)).train()
    runtime = Runtime(torch.device("cpu"), "fp32")
    step = TrainStep(model, loss_of(model), TrainOptions(), runtime, 1000, print)
    batch = Batch(torch.rand(BATCH, 1, 32, 32), None)
    context = StepContext(torch.zeros((), dtype=torch.int64), 1000, 500)
    with precision_context("fp32", True):
        for _ in sys.stdin:
            start, steps = time.perf_counter(), 0
            while time.perf_counter() - start < SECONDS:
                step(batch, context, 0)
                steps += 1
            print(steps * BATCH / (time.perf_counter() - start), flush=True)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    clean = {name: value for name, value in os.environ.items() if name not in OWN}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, __file__, "train"]
    children = {n: subprocess.Popen(command, env=clean | s, **pipes) for n, s in SETTINGS.items()}
    found: dict[tuple[str, bool], list[float]] = {}
    for number in range(rounds + 1):
        for busy in (False, True):
            for name, child in children.items():
                load = subprocess.Popen([sys.executable, "-c", "while 1: 0"]) if busy else None
                child.stdin.write("go\n")
                child.stdin.flush()
                rate = float(child.stdout.readline())
                if load is not None:
                    load.kill()
                    load.wait()
                if number:  # the first round warms up
                    found.setdefault((name, busy), []).append(rate)
    for child in children.values():
        child.stdin.close()
    print("| setting | idle, images/s | beside one busy process |\n| --- | --- | --- |")
    for name in SETTINGS:
        idle, busy = (statistics.median(found[name, busy]) for busy in (False, True))
        print(f"| {name} | {idle:,.0f} | {busy:,.0f} |")


if __name__ == "__main__":
    train() if sys.argv[1:] == ["train"] else main()
