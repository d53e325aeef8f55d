"""FID of samples with each sampler: models on Fashion-MNIST, a few seeds, one table.

    python benchmarks/samplers.py FOLDER [--seeds 3] [--epochs 5] [--samplers none,gaussian,...]

It trains MODEL-SEED in FOLDER unless the run is there, fits each sampler to it unless it is fitted,
and measures the FID on the 10,000 test images by features of a classifier of the labels. The table
goes to results/samplers.md, the numbers to results/samplers.json. What is there is used again, so
that an interrupted table goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from harness import RESULTS

import vaezoo
from vaezoo.errors import OptionError
from vaezoo.runs.run import Run
from vaezoo.runtime.device import device_name

MODELS = ("vanilla", "rae", "wae_mmd", "vq_vae", "autoencoder")
SAMPLERS = (
    *("none", "gaussian", "gaussian_mixture", "maf", "nsf"),
    *("flow_matching", "two_stage", "hypersphere", "autoregressive"),
)
JOB: dict[str, Any] = {
    "data": "fashion_mnist",
    "hidden": (32, 64, 128),
    "schedule": "cosine",
    "lr": 1e-3,
    "batch_size": 128,
}
LATENTS = 16


def train(path: Path, model: str, seed: int, epochs: int) -> Run:
    """The run of a model without a sampler of its own; trained if it is not there."""
    own: dict[str, Any] = {} if model == "vq_vae" else {"latent_dim": LATENTS}
    if model in ("rae", "vq_vae"):
        own["sampler"] = "none"
    if model == "vq_vae":
        own |= {"network": "conv", "hidden": (32, 64)}  # a grid of 7 by 7 codes
    return vaezoo.train(
        model, out=path, auto_resume=True, seed=seed, epochs=epochs, **{**JOB, **own}
    )


def measure(run: Run, sampler: str) -> dict[str, Any] | None:
    """FID and KID with a sampler, and the seconds of its fit; None if it does not fit the model."""
    if sampler != "none" and sampler not in run.samplers:
        try:
            run.fit_sampler(sampler)
        except OptionError as error:
            print(f"{run.path.name}: {error}")
            return None
    chosen = run.with_sampler(sampler)
    found = chosen.evaluate(metrics=["fid", "kid"], features="classifier").metrics
    return {
        "fid": found["fid"].value,
        "kid": found["kid"].value,
        "features": found["fid"].network,
        "fit_seconds": chosen.sampler_record.get("seconds"),
    }


def table(found: dict[str, dict[str, Any]], samplers: list[str]) -> str:
    """A row for each sampler, a column for each model: mean and standard deviation over seeds."""
    models = [m for m in MODELS if any(key.startswith(f"{m}-") for key in found)]
    lines = [f"| sampler | {' | '.join(models)} |", f"| --- |{' --- |' * len(models)}"]
    for sampler in samplers:
        cells = []
        for model in models:
            runs = [values for key, values in found.items() if key.rpartition("-")[0] == model]
            fids = [run[sampler]["fid"] for run in runs if run.get(sampler)]
            spread = f" ± {statistics.stdev(fids):.1f}" if len(fids) > 1 else ""
            cells.append(f"{statistics.mean(fids):.1f}{spread}" if fids else "")
        lines.append(f"| {sampler} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--samplers", default=",".join(SAMPLERS))
    given = parser.parse_args()
    samplers = given.samplers.split(",")
    file = RESULTS / "samplers.json"
    kept = json.loads(file.read_text())["runs"] if file.exists() else {}
    for seed in range(given.seeds):
        for model in MODELS:
            run = train(given.folder / f"{model}-{seed}", model, seed, given.epochs)
            key = run.path.name
            for sampler in samplers:
                if sampler not in kept.setdefault(key, {}):
                    kept[key][sampler] = measure(run, sampler)
                    print(key, sampler, kept[key][sampler], flush=True)
                    device = device_name(run.device)
                    threads = torch.get_num_threads()
                    about = {"device": device, "threads": threads, "epochs": given.epochs}
                    file.write_text(json.dumps({**about, "runs": kept}, indent=1) + "\n")
    text = table(kept, [*dict.fromkeys([*samplers, *(s for run in kept.values() for s in run)])])
    (RESULTS / "samplers.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
