"""What a report says of runs, from their folders; what cannot be read is left out, and said."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vaezoo.checkpoint.folder import RunFolder, metrics_line
from vaezoo.config import load_config
from vaezoo.errors import RunError, VaezooError
from vaezoo.evaluation.evaluate import Evaluation
from vaezoo.evaluation.latents import Survey
from vaezoo.evaluation.metric import Tell, silent
from vaezoo.evaluation.strips import to_rgb
from vaezoo.evaluation.traversal import Traversal
from vaezoo.io import read_json
from vaezoo.runs.run import Run

TRAVERSED = 8
_STEPS = 9
_LARGEST_PICTURE = 8 * 2**20

_TRAINING = ("images_per_second", "wall_seconds", "steps", "parameters")
_FLAT = (
    "elbo",
    "log_likelihood",
    "bits_per_dim",
    "rate",
    "distortion",
    "active_units",
    "mse",
    "psnr",
    "ssim",
    "reconstruction_r2",
)
"""Numbers of summary.json; those under `metrics` come on top, as far as they are other ones."""


@dataclass(frozen=True)
class Number:
    """value: None where there is none, and note says why.

    comparable: numbers of one metric may be ranked if these words are the same; "" if not known.
    """

    value: float | None
    note: str = ""
    spread: float | None = None
    comparable: str = ""


@dataclass(frozen=True)
class Latent:
    """kl: nats, None where the model's KL is no sum over latents.

    variance: of the posterior's means, None where the latents are categories.
    """

    number: int
    kl: float | None
    variance: float | None


@dataclass(frozen=True)
class Strip:
    """One row of a traversal as a PNG."""

    number: int
    kl: float | None
    values: list[float]
    png: bytes


@dataclass
class RunFacts:
    """All that a report shows of one run. remarks: what is not there, and why."""

    name: str
    model: str = ""
    loss: str = ""
    data: str = ""
    group: str = ""
    """Runs of one group were trained on the same data: their curves go in one chart."""
    likelihood: str = ""
    config: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By section, as config.yaml has it; `options` is the same by one name each."""
    options: dict[str, Any] = field(default_factory=dict)
    numbers: dict[str, Number] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    latents: list[Latent] = field(default_factory=list)
    latents_from: str = ""
    samples: bytes | None = None
    reconstructions: bytes | None = None
    strips: list[Strip] = field(default_factory=list)
    strips_of: str = ""
    no_strips: str = ""
    """Why there are no traversals: one of the remarks."""
    remarks: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures and the curves."""
        return {
            "name": self.name,
            "model": self.model,
            "loss": self.loss,
            "data": self.data,
            "options": self.options,
            "numbers": {name: vars(number) for name, number in self.numbers.items()},
            "latents": [vars(latent) for latent in self.latents],
            "remarks": self.remarks,
        }


Opened = Callable[[Run, RunFacts], None]
"""Called with each run whose model could be opened."""


def gather(
    paths: Sequence[Path],
    device: str = "auto",
    *,
    metrics: Sequence[str] = (),
    importance_samples: int = 0,
    tell: Tell = silent,
    opened: Opened = lambda run, facts: None,
) -> list[RunFacts]:
    """Read runs. RunError if a path is no run folder; anything less is a remark.

    metrics: measure these anew, as `evaluate` does; without, numbers are those of summary.json.
    """
    folders = [RunFolder.existing(path) for path in paths]
    found = []
    for i, (folder, name) in enumerate(zip(folders, names_of(paths), strict=True)):
        tell(name, i, len(folders))
        facts = RunFacts(name)
        _read_folder(folder, facts)
        try:
            run = Run(folder.path, device)
            if metrics:
                result = run.evaluate(
                    metrics=metrics,
                    importance_samples=importance_samples,
                    tell=_prefixed(name, tell),
                )
                facts.numbers = {**facts.numbers, **_measured(result)}
            _look_inside(run, facts)
            opened(run, facts)
        except VaezooError as error:
            facts.remarks.append(f"its model was not opened: {_one_line(error, folder)}")
        except Exception as error:  # a stranger's plugin raises what it likes
            facts.remarks.append(
                f"its model was not opened: {type(error).__name__}: {_one_line(error, folder)}"
            )
        found.append(facts)
    tell("runs", len(folders), len(folders))
    return found


def _prefixed(name: str, tell: Tell) -> Tell:
    return lambda what, done, total: tell(f"{name}: {what}", done, total)


def names_of(paths: Sequence[Path]) -> list[str]:
    """A name for each: its folder's, with as many of the folders above as it takes to differ."""
    parts = [path.resolve().parts for path in paths]
    if len(set(parts)) < len(parts):
        raise RunError("a run is named twice")
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-depth:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    raise AssertionError("different paths differ")


