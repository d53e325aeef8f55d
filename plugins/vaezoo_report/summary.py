"""Read what a report shows of each run. What cannot be read becomes a remark."""

from __future__ import annotations

import io
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from vaezoo import DataSpec, VaezooError, load_run
from vaezoo.checkpoint.folder import RunFolder, metrics_line
from vaezoo.config import load_config
from vaezoo.errors import RunError
from vaezoo.evaluation.metric import MetricResult, no_progress
from vaezoo.evaluation.pictures import (
    ROW_SLICES,
    as_images,
    check_drawable,
    describe_picture,
    save_examples,
    to_rgb,
)
from vaezoo.evaluation.plots import draw_signals
from vaezoo.io import read_json
from vaezoo.runs.run import Run
from vaezoo.runtime import OnProgress

_SAMPLES = 64
_ROWS, _STEPS = 8, 9
"""Of a traversal: latents, and values of each."""
_MAX_PICTURE_BYTES = 8 * 2**20

_TRAINING = ("images_per_second", "wall_seconds", "steps", "parameters")
_METRICS = ("elbo", "log_likelihood", "bits_per_dim", "rate", "distortion", "active_units")
_QUALITY = ("mse", "psnr", "ssim", "reconstruction_r2")
"""These three are the numbers at the top level of summary.json; it has others in `metrics`."""


@dataclass(frozen=True)
class Latent:
    """One latent. kl: nats, None where the model's KL is not a sum over latents.

    variance: of the posterior means; None where the latents are categories.
    """

    number: int
    kl: float | None
    variance: float | None


@dataclass(frozen=True)
class TraversalRow:
    """The images of one latent's traversal, as a PNG. kl: nats. values: of the latent."""

    number: int
    kl: float | None
    values: list[float]
    png: bytes


@dataclass
class RunSummary:
    """All that a report shows of one run.

    group: runs of one group were trained on the same data; their curves share a chart.
    config: by section, as in config.yaml; options: the same, by `section.name`.
    numbers: by name; `comparable` is "" if it is not known. history: of metrics.jsonl.
    latents_source, traversal_source: where these come from. remarks: what is missing, and why.
    samples, reconstructions: PNG files. samples_title: what the samples were drawn from.
    value_range: their black and white; "" for 0 and 1.
    """

    name: str
    model: str = ""
    loss: str = ""
    data: str = ""
    group: str = ""
    likelihood: str = ""
    config: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    numbers: dict[str, MetricResult] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    latents: list[Latent] = field(default_factory=list)
    latents_source: str = ""
    samples: bytes | None = None
    samples_title: str = "Samples of the prior"
    reconstructions: bytes | None = None
    value_range: str = ""
    traversal: list[TraversalRow] = field(default_factory=list)
    traversal_source: str = ""
    no_traversal: str = ""
    remarks: list[str] = field(default_factory=list)

    @property
    def has_pictures(self) -> bool:
        """Whether there is anything to show in its card, or a reason why not."""
        return bool(self.samples or self.reconstructions or self.traversal or self.no_traversal)

    def to_dict(self) -> dict[str, Any]:
        """Everything except pictures and curves, for JSON."""
        keys = ("value", "uncertainty", "note", "comparable")
        return {
            **{name: getattr(self, name) for name in ("name", "model", "loss", "data", "options")},
            "numbers": {
                name: {key: getattr(number, key) for key in keys}
                for name, number in self.numbers.items()
            },
            "latents": [vars(latent) for latent in self.latents],
            "remarks": self.remarks,
        }


