"""vaezoo's side of pythae_trainer.py, with the same data and networks. Prints one JSON object."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import vaezoo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--array", required=True)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=64)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = vaezoo.train(
            "vanilla",
            data="npz",
            root=args.array,
            likelihood="gaussian",
            epochs=args.epochs,
            batch_size=args.batch_size,
            out=Path(folder) / "run",
        )
        seen = run.summary["steps"] * args.batch_size
        # Checkpoints and validation are in these seconds, as they are in the peer's.
        print(json.dumps({"images_per_second": seen / run.summary["wall_seconds"]}))


if __name__ == "__main__":
    main()
