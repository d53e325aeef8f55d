"""Where a CPU training step goes: its time by kind of operation, beside what its products need.

python benchmarks/operations.py [--model vanilla] [--precision fp32] [--batch-size 64]

Each operation is timed as the step runs it, by the host's clock; steps without the timing stand
beside. What the products need is their FLOPs at the rate of the machine's best matrix product: no
step is faster than that, and one whose other operations cost nothing is as slow as its products.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from typing import Any

import torch
from harness import publish
from torch.utils._python_dispatch import TorchDispatchMode
from workload import training_workload

from vaezoo.bench.counts import count
from vaezoo.bench.machine import gemm_rate
from vaezoo.bench.worker import Workload
from vaezoo.runtime.device import device_name, precision_context, tune_malloc

_STEPS = 12
_KINDS = {
    "products": ("conv", "mm"),
    "batch norm": ("batch_norm",),
    "activations": ("relu", "tanh"),
    "optimizer": ("adam",),
}


class Clock(TorchDispatchMode):
    """Adds up the seconds of each kind of operation."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        begun = time.perf_counter()
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        kind = next((k for k, parts in _KINDS.items() if any(p in name for p in parts)), "others")
        self.seconds[kind] += time.perf_counter() - begun
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="vanilla")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--batch-size", type=int, default=64)
    args = parser.parse_args()
    device = torch.device("cpu")
    tune_malloc()
    with precision_context(args.precision, deterministic=False):
        workload = training_workload(
            device, batch_size=args.batch_size, precision=args.precision, model=args.model
        )
        flops = count(workload.countable_step).flops
        gemm = gemm_rate(device, args.precision)
        steps = timed(workload)
        with Clock() as clock:
            timed(workload)
        step = statistics.median(steps + timed(workload))
    shares = {kind: seconds / _STEPS for kind, seconds in clock.seconds.most_common()}
    needed = flops / gemm
    for kind, seconds in shares.items():
        print(f"{1e3 * seconds:7.1f} ms  {kind}")
    print(f"{1e3 * step:7.1f} ms  the step; its products need {1e3 * needed:.1f} ms")
    what = f"{args.model} in {args.precision}, batch {args.batch_size}: step against its products, "
    line = f"{what}ms | {1e3 * step:.0f} | {1e3 * needed:.0f} | {needed / step:.0%} of GEMM"
    record = {
        "arguments": vars(args),
        "step_seconds": step,
        "step_seconds_each": steps,
        "seconds_by_kind": shares,
        "flops": flops,
        "gemm_flops_per_second": gemm,
    }
    publish(f"operations-{args.precision}", device_name(device), [line], record)


def timed(workload: Workload) -> list[float]:
    """Seconds of each of a number of steps."""
    seconds = []
    for _ in range(_STEPS):
        begun = time.perf_counter()
        workload.step()
        seconds.append(time.perf_counter() - begun)
    return seconds


if __name__ == "__main__":
    main()
