"""Models that run in the page: ONNX files, and onnxruntime-web, which runs them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vaezoo import VaezooError
from vaezoo.errors import OptionError
from vaezoo.evaluation.latents import prior_mean, prior_quantiles, reject_discrete
from vaezoo.evaluation.pictures import value_range
from vaezoo.runs.run import Run
from vaezoo.runtime.device import seeded
from vaezoo_export.export import (
    TOLERANCE,
    Part,
    description,
    largest_difference,
    make_graph,
    onnx_bytes,
    onnx_model,
)

from .summary import RunSummary

RUNTIME_VARIABLE = "VAEZOO_ONNXRUNTIME_WEB"
_SCRIPT, _WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
_SLIDER_QUANTILES = (0.005, 0.995)
"""The range of a slider, in quantiles of the prior."""
_NUM_DRAWS = 24


@dataclass(frozen=True)
class OnnxRuntimeWeb:
    """onnxruntime-web: its script, and the WebAssembly file that the script loads."""

    script: bytes
    wasm: bytes


@dataclass(frozen=True)
class ExplorableRun:
    """A run whose decoder runs in the page.

    description: for the page's script, as JSON values. decoder, encoder: ONNX files. encoder is
    None where it cannot be exported; the description says why.
    """

    description: dict[str, Any]
    decoder: bytes
    encoder: bytes | None


def find_runtime(folder: Path | None) -> OnnxRuntimeWeb:
    """onnxruntime-web from an npm folder, or from the folder in VAEZOO_ONNXRUNTIME_WEB.

    OptionError, with what to do, if it is not there.
    """
    install = f"npm install onnxruntime-web, then --onnxruntime-web DIR or {RUNTIME_VARIABLE}=DIR"
    named = folder or Path(os.environ.get(RUNTIME_VARIABLE, ""))
    if named == Path():
        raise OptionError(f"--explore needs onnxruntime-web, which runs the model: {install}")
    for subfolder in ("", "dist", "onnxruntime-web/dist", "node_modules/onnxruntime-web/dist"):
        script, wasm = named / subfolder / _SCRIPT, named / subfolder / _WASM
        if script.is_file() and wasm.is_file():
            return OnnxRuntimeWeb(script.read_bytes(), wasm.read_bytes())
    raise OptionError(f"there is no onnxruntime-web in {named} (no {_SCRIPT}): {install}")


def check_names(asked: Sequence[str], names: Sequence[str]) -> list[str]:
    """The names of the runs to explore. OptionError for a name that no run has."""
    if "all" in asked:
        return list(names)
    for name in asked:
        if name not in names:
            raise OptionError(f"--explore {name}: the runs are called {', '.join(names)}")
    return list(dict.fromkeys(asked))


def make_explorable(run: Run, summary: RunSummary, number: int) -> ExplorableRun | None:
    """Export a run for the page and compare it with PyTorch; None and a remark if that fails."""
    try:
        reject_discrete(run.config.components.model.tags)
        if not run.data_spec.is_image or run.data_spec.channels not in (1, 3):
            raise OptionError(f"it draws grey and colour images, not {run.data_spec.describe()}")
        run.model.cpu()
        run.device = torch.device("cpu")
        decoder = _export_checked(run, "decoder")
    except VaezooError as error:
        summary.remarks.append(f"no explorer: {error}")
        return None
    encoder, no_encoder = None, ""
    try:
        if not run.data_spec.is_bounded:
            raise OptionError("image files have 8-bit levels, and this data has other values")
        encoder = _export_checked(run, "encoder")
    except VaezooError as error:
        no_encoder = str(error)
    return ExplorableRun(_describe(run, summary, number, no_encoder), decoder, encoder)


def _export_checked(run: Run, part: Part) -> bytes:
    graph = make_graph(run.model, part).eval()
    try:
        data = onnx_bytes(graph, run.model, part, description(run))
        difference = largest_difference(graph, onnx_model(data), run.model, part)
    except VaezooError:
        raise
    except Exception as error:  # exporters raise anything
        reason = " ".join(str(error).split())[:120]
        raise OptionError(f"its {part} cannot be exported: {reason}") from error
    if not difference <= TOLERANCE:
        raise OptionError(f"its {part} differs from PyTorch by {difference:.2g}")
    return data


@torch.no_grad()
def _describe(run: Run, summary: RunSummary, number: int, no_encoder: str) -> dict[str, Any]:
    model, data = run.model, run.data_spec
    first = run.example("0")
    label = max(0, 0 if first.y is None else int(first.y)) if model.conditional else None
    low, high = prior_quantiles(model, torch.tensor(_SLIDER_QUANTILES), label).flatten(1)
    kls = {latent.number: latent.kl for latent in summary.latents}
    has_kl = all(kl is not None for kl in kls.values())
    information = {z.number: (z.kl if has_kl else z.variance) or 0.0 for z in summary.latents}
    order = sorted(range(len(low)), key=lambda n: -information.get(n, 0.0))
    with seeded(0, torch.device("cpu")):
        y = None if label is None else torch.full((_NUM_DRAWS,), label)
        prior = model.sampling_prior(y)
        draws = prior.sample() if prior.batch_shape else prior.sample(torch.Size((_NUM_DRAWS,)))
    return {
        "name": summary.name,
        "run": number,
        "shape": list(data.shape),
        "domain": data.domain,
        "value_range": value_range(data),
        "latent_shape": list(model.latent_shape),
        "latents": [
            {"n": n, "kl": kls.get(n), "low": _round(low[n]), "high": _round(high[n])}
            for n in order
        ],
        "first": [_round(v) for v in run.encode_example(first, label).flatten()],
        "label": label,
        "center": [_round(v) for v in prior_mean(model, label).flatten()],
        "draws": [[_round(v) for v in draw] for draw in draws.flatten(1)],
        "class_names": list(data.class_names) if model.conditional else [],
        "encodes": not no_encoder,
        "why_not": no_encoder,
    }


def _round(value: torch.Tensor) -> float:
    return round(float(value), 5)
