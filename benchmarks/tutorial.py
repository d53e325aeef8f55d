"""The tutorial's script against vaezoo: the step alone, and JPEG folder to trained weights.

python benchmarks/tutorial.py --images DIR [--epochs 1] [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from harness import contest, device_of_this_machine, median, publish, script, spread


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", required=True, help="a folder of JPEGs")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2, help="of the tutorial's DataLoader")
    args = parser.parse_args()
    common = ["--batch-size", str(args.batch_size)]
    steps = contest(
        {
            "tutorial": script("baseline_tutorial.py", "--mode", "step", *common),
            "vaezoo": script("vaezoo_tutorial.py", "--mode", "step", *common),
            # The tutorial's own arithmetic: what is left where a device has nothing faster.
            "vaezoo fp32": script(
                "vaezoo_tutorial.py", "--mode", "step", "--precision", "fp32", *common
            ),
        },
        rounds=args.rounds,
    )
    job = ["--mode", "epochs", "--images", args.images, "--epochs", str(args.epochs), *common]
    with tempfile.TemporaryDirectory() as cache:
        # An empty cache for the first round: decoding is part of the first job, and only of it.
        os.environ["VAEZOO_CACHE"] = str(Path(cache))
        jobs = contest(
            {
                "tutorial": script("baseline_tutorial.py", *job, "--workers", str(args.workers)),
                "vaezoo": script("vaezoo_tutorial.py", *job),
            },
            rounds=args.rounds,
            seeded=True,
        )
    device = device_of_this_machine()
    lines = []
    for what, runs, ours_is in (
        (f"step, batch {args.batch_size}", steps, "vaezoo"),
        (f"step in fp32, batch {args.batch_size}", steps, "vaezoo fp32"),
        (f"JPEGs to weights and pictures, {args.epochs} epochs", jobs, "vaezoo"),
    ):
        name = "images_per_second"
        ours, theirs = median(runs[ours_is], name), median(runs["tutorial"], name)
        lines.append(f"{what} | {ours:,.0f} | {theirs:,.0f} | {ours / theirs:.2f} ×")
    ours, theirs = (median(jobs[name], "process_seconds") for name in ("vaezoo", "tutorial"))
    lines.append(f"whole process, seconds | {ours:.1f} | {theirs:.1f} | {theirs / ours:.2f} ×")
    elbos = (spread(jobs[name], "elbo") for name in ("vaezoo", "tutorial"))
    lines.append(f"validation ELBO, nats, {args.rounds} seeds | {' | '.join(elbos)} | -")
    arguments = {**vars(args), "images": Path(args.images).name}
    publish("tutorial", device, lines, {"arguments": arguments, "step": steps, "job": jobs})


if __name__ == "__main__":
    main()
