"""Every model of the zoo on one data set: numbers and a strip of pictures each, as zoo.md.

python benchmarks/zoo.py RUNS [--train] [--data fashion_mnist] [--steps 1500] [--speeds FILE]

RUNS is a folder of run folders named after the models. With --train those that are missing are
trained first, each with its own defaults and the same number of steps; without, what is there is
shown. Which models there are, the registry says. Images a second are those of a report of
`vaezoo bench --mode train --json FILE`, if there is one: the runs may have shared their machine
with others.
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
from vaezoo.evaluation.pictures import save_pairs
from vaezoo.runs.run import Run

_SHOWN = 12


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
    # One that fails is missing from the page, and the others go on.
    subprocess.run(line, check=False)


def row(run: Run, speed: float | None, strips: Path) -> list[str]:
    """A model's line: what it is, how fast, how good, how it looks."""
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
    """Originals, their reconstructions below them, and a row of samples."""
    test = run.splits.test
    index = torch.linspace(0, len(test) - 1, _SHOWN).long()
    raw, y = test.get_batch(index)
    x = raw.float() / 255.0
    samples = run.sample(_SHOWN)
    shown = torch.cat([run.reconstruct(x, y), samples])
    # Pairs of rows: originals over reconstructions, and nothing over the samples.
    save_pairs(path, torch.cat([x, torch.full_like(samples, 0.55)]), shown, columns=_SHOWN)


def last_validation(run: Run) -> dict[str, Any]:
    return next(line["terms"] for line in reversed(run.metrics) if line["kind"] == "validation")


def substitute(run: Run) -> str:
    """What the model minimises where it has no ELBO: a number that compares with no other's."""
    if run.summary["elbo"] is not None:
        return ""
    terms = last_validation(run)
    name = next(n for n in ("distortion", "mse", *terms) if n in terms)
    return f"{name} {terms[name]:.1f} (not comparable)"


def used(run: Run) -> str:
    """How much of the latent is used: codes where there are any, else units."""
    terms = last_validation(run)
    if terms.get("perplexity") is not None:
        return f"perplexity {terms['perplexity']:.0f}"
    units = run.summary["active_units"]
    return "–" if units is None else f"{units} units"


def speed_of(report: dict[str, Any]) -> str:
    if not report["rows"]:
        return "Images a second were not measured yet."
    where = report["environment"]["device"]
    return f"Images a second: a training step at this size, by `vaezoo bench`, on {where}."


def number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def page(rows: list[list[str]], args: argparse.Namespace, report: dict[str, Any]) -> str:
    headings = ["model", "loss", "images/s", "ELBO, nats", "where it has none", "R²", "used", ""]
    table = [headings, ["---"] * len(headings), *rows]
    lines = ["| " + " | ".join(cells) + " |" for cells in table]
    return "\n".join(
        [
            "# The zoo on one data set",
            "",
            (
                f"Each model on `{args.data}` with its own defaults, {args.steps:,} steps of "
                f"{args.batch_size}, learning rate {args.lr:g} going down to 0: minutes, not the "
                "best that it can do. On held-out images; in a strip, originals, their "
                "reconstructions, and samples of the prior. An ELBO is in nats per image under "
                f"the model's own likelihood. {speed_of(report)}"
            ),
            "",
            (
                "Made by `vaezoo bench --mode train --image-size 28 --channels 1 --json "
                "benchmarks/results/zoo.json` and `python benchmarks/zoo.py RUNS --train`."
            ),
            "",
            *lines,
            "",
        ]
    )


if __name__ == "__main__":
    main()