def _read_folder(folder: RunFolder, facts: RunFacts) -> None:
    """What needs no model."""
    steps = (_read_config, _read_record, _read_summary, _read_history, _read_pictures)
    for step in steps:
        try:
            step(folder, facts)
        except (VaezooError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            facts.remarks.append(f"not read: {_one_line(error, folder)}")


def _read_config(folder: RunFolder, facts: RunFacts) -> None:
    """As text, without asking any plugin: its own may not be here."""
    facts.config = config = load_config(folder.config)
    chosen = {
        section: str(config.get(section, {}).get("name", ""))
        for section in ("model", "loss", "data")
    }
    facts.model, facts.loss, facts.data = chosen["model"], chosen["loss"], chosen["data"]
    facts.options = {
        f"{section}.{key}": value
        for section, values in config.items()
        for key, value in values.items()
        if key != "name"
    }


def _read_record(folder: RunFolder, facts: RunFacts) -> None:
    data = read_json(folder.record)["data"]
    binarize = facts.options.get("data.binarize", "")
    facts.group = f"{facts.data} {data['fingerprint']} {binarize}"
    facts.likelihood = _likelihood(facts, str(data["spec"]["domain"]))


def _likelihood(facts: RunFacts, domain: str) -> str:
    """log p(x) of which measure, as far as the options tell: distortions of one compare."""
    name = str(facts.options.get("model.likelihood", "of its own"))
    if name == "auto":
        name = "bernoulli" if domain == "binary" else "gaussian"
    if name.startswith("gaussian"):
        return "density"
    if name == "bernoulli":
        return "probability" if domain == "binary" else "cross-entropy"
    return name


def _read_summary(folder: RunFolder, facts: RunFacts) -> None:
    if not folder.summary.exists():
        facts.remarks.append("it has no summary.json: its training has not ended")
        return
    summary = read_json(folder.summary)
    notes = summary.get("notes", {})
    for name in _FLAT:
        if name in summary:
            facts.numbers[name] = Number(number_in(summary[name]), str(notes.get(name, "")))
    for name, entry in summary.get("metrics", {}).items():
        facts.numbers[str(name)] = Number(
            number_in(entry["value"]),
            str(entry.get("note", "")),
            number_in(entry.get("spread")),
            str(entry.get("comparable", "")),
        )
    for name in _TRAINING:
        if name in summary:
            facts.numbers[name] = Number(number_in(summary[name]))
    for entry in summary.get("latents", []):
        variance = number_in(entry["mean_variance"])
        facts.latents.append(Latent(int(entry["latent"]), number_in(entry["rate"]), variance))
    if facts.latents:
        facts.latents_from = "of its summary: all test examples"


def _read_history(folder: RunFolder, facts: RunFacts) -> None:
    """Lines of metrics.jsonl, those that are such."""
    damaged = 0
    for text in folder.metrics_lines():
        try:
            line = metrics_line(text)
        except ValueError:
            damaged += 1
            continue
        terms = {name: number_in(value) for name, value in line["terms"].items()}
        facts.history.append({"kind": line["kind"], "step": line["step"], "terms": terms})
    if damaged:
        facts.remarks.append(
            f"{damaged} line{'s' if damaged > 1 else ''} of {folder.metrics.name} could not be read"
        )


def _read_pictures(folder: RunFolder, facts: RunFacts) -> None:
    facts.samples = _read_png(folder.samples, facts)
    facts.reconstructions = _read_png(folder.reconstructions, facts)


def _read_png(path: Path, facts: RunFacts) -> bytes | None:
    """A picture drawn again from its pixels: nothing else that the file holds gets on the page."""
    if not path.is_file():
        return None
    if path.stat().st_size > _LARGEST_PICTURE:
        facts.remarks.append(f"{path.name} is larger than {_LARGEST_PICTURE >> 20} MiB")
        return None
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            return png(picture.convert("RGB"))
    except (OSError, ValueError, Image.DecompressionBombError):
        facts.remarks.append(f"{path.name} is no picture that can be read")
        return None


def _look_inside(run: Run, facts: RunFacts) -> None:
    """What the model itself has to say: latents, and what they change."""
    latents = run.survey()
    if not facts.latents and "discrete" not in run.config.choice.model.tags:
        facts.latents = _latents(latents)
        facts.latents_from = f"measured for this page on {len(latents.index):,} test examples"
    try:
        run.check_has_pictures()
        # From one example, the same for all runs on this data: a prior's mean may be no picture.
        found = run.traverse(TRAVERSED, steps=_STEPS, start="0", latents=latents)
    except VaezooError as error:
        facts.no_strips = f"no traversals: {_one_line(error, run.folder)}"
        facts.remarks.append(facts.no_strips)
        return
    facts.strips = _strips(found)
    by = "KL" if found.order == "kl" else "the spread of the posteriors"
    facts.strips_of = f"from the first test example, by {by}"


def _latents(latents: Survey) -> list[Latent]:
    variances = latents.spread.square().tolist()
    kls: list[float | None] = [None] * len(variances)
    if latents.order == "kl" and latents.kl is not None:
        kls = latents.kl.tolist()
    return [Latent(i, kl, v) for i, (kl, v) in enumerate(zip(kls, variances, strict=True))]


def _strips(found: Traversal) -> list[Strip]:
    return [Strip(row.number, row.kl, row.values, png(_strip(row.images))) for row in found.rows]


def _strip(images: Tensor) -> Image.Image:
    """Images side by side, without a gap."""
    across = torch.cat(list(to_rgb(images)), dim=1)
    return Image.fromarray(across.numpy())


def _measured(result: Evaluation) -> dict[str, Number]:
    return {
        name: Number(n.value, n.note, n.spread, n.comparable) for name, n in result.metrics.items()
    }


def number_in(value: object) -> float | None:
    """A finite number, or None: a run folder may hold anything."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def data_uri(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def _one_line(error: Exception, folder: RunFolder) -> str:
    """What went wrong, without the folders of the machine that it went wrong on."""
    text = " ".join(str(error).split())
    for path in (folder.path.resolve(), folder.path):
        text = text.replace(f"{path}/", "").replace(str(path), folder.path.name)
    return text
