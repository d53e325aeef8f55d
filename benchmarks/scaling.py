"""Do time and memory grow as they should: with the batch, the image, the number of images and of
processes?

python benchmarks/scaling.py [--largest-batch 1024] [--largest-image 128] [--most-images 100000]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import RESULTS, device_of_this_machine, publish

from vaezoo.evaluation.plots import Series, save_lines


def bench(*options: str) -> list[dict[str, Any]]:
    """Rows of `vaezoo bench vanilla` in training."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        command = [sys.executable, "-m", "vaezoo", "bench", "vanilla", "--mode", "train"]
        subprocess.run([*command, *options, "--json", str(path)], check=True)
        return list(json.loads(path.read_text())["rows"])


def powers(low: int, high: int, factor: int = 2) -> Iterator[int]:
    while low <= high:
        yield low
        low *= factor


def data_seconds(images: int) -> dict[str, float]:
    """How long a shuffled epoch of sprites takes to draw and gather, and to set up."""
    code = (
        "import sys, time, torch, vaezoo\n"
        "from vaezoo.data.loader import BatchLoader\n"
        "from vaezoo.runtime.device import resolve_device\n"
        "begun = time.perf_counter()\n"
        "splits = vaezoo.load_data('sprites', examples=int(sys.argv[1]), test=100)\n"
        "batches = BatchLoader(splits.train, batch_size=256, device=resolve_device('auto'))\n"
        "ready = time.perf_counter() - begun\n"
        "total = sum(batch.x.sum() for batch in batches.epoch(0))\n"
        "float(total)\n"
        "print(ready, time.perf_counter() - begun - ready)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(images)], capture_output=True, text=True, check=True
    )
    ready, epoch = map(float, done.stdout.split())
    return {"images": images, "ready_seconds": ready, "epoch_seconds": epoch}


def shared(processes: int, steps: int) -> dict[str, float]:
    """Images a second of a job whose processes share its steps, and the cores of this machine."""
    threads = max(1, (os.cpu_count() or 1) // processes)
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", str(processes), "-m", "vaezoo", "train", "vanilla"),
            *("--data", "sprites", "--examples", "3000", "--test", "100", "--batch-size", "64"),
            *("--steps", str(steps), "--out", f"{folder}/run"),
        ]
        subprocess.run(
            command,
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )
        summary = json.loads((Path(folder) / "run" / "summary.json").read_text())
    return {"processes": processes, "images_per_second": summary["images_per_second"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest-batch", type=int, default=1024)
    parser.add_argument("--largest-image", type=int, default=128)
    parser.add_argument("--most-images", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--steps", type=int, default=60, help="of each job of several processes")
    args = parser.parse_args()
    begun = time.perf_counter()
    timed = ["--seconds", str(args.seconds)]
    batches = bench("--batch-size", ",".join(map(str, powers(16, args.largest_batch, 4))), *timed)
    images = [
        bench("--image-size", str(size), "--batch-size", "16", *timed)[0]
        for size in powers(32, args.largest_image)
    ]
    data = [data_seconds(count) for count in powers(1000, args.most_images, 10)]
    jobs = [shared(count, args.steps) for count in args.processes]
    record = {"batches": batches, "images": images, "data": data, "jobs": jobs}
    # A batch that memory does not hold is a row of the record, and no dot.
    batches, images = ([row for row in rows if row["status"] == "ok"] for rows in (batches, images))
    device = device_of_this_machine()
    charts = {
        "images a second by batch size": [
            Series(
                "train", [(r["batch_size"], r["images_per_second"]) for r in batches], markers=True
            )
        ],
        "MiB by batch size": [
            Series("peak", [(r["batch_size"], r["peak_memory_bytes"] / 2**20) for r in batches])
        ],
        "images a second by height and width": [
            Series("train", [(r["shape"][1], r["images_per_second"]) for r in images], markers=True)
        ],
        "seconds an epoch of drawing sprites": [
            Series("data", [(d["images"], d["epoch_seconds"]) for d in data], markers=True)
        ],
    }
    if jobs:
        charts["images a second by processes"] = [
            Series("train", [(j["processes"], j["images_per_second"]) for j in jobs], markers=True)
        ]
    RESULTS.mkdir(exist_ok=True)
    kind = device.split()[0].lower()
    save_lines(RESULTS / f"scaling-{kind}.png", charts)
    lines = [
        _against(batches, "batch_size", "images_per_second", "images/s at batch"),
        _against(batches, "batch_size", "peak_memory_bytes", "peak bytes at batch"),
        _against(data, "images", "epoch_seconds", "seconds of an epoch's data, images"),
        _against(jobs, "processes", "images_per_second", "images/s, processes"),
    ]
    record["seconds"] = time.perf_counter() - begun
    publish("scaling", device, [line for line in lines if line], record)


def _against(rows: list[dict[str, Any]], by: str, name: str, what: str) -> str:
    """A line: the largest against the smallest. "" where there are no two."""
    if len(rows) < 2:
        return ""
    first, last = rows[0], rows[-1]
    of, to = last[name], first[name]
    return f"{what} {last[by]:,} against {first[by]:,} | {of:,.4g} | {to:,.4g} | {of / to:.2f} ×"


if __name__ == "__main__":
    main()
