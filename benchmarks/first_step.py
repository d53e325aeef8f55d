"""Time from the command to the first training step: the tutorial's script against `vaezoo train`.

python benchmarks/first_step.py --images DIR [--rounds 5]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from harness import contest, device_of_this_machine, median, publish, script


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", required=True, help="a folder of JPEGs")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    images = ["--images", args.images]
    with tempfile.TemporaryDirectory() as cache:
        os.environ["VAEZOO_CACHE"] = cache
        results = contest(
            {
                "tutorial": script("measure_first_step.py", "tutorial", *images),
                "vaezoo cold": script("measure_first_step.py", "vaezoo", *images, "--cold"),
                "vaezoo": script("measure_first_step.py", "vaezoo", *images),
            },
            rounds=args.rounds,
        )
    results["vaezoo"] = results["vaezoo"][1:]  # the first round filled the cache
    theirs = median(results["tutorial"], "first_step_seconds")
    lines = []
    for name, what in (
        ("vaezoo", "images decoded by an earlier run"),
        ("vaezoo cold", f"{sum(1 for _ in Path(args.images).rglob('*.jpg')):,} images to decode"),
    ):
        ours = median(results[name], "first_step_seconds")
        lines.append(
            f"command to first step, s; {what} | {ours:.1f} | {theirs:.1f} | {theirs / ours:.2f} ×"
        )
    arguments = {**vars(args), "images": Path(args.images).name}
    publish(
        "first_step", device_of_this_machine(), lines, {"arguments": arguments, "results": results}
    )


if __name__ == "__main__":
    main()