def read_runs(
    paths: Sequence[Path],
    device: str = "auto",
    *,
    root: Path | None = None,
    metrics: Sequence[str] = (),
    importance_samples: int = 0,
    sampler: str | None = None,
    on_progress: OnProgress = no_progress,
    on_open: Callable[[Run, RunSummary], None] = lambda run, summary: None,
) -> list[RunSummary]:
    """Read runs. RunError if a path is not a run folder, or if a run has not this sampler.

    Anything else becomes a remark.

    root: where their data lies, if it moved.
    metrics: measure these again, as `evaluate` does; by default numbers are those of summary.json.
    sampler: draw new samples from it, and measure with it; by default they are those of the run.
    on_open: called with each run whose model could be loaded.
    """
    if sampler is not None:
        for path in paths:
            load_run(path, device, sampler=sampler)
    folders = [RunFolder.existing(path) for path in paths]
    summaries = [RunSummary(name) for name in names_of(paths)]
    for i, (folder, summary) in enumerate(zip(folders, summaries, strict=True)):
        on_progress(summary.name, i, len(folders))
        reasons, run = _read_folder(folder, summary), None
        try:
            run = Run(folder.path, device, root=root)
            if sampler is not None:
                run = run.with_sampler(sampler)
                _draw_samples(run, sampler, summary)
            if metrics:
                result = run.evaluate(
                    metrics=metrics,
                    importance_samples=importance_samples,
                    on_progress=_with_prefix(summary.name, on_progress),
                )
                summary.numbers |= result.metrics
            _read_model(run, summary)
            on_open(run, summary)
        except Exception as error:  # a plugin may raise anything
            kind = "" if isinstance(error, VaezooError) else f"{type(error).__name__}: "
            reason = kind + _one_line(error, folder)
            if reason not in reasons:
                loaded = run is not None and "model" in vars(run)
                what = "latents were not measured" if loaded else "model was not loaded"
                summary.remarks.append(f"its {what}: {reason}")
    on_progress("runs", len(folders), len(folders))
    return summaries


def _with_prefix(name: str, on_progress: OnProgress) -> OnProgress:
    return lambda what, done, total: on_progress(f"{name}: {what}", done, total)


def names_of(paths: Sequence[Path]) -> list[str]:
    """A name for each run: its folder's, with as many parent folders as make them differ."""
    parts = [path.resolve().parts for path in paths]
    if len(set(parts)) < len(parts):
        raise RunError("a run is given twice")
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-depth:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    raise AssertionError("different paths have different names")


def _read_folder(folder: RunFolder, summary: RunSummary) -> list[str]:
    """Read what needs no model. Returns why parts of it were not read; each is a remark too."""
    reasons = []
    for step in (_read_config, _read_metadata, _read_summary, _read_history, _read_pictures):
        try:
            step(folder, summary)
        except (VaezooError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reasons.append(_one_line(error, folder))
            summary.remarks.append(f"not read: {reasons[-1]}")
    return reasons


def _read_config(folder: RunFolder, summary: RunSummary) -> None:
    """As text, without the plugins: they may not be installed here."""
    summary.config = config = load_config(folder.config)
    for section in ("model", "likelihood", "loss", "data"):
        setattr(summary, section, str(config.get(section, {}).get("name", "")))
    summary.options = {
        f"{section}.{key}": value
        for section, values in config.items()
        for key, value in values.items()
        if key != "name"
    }


def _read_metadata(folder: RunFolder, summary: RunSummary) -> None:
    data = folder.read_metadata()["data"]
    binarize = summary.options.get("data.binarize", "")
    summary.group = f"{summary.data} {data['fingerprint']} {binarize}"
    spec = DataSpec.from_dict(data["spec"])
    summary.value_range = describe_picture(spec)


def _read_summary(folder: RunFolder, summary: RunSummary) -> None:
    if not folder.summary.exists():
        summary.remarks.append(
            "it has no summary.json: it is not trained to its end, or was imported"
        )
        return
    content = read_json(folder.summary)
    notes = content.get("notes", {})
    for name in (*_METRICS, *_QUALITY, *_TRAINING):
        if name in content:
            note = "" if name in _TRAINING else str(notes.get(name, ""))
            summary.numbers[name] = MetricResult(number_in(content[name]), note=note)
    for name, entry in content.get("metrics", {}).items():
        summary.numbers[str(name)] = MetricResult(
            number_in(entry["value"]),
            number_in(entry.get("uncertainty")),
            note=str(entry.get("note", "")),
            comparable=str(entry.get("comparable", "")),
        )
    for entry in content.get("latents", []):
        variance = number_in(entry["mean_variance"])
        summary.latents.append(Latent(int(entry["latent"]), number_in(entry["rate"]), variance))
    if summary.latents:
        summary.latents_source = "from summary.json: all test examples"


def _read_history(folder: RunFolder, summary: RunSummary) -> None:
    """The readable lines of metrics.jsonl."""
    damaged = 0
    for text in folder.metrics_lines():
        try:
            line = metrics_line(text)
        except ValueError:
            damaged += 1
        else:
            terms = {name: number_in(value) for name, value in line["terms"].items()}
            summary.history.append({"kind": line["kind"], "step": line["step"], "terms": terms})
    if damaged:
        lines = "lines" if damaged > 1 else "line"
        summary.remarks.append(f"{damaged} {lines} of {folder.metrics.name} could not be read")


def _read_pictures(folder: RunFolder, summary: RunSummary) -> None:
    summary.samples = _read_png(folder.samples, summary)
    summary.reconstructions = _read_png(folder.reconstructions, summary)


def _draw_samples(run: Run, sampler: str, summary: RunSummary) -> None:
    """New samples in place of those that training has drawn from the run's own prior."""
    summary.samples_title = f"Samples of the sampler {sampler}"
    summary.samples = None
    if run.data_spec.ndim:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, run.folder.samples.name)
            save_examples(path, run.data_spec, run.sample(_SAMPLES))
            summary.samples = _read_png(path, summary)


