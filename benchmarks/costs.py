"""What an example costs, for the arithmetic of very large sets: docs/scale.md.

    python benchmarks/costs.py --images DIR

One thread, and one process for each row. DIR is a folder of JPEGs (`photographs.py` makes one). The
numbers go to results/costs-DEVICE.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import RESULTS, device_of_this_machine, peak_bytes, short_name

SHAPE = (3, 64, 64)
FILES, ORDER, ROWS, BATCH = 200_000, 100_000_000, 100_000, 256


def files(folder: Path, images: Path) -> dict[str, float]:
    """Finding files, and what their names take; they are empty."""
    from vaezoo_files.image_files import find_images

    root = folder / "files"
    for number in range(FILES):
        inside = root / f"{number // 1000:05d}"
        if number % 1000 == 0:
            inside.mkdir(parents=True)
        (inside / f"{number:09d}.jpg").touch()
    before, begun = peak_bytes(), time.perf_counter()
    tree = find_images(root)
    seconds = time.perf_counter() - begun
    assert len(tree.images) == FILES
    return {"seconds_a_file": seconds / FILES, "bytes_a_file": (peak_bytes() - before) / FILES}


def decode(folder: Path, images: Path) -> dict[str, float]:
    """Decoding 400×300 JPEGs to 64×64, on one core, into the store."""
    import vaezoo

    os.sched_setaffinity(0, {0})
    begun = time.perf_counter()
    splits = vaezoo.load_data("folder", root=images, image_size=64)
    count = len(splits.train) + len(splits.test)
    return {"images": count, "images_a_second": count / (time.perf_counter() - begun)}


def shuffle(folder: Path, images: Path) -> dict[str, float]:
    """The order of an epoch, in each process."""
    before, begun = peak_bytes(), time.perf_counter()
    order = torch.randperm(ORDER, generator=torch.Generator().manual_seed(0))
    seconds = time.perf_counter() - begun
    return {
        "examples": len(order),
        "seconds": seconds,
        "bytes_an_example": (peak_bytes() - before) / ORDER,
    }


def gather(folder: Path, images: Path) -> dict[str, float]:
    """Batches at random places of the store, in the page cache and not."""
    from vaezoo import TensorSplit

    path = folder / "store.npy"
    store = np.lib.format.open_memmap(path, "w+", np.uint8, (ROWS, *SHAPE))
    block = np.random.default_rng(0).integers(0, 256, (10_000, *SHAPE), dtype=np.uint8)
    begun = time.perf_counter()
    for start in range(0, ROWS, 10_000):
        store[start : start + 10_000] = block
    store.flush()
    found = {"bytes_an_example": float(block[0].nbytes)}
    found["written_bytes_a_second"] = store.nbytes / (time.perf_counter() - begun)
    split = TensorSplit(torch.from_numpy(store))
    order = torch.randperm(ROWS)

    def rate(count: int) -> float:
        begun = time.perf_counter()
        for index in order[:count].split(BATCH):
            split.get_batch(index)
        return count / (time.perf_counter() - begun)

    rate(ROWS)
    found["images_a_second"] = rate(ROWS)
    del split, store
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    split = TensorSplit(torch.from_numpy(np.load(path, mmap_mode="r")))
    found["images_a_second_from_disk"] = rate(10 * BATCH)
    return found


def checkpoint(folder: Path, images: Path) -> dict[str, float]:
    """A safetensors file of 1 GiB, with its checksum, on the disk."""
    from vaezoo.checkpoint.format import write_tensors

    weights = {f"w{i}": torch.rand(1 << 24) for i in range(16)}
    begun = time.perf_counter()
    write_tensors(folder / "weights.safetensors", weights)
    return {"bytes_a_second": (1 << 30) / (time.perf_counter() - begun)}


TASKS: dict[str, Callable[[Path, Path], dict[str, float]]] = {
    task.__name__: task for task in (files, decode, shuffle, gather, checkpoint)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--task", choices=TASKS, help="one row in this process, as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        if args.task:
            os.environ["VAEZOO_CACHE"] = f"{name}/cache"
            print(json.dumps(TASKS[args.task](Path(name), args.images)))
            return
    found: dict[str, Any] = {}
    for task in TASKS:
        command = [sys.executable, __file__, "--images", str(args.images), "--task", task]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found[task] = json.loads(done.stdout.splitlines()[-1])
        print(task, found[task], flush=True)
    device = device_of_this_machine()
    path = RESULTS / f"costs-{short_name(device)}.json"
    path.write_text(json.dumps({"device": device, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
