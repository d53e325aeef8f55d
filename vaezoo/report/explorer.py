"""Decoders that run in the page: ONNX models, and the runtime that runs them there."""

from __future__ import annotations

import base64
import gzip
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vaezoo.errors import OptionError, VaezooError
from vaezoo.evaluation.latents import center, quantiles
from vaezoo.evaluation.traversal import refuse_codes
from vaezoo.export.files import TOLERANCE, description, largest_difference, onnx_answer, onnx_bytes
from vaezoo.export.graphs import Part, make_graph
from vaezoo.report.facts import RunFacts
from vaezoo.runs.run import Run
from vaezoo.runtime.seed import seeded

RUNTIME = "VAEZOO_ONNXRUNTIME_WEB"
_SCRIPT, _WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
_FAR = (0.005, 0.995)
"""How far a slider goes: these quantiles of the prior."""
_DRAWS = 24


@dataclass(frozen=True)
class Runtime:
    """onnxruntime-web: its script, and the WebAssembly that the script loads."""

    script: bytes
    wasm: bytes


@dataclass(frozen=True)
class Explorable:
    """A run whose decoder runs in the page. encoder: None where it cannot, about says why."""

    about: dict[str, Any]
    decoder: bytes
    encoder: bytes | None


def find_runtime(folder: Path | None) -> Runtime:
    """The runtime out of an npm folder, or out of what VAEZOO_ONNXRUNTIME_WEB names.

    OptionError, with what to do, when it is not there.
    """
    how = f"npm install onnxruntime-web, then --onnxruntime-web DIR or {RUNTIME}=DIR"
    named = folder or (Path(os.environ[RUNTIME]) if os.environ.get(RUNTIME) else None)
    if named is None:
        raise OptionError(f"--explore needs onnxruntime-web, which runs the model: {how}")
    for place in ("", "dist", "onnxruntime-web/dist", "node_modules/onnxruntime-web/dist"):
        script, wasm = named / place / _SCRIPT, named / place / _WASM
        if script.is_file() and wasm.is_file():
            return Runtime(script.read_bytes(), wasm.read_bytes())
    raise OptionError(f"there is no onnxruntime-web in {named} (no {_SCRIPT}): {how}")


def check_names(asked: Sequence[str], names: Sequence[str]) -> list[str]:
    """The runs to explore: those asked for, or all. OptionError for a name that is no run's."""
    if "all" in asked:
        return list(names)
    for name in asked:
        if name not in names:
            raise OptionError(f"--explore {name}: the runs are called {', '.join(names)}")
    return list(dict.fromkeys(asked))


def make_explorable(run: Run, facts: RunFacts, number: int) -> Explorable | None:
    """The run for the page, held against PyTorch; None, and a remark, where it cannot be."""
    try:
        refuse_codes(run.config.choice.model.tags)
        run.check_has_pictures()
        run.model.cpu()
        run.device = torch.device("cpu")
        decoder = _checked(run, "decoder")
    except VaezooError as error:
        facts.remarks.append(f"no explorer: {error}")
        return None
    encoder, why = None, ""
    try:
        encoder = _checked(run, "encoder")
    except VaezooError as error:
        why = str(error)
    return Explorable(_about(run, facts, number, why), decoder, encoder)


def packed(content: bytes) -> str:
    """As text for the page: gzip, then base64. The same for the same bytes."""
    return base64.b64encode(gzip.compress(content, compresslevel=9, mtime=0)).decode()


def _checked(run: Run, part: Part) -> bytes:
    graph = make_graph(run.model, part).eval()
    try:
        data = onnx_bytes(graph, run.model, part, description(run))
        difference = largest_difference(graph, onnx_answer(data), run.model, part)
    except VaezooError:
        raise
    except Exception as error:  # exporters raise anything
        reason = " ".join(str(error).split())[:120]
        raise OptionError(f"its {part} cannot be exported: {reason}") from error
    if not difference <= TOLERANCE:
        raise OptionError(f"its {part} answers otherwise than in PyTorch, by {difference:.2g}")
    return data


@torch.no_grad()
def _about(run: Run, facts: RunFacts, number: int, why_no_encoder: str) -> dict[str, Any]:
    model, data = run.model, run.data_spec
    first = run.example("0")
    label = None
    if model.conditional:
        label = 0 if first.y is None else max(0, int(first.y))
    low, high = quantiles(model, torch.tensor(_FAR), label).flatten(1)
    kls = {latent.number: latent.kl for latent in facts.latents}
    known = all(kl is not None for kl in kls.values())
    by = {
        latent.number: (latent.kl if known else latent.variance) or 0.0 for latent in facts.latents
    }
    order = sorted(range(len(low)), key=lambda n: -by.get(n, 0.0))
    with seeded(0, torch.device("cpu")):
        y = None if label is None else torch.full((_DRAWS,), label)
        prior = model.prior(y)
        draws = prior.sample() if prior.batch_shape else prior.sample(torch.Size((_DRAWS,)))
    return {
        "name": facts.name,
        "run": number,
        "shape": list(data.shape),
        "domain": data.domain,
        "latent_shape": list(model.latent_shape),
        "latents": [
            {"n": n, "kl": kls.get(n), "low": _round(low[n]), "high": _round(high[n])}
            for n in order
        ],
        "first": [_round(v) for v in run.encode_example(first, label).flatten()],
        "label": label,
        "center": [_round(v) for v in center(model, label).flatten()],
        "draws": [[_round(v) for v in draw] for draw in draws.flatten(1)],
        "class_names": list(data.class_names) if model.conditional else [],
        "encodes": not why_no_encoder,
        "why_not": why_no_encoder,
    }


def _round(value: torch.Tensor) -> float:
    return round(float(value), 5)
