"""The subprocess that measures one model: reads a job on stdin, prints one row for each case.

A process of its own, so that a plugin that crashes, hangs or uses up the memory costs its own rows
only, and no model is measured beside what another one left behind.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from dataclasses import replace
from typing import Any

import torch

from vaezoo.bench.counts import Counts, count
from vaezoo.bench.job import Case, Job, bound_by, empty_row, sanity_check
from vaezoo.bench.machine import specified_peak
from vaezoo.bench.timing import time_step
from vaezoo.bench.workload import Workload
from vaezoo.errors import BrokenPluginError, VaezooError
from vaezoo.runtime.device import precision_context, resolve_device, tune_malloc

_LARGEST_TRIED = 1 << 16


def main() -> None:
    # Rows have a file descriptor of their own, since plugins may print to stdout.
    rows = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    job = Job.from_dict(json.load(sys.stdin))
    tune_malloc()
    for case in job.cases:
        print(json.dumps(measure(job, case), allow_nan=False), file=rows, flush=True)


def measure(job: Job, case: Case) -> dict[str, Any]:
    """One row; an error of the model becomes the row's status and reason."""
    try:
        device = resolve_device(job.device)
        if job.largest:
            case = _find_largest_batch(job, case, device)
        return _measure(job, case, device)
    except BrokenPluginError as error:
        status, reason = "failed", str(error)
    except VaezooError as error:
        status, reason = "refused", str(error)
    except (MemoryError, torch.OutOfMemoryError):
        status, reason = "out of memory", "a smaller batch may fit"
    except Exception as error:  # a plugin may raise anything, and the other cases must run
        first = (str(error).strip().splitlines() or [""])[0]
        status, reason = "failed", f"{type(error).__name__}: {first[:200]}"
    return empty_row(job.model, case, status, reason)


def _measure(job: Job, case: Case, device: torch.device) -> dict[str, Any]:
    with precision_context(case.precision, deterministic=False):
        workload = Workload(job, case, device)
        counts = _count(job, case)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        timing = time_step(workload.step, device, windows=job.windows, seconds=job.seconds)
    rate, gemm = counts.flops / timing.step, job.gemm.get(case.precision)
    peak = specified_peak(device, case.precision)
    gemm_share = rate / gemm if gemm and counts.flops else None
    copy_share = counts.bytes / timing.step / job.copy
    enqueue_share = None if device.type == "cpu" else timing.enqueue / timing.step
    # Of the device for a GPU, of the whole process for a CPU.
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated(device)
    row = {
        **empty_row(job.model, case, "ok", "; ".join(workload.notes)),
        "images_per_second": case.batch_size / timing.step,
        "images_per_second_windows": [case.batch_size / window for window in timing.windows],
        "latency_ms": {f"p{percent}": 1e3 * timing.percentile(percent) for percent in (50, 90, 99)},
        "first_step_seconds": timing.first,
        "warm_up_seconds": timing.warm_up,
        "flops_per_image": counts.flops / case.batch_size,
        "flops_missed": counts.missed,
        "bytes_per_image": counts.bytes / case.batch_size,
        "gemm_share": gemm_share,
        "copy_share": copy_share,
        "peak_share": rate / peak[0] if peak else None,
        "peak_source": peak[1] if peak else None,
        "bound_by": bound_by(gemm_share, copy_share, enqueue_share),
        "graph": workload.uses_cuda_graph,
        "shape": list(job.shape),
        "end_to_end": job.end_to_end and case.mode == "train",
        "parameters": sum(p.numel() for p in workload.model.parameters() if p.requires_grad),
        "peak_memory_bytes": memory,
    }
    problem = sanity_check(row)
    return row if problem is None else {**row, "status": "error", "reason": problem}


def _count(job: Job, case: Case) -> Counts:
    """Counted on meta tensors if the model runs there, else on the CPU."""
    eager = replace(case, compile="off")
    try:
        return count(Workload(job, eager, torch.device("meta")).countable_step)
    except VaezooError:
        raise
    except Exception:  # a model that reads a value back cannot run on meta tensors
        return count(Workload(job, eager, torch.device("cpu")).countable_step)


def _find_largest_batch(job: Job, case: Case, device: torch.device) -> Case:
    """The case with the largest batch that fits: its own size, doubled as often as possible."""
    fits: Case | None = None
    while case.batch_size <= _LARGEST_TRIED:
        try:
            workload = Workload(job, case, device)
            workload.step()
            workload.step()
        except (MemoryError, torch.OutOfMemoryError):
            break
        except RuntimeError as error:
            if "allocate" not in str(error):
                raise
            break
        fits = case
        case = replace(case, batch_size=2 * case.batch_size)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    if fits is None:
        raise torch.OutOfMemoryError("not even the smallest batch fits")
    return fits


if __name__ == "__main__":
    main()
