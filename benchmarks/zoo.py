"""Metrics and example pictures of every model on one data set, as zoo.md.

python benchmarks/zoo.py RUNS [--train] [--data fashion_mnist] [--steps 1500] [--speeds FILE]

RUNS holds a run folder for each model, named after it. With --train missing runs are trained first,
each with the model's defaults and the same number of steps. The page lists the runs that exist.
Images per second come from the report of `vaezoo bench --mode train --json FILE`, because the runs
may have shared their machine with other programs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from harness import HERE, RESULTS

import vaezoo
from vaezoo.evaluation.pictures import save_grid
from vaezoo.runs.run import Run

_COLUMNS = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--data", default="fashion_mnist")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--speeds", type=Path, default=RESULTS / "zoo.json")
    args = parser.parse_args()
    names = [spec.name for spec in vaezoo.list_models()]
    if args.train:
        for name in names:
            train(args.runs / name, name, args)
    strips = RESULTS / "zoo"
    strips.mkdir(parents=True, exist_ok=True)
    report = json.loads(args.speeds.read_text()) if args.speeds.exists() else {"rows": []}
    speeds = {r["model"]: r["images_per_second"] for r in report["rows"] if r["mode"] == "train"}
    there = [name for name in names if (args.runs / name / "summary.json").exists()]
    rows = [row(vaezoo.load_run(args.runs / n), speeds.get(n), strips) for n in there]
    (HERE / "zoo.md").write_text(page(rows, args, report), encoding="utf-8")
    print(f"{HERE / 'zoo.md'}: {len(rows)} of {len(names)} models")


def train(out: Path, name: str, args: argparse.Namespace) -> None:
    if out.exists():
        return
    line = [sys.executable, "-m", "vaezoo", "train", name, "--data", args.data, "--out", str(out)]
    line += ["--steps", str(args.steps), "--batch-size", str(args.batch_size)]
    line += ["--lr", str(args.lr), "--schedule", "cosine"]
    # A model that fails is missing from the page; the others are still trained.
    subprocess.run(line, check=False)


def row(run: Run, speed: float | None, strips: Path) -> list[str]:
    """The cells of a model: name, loss, speed, metrics, pictures."""
    summary, name = run.summary, run.config.components.model.name
    if (run.path / "samples.png").exists():
        draw(run, strips / f"{name}.png")
    return [
        f"`{name}`",
        run.config.components.loss.name,
        number(speed, ",.0f"),
        number(summary["elbo"], ".1f"),
        substitute(run),
        number(summary["reconstruction_r2"], ".3f"),
        used(run),
        f"![{name}](results/zoo/{name}.png)",
    ]


def draw(run: Run, path: Path) -> None:
    """Save originals, their reconstructions below them, and a row of samples."""
    test = run.splits.test
    index = torch.linspace(0, len(test) - 1, _COLUMNS).long()
    raw, y = test.get_batch(index)
    x = raw.float() / 255.0
    samples = run.sample(_COLUMNS)
    shown = torch.cat([run.reconstruct(x, y), samples])
    # Pairs of rows: originals above reconstructions, and grey above the samples.
    save_grid(path, torch.cat([x, torch.full_like(samples, 0.55)]), shown, columns=_COLUMNS)


def last_validation(run: Run) -> dict[str, Any]:
    return next(line["terms"] for line in reversed(run.metrics) if line["kind"] == "validation")


def substitute(run: Run) -> str:
    """The loss term shown for a model without ELBO; it does not compare with other models."""
    if run.summary["elbo"] is not None:
        return ""
    terms = last_validation(run)
    name = next(n for n in ("distortion", "mse", *terms) if n in terms)
    return f"{name} {terms[name]:.1f} (not comparable)"


def used(run: Run) -> str:
    """Use of the latent: perplexity of the codes, else the number of active units."""
    terms = last_validation(run)
    if terms.get("perplexity") is not None:
        return f"perplexity {terms['perplexity']:.0f}"
    units = run.summary["active_units"]
    return "–" if units is None else f"{units} units"


def speed_of(report: dict[str, Any]) -> str:
    if not report["rows"]:
        return "Images per second are not measured yet."
    where = report["environment"]["device"]
    return f"Images per second: a training step at this size, by `vaezoo bench`, on {where}."


def number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def page(rows: list[list[str]], args: argparse.Namespace, report: dict[str, Any]) -> str:
    headings = ["model", "loss", "images/s", "ELBO, nats", "without ELBO", "R²", "used", ""]
    table = [headings, ["---"] * len(headings), *rows]
    lines = ["| " + " | ".join(cells) + " |" for cells in table]
    return "\n".join(
        [
            "# The zoo on one data set",
            "",
            (
                f"Each model on `{args.data}` with its default options, {args.steps:,} steps of "
                f"{args.batch_size} images, learning rate {args.lr:g} with a cosine schedule: "
                "minutes of training, not the best possible result. All metrics are on held-out "
                "images. Each picture shows originals, their reconstructions, and samples. The "
                f"ELBO is in nats per image under the model's own likelihood. {speed_of(report)}"
            ),
            "",
            (
                "Generated by `vaezoo bench --mode train --image-size 28 --channels 1 --json "
                "benchmarks/results/zoo.json` and `python benchmarks/zoo.py RUNS --train`."
            ),
            "",
            *lines,
            "",
        ]
    )


if __name__ == "__main__":
    main()
