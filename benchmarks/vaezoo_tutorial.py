"""The same job as baseline_tutorial.py, done by vaezoo. Prints one JSON object."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

from harness import tutorial_parser
from workload import training_workload

from vaezoo.bench.machine import synchronize
from vaezoo.runtime.device import precision_context, resolve_device, resolve_precision, tune_malloc


def step_rate(batch_size: int, steps: int, compiled: str, precision_name: str) -> float:
    tune_malloc()
    device = resolve_device("auto")
    precision = resolve_precision(precision_name, device)
    with precision_context(precision, deterministic=False):
        workload = training_workload(
            device,
            batch_size=batch_size,
            precision=precision,
            likelihood="gaussian",
            compile=compiled,
        )
        for _ in range(5):
            workload.step()
        synchronize(device)
        begun = time.perf_counter()
        for _ in range(steps):
            workload.step()
        synchronize(device)
    return steps * batch_size / (time.perf_counter() - begun)


def main() -> None:
    parser = tutorial_parser(__doc__)
    parser.add_argument("--compile", choices=("off", "on"), default="off")
    parser.add_argument("--precision", default="auto")
    args = parser.parse_args()
    if args.mode == "step":
        rate = step_rate(args.batch_size, args.steps, args.compile, args.precision)
        print(json.dumps({"images_per_second": rate}))
        return
    import vaezoo

    config = Path(__file__).parents[1] / "configs" / "simpsons.yaml"
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        run = vaezoo.train(
            config=config,
            root=args.images,
            epochs=args.epochs,
            batch_size=args.batch_size,
            compile=args.compile,
            seed=args.seed,
            out=Path(folder) / "run",
        )
        seconds = time.perf_counter() - begun
        seen = run.summary["steps"] * args.batch_size
        numbers = {
            "images_per_second": seen / seconds,
            "training_images_per_second": run.summary["images_per_second"],
            "elbo": run.summary["elbo"],
        }
    print(json.dumps(numbers))


if __name__ == "__main__":
    main()
