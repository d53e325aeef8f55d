"""The tutorial's whole job, from a cold process: JPEGs to weights, pictures and validation.

python benchmarks/speedrun.py --images DIR [--total 1500000] [--compile on]

`total` images are trained on, whatever the size of the folder: 15,000 images for 100 epochs are
1.5 million. Each stage is timed from the start of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import device_of_this_machine, publish


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", required=True)
    parser.add_argument("--total", type=int, default=1_500_000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--compile", choices=("off", "on"), default="off")
    args = parser.parse_args()
    config_file = Path(__file__).parents[1] / "configs" / "simpsons.yaml"
    steps = args.total // args.batch_size
    stages = {}
    with tempfile.TemporaryDirectory() as folder:
        for stage in ("from JPEGs", "from the decoded store"):
            out = Path(folder) / stage.replace(" ", "-")
            line = [sys.executable, "-m", "vaezoo", "train", "--config", str(config_file)]
            line += ["--root", args.images, "--steps", str(steps), "--out", str(out)]
            line += ["--batch-size", str(args.batch_size), "--compile", args.compile]
            environment = {"VAEZOO_CACHE": str(Path(folder) / "cache")}
            begun = time.perf_counter()
            subprocess.run(line, check=True, env={**os.environ, **environment})
            whole = time.perf_counter() - begun
            summary = json.loads((out / "summary.json").read_text())
            stages[stage] = {
                "whole_seconds": whole,
                "training_seconds": summary["wall_seconds"],
                "before_and_after_seconds": whole - summary["wall_seconds"],
                "images_per_second": summary["images_per_second"],
                "elbo": summary["elbo"],
            }
    lines = [
        f"{steps * args.batch_size:,} images {stage}, seconds | {run['whole_seconds']:.1f} | - | -"
        for stage, run in stages.items()
    ]
    arguments = {**vars(args), "images": Path(args.images).name}
    publish("speedrun", device_of_this_machine(), lines, {"arguments": arguments, **stages})


if __name__ == "__main__":
    main()
