"""How much of a codebook of 16,384 codes each quantizer uses, on crops of photographs.

    python benchmarks/codebook_usage.py FOLDER [--steps 400] [--only simvq,ibq,...]

The photographs are colour pictures that scikit-image ships. Crops of 64×64 are written to
FOLDER/crops (`crops.py`): 4,000 for training, and 2,000 held out. The same small network is trained
with each quantizer, for the same steps. Use and perplexity are of the held-out crops. What is there
is used again.

The table goes to results/codebook_usage.md, the numbers to results/codebook_usage.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from crops import write_crops
from harness import RESULTS, file_name

import vaezoo
from vaezoo.runtime.device import device_name

SIDE = 64
CODES = 16_384
JOB: dict[str, Any] = {
    "data": "folder",
    "image_size": (SIDE, SIDE),
    "network": "conv",
    "hidden": (16, 32, 64),  # a grid of 8 by 8 codes
    "batch_size": 16,
    "lr": 1e-3,
    "schedule": "cosine",
    "sampler": "none",
    "seed": 0,
}
LEARNED = {"codes": CODES, "code_dim": 8}
QUANTIZERS: dict[str, dict[str, Any]] = {
    "vq, plain": {"bottleneck": "vq", "dead_code_steps": None, **LEARNED},
    "vq, dead codes replaced": {"bottleneck": "vq", **LEARNED},
    "vq, dead codes replaced after 10 steps": {
        "bottleneck": "vq",
        "dead_code_steps": 10,
        **LEARNED,
    },
    "vq, dead codes replaced after 10 steps, cosine, rotation": {
        "bottleneck": "vq",
        "dead_code_steps": 10,
        "cosine": True,
        "estimator": "rotation",
        **LEARNED,
    },
    "simvq": {"bottleneck": "simvq", **LEARNED},
    "rvq, 2 codebooks": {"bottleneck": "rvq", "codebooks": 2, **LEARNED},
    "pq, 2 codebooks": {"bottleneck": "pq", "codebooks": 2, **LEARNED},
    "fsq": {"bottleneck": "fsq", "levels": (8, 8, 8, 8, 4)},
    "lfq": {"bottleneck": "lfq", "bits": 14},
    "bsq": {"bottleneck": "bsq", "bits": 14},
    # The distortion is a sum over 12,288 values, and the entropies over 64 positions.
    "lfq, entropy weight 20": {"bottleneck": "lfq", "bits": 14, "entropy_weight": 20.0},
    "bsq, entropy weight 20": {"bottleneck": "bsq", "bits": 14, "entropy_weight": 20.0},
    "bsq, entropy weight 20, of whole codes": {
        "bottleneck": "bsq",
        "bits": 14,
        "entropy_weight": 20.0,
        "joint_entropy": True,
    },
    "bsq, entropy weight 60, of whole codes": {
        "bottleneck": "bsq",
        "bits": 14,
        "entropy_weight": 60.0,
        "joint_entropy": True,
    },
    "bsq, entropy weight 120, of whole codes": {
        "bottleneck": "bsq",
        "bits": 14,
        "entropy_weight": 120.0,
        "joint_entropy": True,
    },
    "lfq, entropy weight 60, of whole codes": {
        "bottleneck": "lfq",
        "bits": 14,
        "entropy_weight": 60.0,
        "joint_entropy": True,
    },
    "ibq": {"bottleneck": "ibq", **LEARNED},
}
METRICS = ("code_use", "code_perplexity", "psnr")


def measure(path: Path, crops: Path, options: Mapping[str, Any], steps: int) -> dict[str, Any]:
    begun = time.perf_counter()
    run = vaezoo.train(
        "vq_vae", out=path, root=crops, auto_resume=True, steps=steps, **JOB, **options
    )
    seconds = time.perf_counter() - begun
    found = run.evaluate(metrics=list(METRICS)).metrics
    return {
        "use": found["code_use"].value,
        "perplexity": found["code_perplexity"].value,
        "psnr": found["psnr"].value,
        "note": found["code_use"].note,
        "seconds": seconds,
    }


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    lines = ["| quantizer | codes in use | perplexity | PSNR, dB |", "| --- | --- | --- | --- |"]
    for name in QUANTIZERS:
        if name in found:
            row = found[name]
            lines.append(
                f"| {name} | {100 * row['use']:.1f} % | {row['perplexity']:,.0f} "
                f"| {row['psnr']:.1f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--only", help="quantizers whose name starts with one of these")
    given = parser.parse_args()
    torch.set_num_threads(1)
    write_crops(given.folder / "crops", SIDE)
    file = RESULTS / "codebook_usage.json"
    kept = json.loads(file.read_text())["quantizers"] if file.exists() else {}
    chosen = tuple(given.only.split(",")) if given.only else ("",)
    for name, options in QUANTIZERS.items():
        if not name.startswith(chosen) or name in kept:
            continue
        path = given.folder / file_name(name)
        kept[name] = measure(path, given.folder / "crops", options, given.steps)
        print(name, kept[name], flush=True)
        about = {
            "device": device_name(torch.device("cpu")),
            "steps": given.steps,
            "codes": CODES,
            "seed": JOB["seed"],
        }
        file.write_text(json.dumps({**about, "quantizers": kept}, indent=1) + "\n")
        (RESULTS / "codebook_usage.md").write_text(table(kept))
    print(table(kept))


if __name__ == "__main__":
    main()
