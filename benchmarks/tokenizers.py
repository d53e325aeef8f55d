"""Tokenizers on crops of photographs, with and without a discriminator: quality and speed.

    python benchmarks/tokenizers.py FOLDER [--steps 800] [--only vqgan,titok,...]

Crops of 64×64 are written to FOLDER/crops (`crops.py`). Each model is trained on them by absolute
errors and MS-SSIM; one of each kind of latent also with a patch discriminator in the second half,
and a prior is fitted to it. All numbers are of held-out crops. What is there is used again, so that
an interrupted table goes on. At the end, pictures of reconstructions and samples of what there is
are written to FOLDER.

The table goes to results/tokenizers.md, the numbers to results/tokenizers.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from crops import write_crops
from harness import RESULTS, file_name
from torch import Tensor

import vaezoo
from vaezoo.evaluation.pictures import save_rows
from vaezoo.runs.run import Run
from vaezoo.runtime.device import device_name

SIDE = 64
LDM: dict[str, Any] = {"network": "ldm", "layers_per_block": 1, "norm_groups": 8}
F4 = {**LDM, "hidden": (16, 32, 64)}
F8 = {**LDM, "hidden": (16, 32, 64, 64)}
BINARY = {"bottleneck": "bsq", "bits": 14, "entropy_weight": 20.0, "joint_entropy": True}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "autoencoder_kl f4": ("autoencoder_kl", {**F4, "latent_dim": 4}),
    "autoencoder_kl f8": ("autoencoder_kl", {**F8, "latent_dim": 16}),
    "vqgan f8": ("vqgan", {**F8, "codes": 1024, "code_dim": 16, "dead_code_steps": 20}),
    "rvq f8, 4 codebooks": (
        "vqgan",
        {
            **F8,
            **{"bottleneck": "rvq", "codebooks": 4, "codes": 1024, "code_dim": 16},
            "dead_code_steps": 20,
        },
    ),
    "bsq f8": ("vqgan", {**F8, **BINARY}),
    "titok, 32 tokens": (
        "titok",
        {
            **{"patch_size": 8, "embed_dim": 128, "depth": 4, "latent_tokens": 32},
            **{"codes": 4096, "code_dim": 12, "cosine": True, "dead_code_steps": 20},
        },
    ),
}
PRIORS = {
    "autoencoder_kl f8": "flow_matching",
    "vqgan f8": "autoregressive",
    "titok, 32 tokens": "autoregressive",
}
JOB: dict[str, Any] = {
    "data": "folder",
    "image_size": (SIDE, SIDE),
    "batch_size": 16,
    "lr": 1e-3,
    "schedule": "cosine",
    "seed": 0,
}
LOSS: dict[str, Any] = {
    "loss": "perceptual_gan",
    "perceptual": "ms_ssim",
    "discriminator_channels": 32,
    "discriminator_layers": 2,
    "gan": "hinge",
}
METRICS = ("psnr", "ssim", "rfid", "code_use", "code_perplexity")


def options_of(name: str, weight: float, start: int) -> dict[str, Any]:
    """Of a model and its loss. weight: of the discriminator, from the step `start` on."""
    model, own = MODELS[name]
    sampler = {} if model == "autoencoder_kl" else {"sampler": "none"}
    return {**LOSS, "adversarial_weight": weight, "discriminator_start": start, **sampler, **own}


def train(path: Path, crops: Path, name: str, weight: float, steps: int) -> Run:
    job = {**JOB, **options_of(name, weight, steps // 2)}
    return vaezoo.train(MODELS[name][0], out=path, root=crops, auto_resume=True, steps=steps, **job)


def measure(run: Run, name: str, weight: float) -> dict[str, Any]:
    found = run.evaluate(metrics=list(METRICS), features="classifier").metrics
    values = {key: found[key].value for key in METRICS if key in found}
    return {
        **values,
        "images_per_second": step_rate(name, weight),
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "features": found["rfid"].network,
    }


def step_rate(name: str, weight: float) -> float:
    """Images a second of a training step of 16 noise images, with the discriminator if any."""
    options = options_of(name, weight, 0)
    model = vaezoo.create_model(MODELS[name][0], (3, SIDE, SIDE), **options)
    step = vaezoo.make_train_step(model, steps=100, num_examples=4000, precision="fp32")
    x = torch.rand(16, 3, SIDE, SIDE)
    seconds = []
    for _ in range(11):
        begun = time.perf_counter()
        step(x)
        seconds.append(time.perf_counter() - begun)
    return len(x) / statistics.median(seconds[2:])


def read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())["runs"] if file.exists() else {}
    return found


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [
        "| model | discriminator | PSNR, dB | SSIM | rFID | codes in use | images/s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    keys = (f"{name}, {kind}" for name in MODELS for kind in ("plain", "gan"))
    for key, row in ((key, found[key]) for key in keys if key in found):
        name, _, kind = key.rpartition(", ")
        use = f"{100 * row['code_use']:.0f} %" if row.get("code_use") is not None else ""
        lines.append(
            f"| {name} | {'yes' if kind == 'gan' else ''} | {row['psnr']:.1f} | {row['ssim']:.3f} "
            f"| {row['rfid']:.1f} | {use} | {row['images_per_second']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--only", help="models whose name starts with one of these")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.folder.mkdir(parents=True, exist_ok=True)
    crops = given.folder / "crops"
    write_crops(crops, SIDE, held_out=1000)
    file = RESULTS / "tokenizers.json"
    chosen = tuple(given.only.split(",")) if given.only else ("",)
    jobs = [(name, "plain", 0.0) for name in MODELS] + [(name, "gan", 0.5) for name in PRIORS]
    for name, kind, weight in jobs:
        if not name.startswith(chosen):
            continue
        key = f"{name}, {kind}"
        run = train(given.folder / file_name(key), crops, name, weight, given.steps)
        if key not in read(file):
            found = measure(run, name, weight)
            print(key, found, flush=True)
            kept = {**read(file), key: found}  # another process may have written meanwhile
            about = {"device": device_name(run.device), "threads": 1, "steps": given.steps}
            file.write_text(json.dumps({**about, "runs": kept}, indent=1) + "\n")
            (RESULTS / "tokenizers.md").write_text(table(kept))
        if name in PRIORS and kind == "plain" and PRIORS[name] not in run.samplers:
            print(name, run.fit_sampler(PRIORS[name]).sampler_record, flush=True)
    draw(given.folder)


def draw(folder: Path) -> None:
    """folder/reconstructions.png and folder/samples.png, a row for each run."""
    rows: list[Tensor] = []
    names: list[str] = []
    samples: dict[str, Tensor] = {}
    for key in (f"{name}, {kind}" for name in MODELS for kind in ("plain", "gan")):
        path = folder / file_name(key)
        if not (path / "summary.json").exists():
            continue
        run = vaezoo.load_run(path)
        x = run.splits.test.get_batch(torch.arange(0, 1000, 125))[0] / 255
        rows = rows or [x]
        names = names or ["held-out crops"]
        rows.append(run.reconstruct(x))
        names.append(key)
        if sampler := PRIORS.get(name := key.removesuffix(", plain")):
            samples[name] = run.with_sampler(sampler).sample(8)
    save_rows(folder / "reconstructions.png", rows, names)
    if samples:
        save_rows(folder / "samples.png", list(samples.values()), list(samples))


if __name__ == "__main__":
    main()
