"""vaezoo's side of `after_training.py`."""

from __future__ import annotations

import os
import tempfile
from argparse import Namespace
from collections.abc import Callable

import torch
from after_training_job import run_task, scaled

import vaezoo
from vaezoo.cli.main import main as command_line


def likelihood(args: Namespace) -> Callable[[], object]:
    run = vaezoo.load_run(args.folder / "vanilla")
    x = run.splits.test.get_batch(torch.arange(16))[0] / 255
    run.score(x, importance_samples=10)
    return lambda: run.score(x, importance_samples=scaled(args, 5000))


def fid(args: Namespace) -> Callable[[], object]:
    run = vaezoo.load_run(args.folder / "vanilla")
    run.evaluate(metrics=["fid"], features="classifier")  # trains the classifier, once
    run = vaezoo.load_run(args.folder / "vanilla")
    return lambda: run.evaluate(metrics=["fid"], features="classifier")


def encode(args: Namespace) -> Callable[[], object]:
    root = str(args.folder / "images.npz")
    out = str(args.folder / "latents.npz")
    command = ["encode", str(args.folder / "vanilla"), "--data", "npz", "--root", root]
    command += ["--split", "train", "-o", out, "--overwrite", "--json"]

    def measured() -> None:
        if command_line(command):
            raise SystemExit(f"vaezoo {' '.join(command)} failed")

    return measured


def sample(args: Namespace) -> Callable[[], object]:
    run = vaezoo.load_run(args.folder / "vanilla")
    run.sample(64)
    return lambda: run.sample(scaled(args, 20_000))


def folder(args: Namespace) -> Callable[[], object]:
    def measured() -> None:
        with tempfile.TemporaryDirectory() as cache:
            os.environ["VAEZOO_CACHE"] = cache
            split = vaezoo.load_data("folder", root=args.images, image_size=64).train
            split.get_batch(torch.arange(len(split)))

    return measured


def prior(args: Namespace) -> Callable[[], object]:
    run = vaezoo.load_run(args.folder / "vq_vae")
    _ = run.model, run.splits
    steps = scaled(args, 300)
    return lambda: run.fit_sampler("autoregressive", prior_steps=steps, overwrite=True)


if __name__ == "__main__":
    run_task(likelihood, fid, encode, sample, folder, prior)
