"""What is done with a trained model, each task against the plain way: a loop in plain PyTorch.

    python benchmarks/after_training.py [--images DIR] [--rounds 3] [--only sample,encode,...]

Both sides have the same modules with the same weights. The plain one, `baseline_after_training.py`,
has its own loops; ours is `vaezoo_after_training.py`. A small vanilla VAE and a VQ-VAE are trained
for a few steps first: the speed does not depend on their weights. DIR is a folder of JPEGs, for the
task `folder`; `photographs.py` makes one.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import contest, device_of_this_machine, median, publish, script

import vaezoo

SIDE = 32
TASKS = {
    "likelihood": "log-likelihood of 16 images by 5,000 importance samples",
    "fid": "FID of 10,000 samples",
    "encode": "latents of 150,000 images from a file to a file",
    "sample": "20,000 samples",
    "folder": "a folder of JPEGs that no run has read, to 64×64",
    "prior": "150,000 images to codes, and 300 steps of a prior over them",
}


def prepare(folder: Path, examples: int) -> None:
    """folder/images.npz, uint8 images of sprites with a class, and a run of each model of them."""
    split = vaezoo.load_data("sprites", image_size=SIDE).train
    index = torch.arange(examples) % len(split)
    images = torch.cat([split.get_batch(part)[0] for part in index.split(10_000)])
    shape = torch.cat([split.factors(part)[:, 0] for part in index.split(10_000)])  # type: ignore[index]
    np.savez(folder / "images.npz", images=images.numpy(), labels=shape.numpy())
    job: dict[str, Any] = {"data": "npz", "root": folder / "images.npz", "steps": 100, "seed": 0}
    vaezoo.train("vanilla", out=folder / "vanilla", hidden=(32, 64, 128), latent_dim=16, **job)
    job |= {"sampler": "none", "network": "conv", "hidden": (32, 64)}
    vaezoo.train("vq_vae", out=folder / "vq_vae", **job)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, help="a folder of JPEGs, of any size")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="tasks, with commas between")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="of all numbers of the tasks; below 1 for a trial"
    )
    args = parser.parse_args()
    chosen = args.only.split(",") if args.only else list(TASKS)
    if args.images is None and "folder" in chosen:
        chosen.remove("folder")
        print("no --images: the task folder is left out")
    lines, results = [], {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["VAEZOO_CACHE"] = str(folder / "cache")
        prepare(folder, round(200_000 * args.scale))
        given = [
            "--folder",
            name,
            "--scale",
            str(args.scale),
            *(["--images", str(args.images)] if args.images else []),
        ]
        for task in chosen:
            found = contest(
                {
                    "plain": script("baseline_after_training.py", task, *given),
                    "vaezoo": script("vaezoo_after_training.py", task, *given),
                },
                rounds=args.rounds,
            )
            ours, theirs = (median(found[side], "seconds") for side in ("vaezoo", "plain"))
            what = f"{TASKS[task]}, seconds"
            lines.append(f"{what} | {ours:.2f} | {theirs:.2f} | {theirs / ours:.2f} ×")
            results[task] = found
            print(lines[-1], flush=True)
    publish(
        "after_training", device_of_this_machine(), lines, {"scale": args.scale, "results": results}
    )


if __name__ == "__main__":
    main()
