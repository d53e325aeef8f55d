"""pythae's trainer against vaezoo: the same tensors, networks and batches.

python benchmarks/pythae_trainer.py [--images 3000] [--epochs 2] [--rounds 3]
"""

from __future__ import annotations

import argparse
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
from harness import contest, device_of_this_machine, median, publish, script


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=64)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        array = Path(folder) / "images.npz"
        noise = np.random.default_rng(0)
        x = noise.integers(0, 256, (args.images, 3, 64, 64), dtype=np.uint8)
        np.savez(array, x=x, x_test=x[:256])
        job = ["--array", str(array), "--epochs", str(args.epochs)]
        job += ["--batch-size", str(args.batch_size)]
        results = contest(
            {
                "pythae": script("baseline_pythae.py", *job),
                "vaezoo": script("vaezoo_pythae.py", *job),
            },
            rounds=args.rounds,
        )
    ours, theirs = (median(results[name], "images_per_second") for name in ("vaezoo", "pythae"))
    what = f"training, batch {args.batch_size}"
    line = f"{what} | {ours:,.0f} | {theirs:,.0f} | {ours / theirs:.2f} ×"
    record = {"arguments": vars(args), "pythae": version("pythae"), "training": results}
    publish("peer", device_of_this_machine(), [line], record)


if __name__ == "__main__":
    main()
