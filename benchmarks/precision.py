"""Training in bf16 against float32: the held-out ELBO of every model, over seeds.

    python benchmarks/precision.py [--seeds 3] [--steps 300] [--only vanilla,...]

Each pair of runs has the same seed, so the same weights and batches at first, on sprites of 16×16.
What is compared is the ELBO of the test images; the squared error for models without one. The
table goes to results/precision-DEVICE.md, the numbers to .json. What is there is used again.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from harness import RESULTS, device_of_this_machine, short_name

import vaezoo
from vaezoo import ModelSpec

DATA: dict[str, Any] = {"data": "sprites", "image_size": 16, "examples": 4000, "test": 1000}
MODELS: dict[str, dict[str, Any]] = {
    "autoencoder_kl": {"hidden": (8, 16, 16), "norm_groups": 4, "layers_per_block": 1},
    "vqgan": {"hidden": (8, 16, 16), "norm_groups": 4, "layers_per_block": 1, "codes": 64},
    "dc_ae": {"hidden": (8, 16, 16)},
    "vit_vae": {"patch_size": 4, "embed_dim": 32, "depth": 2},
    "titok": {"patch_size": 4, "embed_dim": 32, "depth": 2, "codes": 64},
}
"""Small networks; those of other models are small at this size of image."""


def score(spec: ModelSpec, precision: str, seed: int, steps: int) -> tuple[str, float]:
    """The name and the value of what is compared."""
    options = MODELS.get(spec.name, {})
    if "sampler" in spec.parts:
        options = {**options, "sampler": "none"}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = vaezoo.train(
            spec.name,
            out=Path(folder) / "run",
            seed=seed,
            steps=steps,
            batch_size=32,
            precision=precision,
            **DATA,
            **options,
        )
        summary = run.summary
    name = "elbo" if summary.get("elbo") is not None else "mse"
    return name, float(summary[name])


def table(rows: dict[str, Any]) -> str:
    lines = [
        "| model | | float32 | deviation over seeds | bf16 − float32, with standard error |",
        "| --- | --- | --- | --- | --- |",
    ]
    for model, row in rows.items():
        single, half = row["fp32"], row["bf16"]
        differences = [b - a for a, b in zip(single, half, strict=True)]
        error = statistics.stdev(differences) / math.sqrt(len(differences))
        digits = 2 if row["name"] == "elbo" else 4
        lines.append(
            f"| {model} | {row['name']} | {statistics.mean(single):.{digits}f} "
            f"| {statistics.stdev(single):.{digits}f} "
            f"| {statistics.mean(differences):+.{digits}f} ± {error:.{digits}f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--only", help="models, with commas between")
    args = parser.parse_args()
    torch.set_num_threads(1)
    device = device_of_this_machine()
    stem = RESULTS / f"precision-{short_name(device)}"
    path = stem.with_suffix(".json")
    rows = json.loads(path.read_text())["models"] if path.exists() else {}
    for spec in vaezoo.list_models():
        if spec.name in rows or (args.only and spec.name not in args.only.split(",")):
            continue
        row: dict[str, Any] = {"fp32": [], "bf16": []}
        for seed in range(args.seeds):
            for precision in ("fp32", "bf16"):
                row["name"], value = score(spec, precision, seed, args.steps)
                row[precision].append(value)
        rows[spec.name] = row
        print(spec.name, row, flush=True)
        record = {"device": device, "steps": args.steps, "data": DATA, "models": rows}
        path.write_text(json.dumps(record, indent=1) + "\n")
        stem.with_suffix(".md").write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