def _read_png(path: Path, summary: RunSummary) -> bytes | None:
    """The picture encoded again from its pixels, so that only pixels reach the page."""
    if not path.is_file():
        return None
    if path.stat().st_size > _MAX_PICTURE_BYTES:
        summary.remarks.append(f"{path.name} is larger than {_MAX_PICTURE_BYTES >> 20} MiB")
        return None
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            return _png(picture.convert("RGB"))
    except (OSError, ValueError, Image.DecompressionBombError):
        summary.remarks.append(f"{path.name} is not a readable PNG file")
        return None


def _read_model(run: Run, summary: RunSummary) -> None:
    """Latents and traversals, computed with the model."""
    stats = run.latent_statistics()
    if not summary.latents and "discrete" not in run.config.components.model.tags:
        kl = stats.kl.tolist() if stats.order == "kl" and stats.kl is not None else None
        summary.latents = [
            Latent(i, kl[i] if kl else None, variance)
            for i, variance in enumerate(stats.std.square().tolist())
        ]
        summary.latents_source = f"measured for this page on {len(stats.index):,} test examples"
    try:
        check_drawable(run.data_spec)
        # From the first test example for all runs: a prior's mean may not decode to a picture.
        found = run.traverse(_ROWS, steps=_STEPS, start="0", latents=stats)
    except VaezooError as error:
        summary.no_traversal = f"no traversals: {_one_line(error, run.folder)}"
        summary.remarks.append(summary.no_traversal)
        return
    for row in found.rows:
        if run.data_spec.ndim == 1:
            png = draw_signals([("", row.images)])
        else:
            images = to_rgb(as_images(row.images, run.data_spec, ROW_SLICES, axis=-2))
            png = _png(Image.fromarray(torch.cat(list(images), dim=1).numpy()))
        summary.traversal.append(TraversalRow(row.number, row.kl, row.values, png))
    by = "KL" if found.order == "kl" else "the standard deviation of the posterior means"
    summary.traversal_source = f"from the first test example, by {by}"


def number_in(value: object) -> float | None:
    """A finite number, or None: a run folder may hold anything."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _one_line(error: Exception, folder: RunFolder) -> str:
    """The error without line breaks and without the absolute path of the folder."""
    text = " ".join(str(error).split())
    for path in (folder.path.resolve(), folder.path):
        text = text.replace(f"{path}/", "").replace(str(path), folder.path.name)
    return text
