"""The subprocess that measures one model: reads a job on stdin, prints a row a case on stdout.

A process of its own, so that a plugin that crashes, hangs or eats all memory costs its rows and
nothing else, and no model is measured in the leavings of another.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import Any

import torch

from vaezoo.bench.counts import Counts, count
from vaezoo.bench.job import Case, Job
from vaezoo.bench.peaks import specified
from vaezoo.bench.row import bound_by, empty_row, sanity_check
from vaezoo.bench.timing import Timing, time_step
from vaezoo.bench.workload import Workload
from vaezoo.errors import BrokenPluginError, VaezooError
from vaezoo.runtime.device import precision_context, resolve_device, tune_malloc

_LARGEST_TRIED = 1 << 16


def main() -> None:
    # Rows go out on a descriptor of their own: a plugin may print what it likes.
    rows = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    job = Job.from_dict(json.load(sys.stdin))
    tune_malloc()
    for case in job.cases:
        row = json.dumps(measure(job, case), allow_nan=False)
        print(row, file=rows, flush=True)


def measure(job: Job, case: Case) -> dict[str, Any]:
    """One row; whatever goes wrong with a model becomes the row's status."""
    try:
        if job.largest:
            case = _largest(job, case)
        return _measure(job, case)
    except BrokenPluginError as error:
        return empty_row(job.model, case, "failed", str(error))
    except VaezooError as error:
        return empty_row(job.model, case, "refused", str(error))
    except (MemoryError, torch.OutOfMemoryError):
        return empty_row(job.model, case, "out of memory", "a smaller batch may fit")
    except Exception as error:  # a plugin may raise anything: it is told, and the others go on
        first = (str(error).strip().splitlines() or [""])[0]
        return empty_row(job.model, case, "failed", f"{type(error).__name__}: {first[:200]}")


def _measure(job: Job, case: Case) -> dict[str, Any]:
    device = resolve_device(job.device)
    with precision_context(case.precision, deterministic=False):
        subject = Workload(job, case, device)
        counts = _count(job, case)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        timing = time_step(subject.step, device, windows=job.windows, seconds=job.seconds)
    row = empty_row(job.model, case, "ok", subject.notes)
    row.update(_speed(case, timing))
    row.update(_shares(job, case, counts, timing, device))
    row["graph"] = subject.graphed
    row["shape"] = list(job.shape)
    row["end_to_end"] = job.end_to_end and case.mode == "train"
    row["parameters"] = sum(p.numel() for p in subject.model.parameters() if p.requires_grad)
    row["peak_memory_bytes"] = _peak_memory(device)
    wrong = sanity_check(row)
    if wrong:
        row["status"], row["reason"] = "error", wrong
    return row


def _speed(case: Case, timing: Timing) -> dict[str, Any]:
    return {
        "images_per_second": case.batch_size / timing.step,
        "images_per_second_windows": [case.batch_size / window for window in timing.windows],
        "latency_ms": {f"p{percent}": 1e3 * timing.percentile(percent) for percent in (50, 90, 99)},
        "first_step_seconds": timing.first,
        "warm_up_seconds": timing.warm_up,
    }


def _shares(
    job: Job, case: Case, counts: Counts, timing: Timing, device: torch.device
) -> dict[str, Any]:
    rate = counts.flops / timing.step
    gemm = job.gemm.get(case.precision)
    peak = specified(device, case.precision)
    gemm_share = rate / gemm if gemm and counts.flops else None
    copy_share = counts.bytes / timing.step / job.copy
    on_host = device.type == "cpu"
    return {
        "flops_per_image": counts.flops / case.batch_size,
        "flops_missed": counts.missed,
        "bytes_per_image": counts.bytes / case.batch_size,
        "gemm_share": gemm_share,
        "copy_share": copy_share,
        "peak_share": rate / peak[0] if peak else None,
        "peak_source": peak[1] if peak else None,
        "bound_by": bound_by(
            gemm_share=gemm_share,
            copy_share=copy_share,
            enqueue_share=None if on_host else timing.enqueue / timing.step,
        ),
    }


def _count(job: Job, case: Case) -> Counts:
    """On meta tensors where the model can live there, else on the CPU with the case's batch."""
    eager = Case(**{**vars(case), "compile": "off"})
    try:
        return count(Workload(job, eager, torch.device("meta")).counted)
    except VaezooError:
        raise
    except Exception:  # a model that reads a value back cannot run on meta tensors
        return count(Workload(job, eager, torch.device("cpu")).counted)


def _largest(job: Job, case: Case) -> Case:
    """The largest power of two that a step fits at, from the case's batch size on."""
    device = resolve_device(job.device)
    fits: Case | None = None
    trial = case
    while trial.batch_size <= _LARGEST_TRIED:
        try:
            subject = Workload(job, trial, device)
            subject.step()
            subject.step()
        except (MemoryError, torch.OutOfMemoryError):
            break
        except RuntimeError as error:
            if "allocate" not in str(error):
                raise
            break
        fits = trial
        trial = Case(**{**vars(trial), "batch_size": 2 * trial.batch_size})
        if device.type == "cuda":
            torch.cuda.empty_cache()
    if fits is None:
        raise torch.OutOfMemoryError("not even the smallest batch fits")
    return fits


def _peak_memory(device: torch.device) -> int:
    """Of the device for a GPU, of the whole process for a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
