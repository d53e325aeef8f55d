"""Small trainings that cover what a checkpoint holds, and what they must come to."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HERE = Path(__file__).parent

COMMON = [
    *("--image-size", "16", "--batch-size", "16", "--epochs", "4", "--log-every", "4"),
    *("--device", "cpu"),
]  # 96 training examples: 6 steps an epoch, 24 in all; windows of 4 and 2 steps
SPRITES = ["--data", "sprites", "--examples", "120", "--test", "24"]
IMAGES = 128

MLP = ("--network", "mlp", "--hidden", "32")
DISCRIMINATOR = ("--discriminator-hidden", "32,32")

MODELS: dict[str, tuple[str, ...]] = {
    "vanilla": (*MLP, "--schedule", "cosine"),
    "vanilla-conv": (
        "--hidden",
        "8,8",
        "--augment",
        "flip,crop",
        "--binarize",
        "dynamic",
        "--grad-clip",
        "1",
    ),
    "patience": (*MLP, "--lr", "0.03", "--patience", "1", "--epochs", "6"),
    "skipping": (*MLP, "--on-nonfinite", "skip"),
    "dropping": (),
    "factor_vae": (*MLP, *DISCRIMINATOR),
    "aae": (*MLP, *DISCRIMINATOR),
    "vq_vae": ("--hidden", "8,8", "--codes", "16", "--prior-steps", "4", "--prior-width", "8"),
    "gumbel_vae": MLP,
    "vamp_prior": MLP,
    "rae": MLP,
}
"""What a job is called, and its options. A name before a dash is the model's."""

PLUGIN = {"dropping": f"{HERE / 'dropping.py'}:Dropping"}
"""Models that a file of ours brings."""

MODEL = {"patience": "vanilla", "skipping": "vanilla"}

DRAWN = ("gumbel_vae",)
"""Jobs that draw their data, and so have no store of decoded images."""


def draw_images(folder: Path) -> None:
    """A tree of small image files, always the same."""
    random = np.random.default_rng(7)
    for number in range(IMAGES):
        coarse = random.integers(0, 256, (4, 4), dtype=np.uint8)
        path = folder / str(number % 3) / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((16, 16), Image.Resampling.BILINEAR).save(path)


def start(job: str, out: Path, images: Path, *more: str) -> list[str]:
    """The command line that begins a job. images: where `draw_images` drew."""
    model = PLUGIN.get(job) or MODEL.get(job) or job.partition("-")[0]
    options = [*COMMON, *MODELS[job]]
    if "--epochs" in MODELS[job]:
        at = options.index("--epochs")
        del options[at : at + 2]
    data = SPRITES if job in DRAWN else ["--data", "folder", "--root", str(images)]
    return ["train", model, *data, *options, "--out", str(out), *more]


def resume(job: str, out: Path, *more: str) -> list[str]:
    """The command line that goes on with it."""
    plugin = ["--plugin", PLUGIN[job]] if job in PLUGIN else []
    return [*plugin, "train", "--resume", str(out), *more]


@dataclass(frozen=True)
class Result:
    """What a finished run holds that must be the same however it came about."""

    files: dict[str, str]
    metrics: list[dict[str, Any]]
    summary: dict[str, Any]

    def differs_from(self, other: Result) -> str:
        """What is not the same; "" if everything is."""
        for name in sorted(self.files.keys() | other.files.keys()):
            if self.files.get(name) != other.files.get(name):
                return f"{name} is not the same"
        for number, (a, b) in enumerate(zip(self.metrics, other.metrics, strict=False)):
            if a != b:
                return f"line {number + 1} of metrics.jsonl is {a}, not {b}"
        if len(self.metrics) != len(other.metrics):
            return f"metrics.jsonl has {len(self.metrics)} lines, not {len(other.metrics)}"
        return "" if self.summary == other.summary else "summary.json is not the same"


SAME = ("model.safetensors", "samples.png", "reconstructions.png", "curves.png")
OF_THE_CLOCK = ("images_per_second", "wall_seconds")


def result(out: Path) -> Result:
    """Read a finished run."""
    summary = json.loads((out / "summary.json").read_text())
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return Result(
        {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in SAME},
        [{k: v for k, v in line.items() if k not in OF_THE_CLOCK} for line in lines],
        {k: v for k, v in summary.items() if k not in OF_THE_CLOCK},
    )


def remains(out: Path) -> list[str]:
    """Temporary files that a finished run must not hold."""
    return [str(path.relative_to(out)) for path in out.rglob(".*.tmp")]
