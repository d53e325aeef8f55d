"""What a written folder computes: diffusers loads it, or the weights are read again here."""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vaezoo import BaseVAE
from vaezoo.checkpoint.format import load_into, load_weights
from vaezoo.errors import RunError

from .config import ModelConfig
from .names import WEIGHTS
from .weights import to_own

_BATCH, _POSITIONS = 2, 4
"""Examples that are compared, and the sides of their latents: not those of the data."""

Parts = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]
"""From examples in [0, 1] to what the bottleneck gets; from latents to values in [-1, 1]."""


@torch.no_grad()
def compare(model: BaseVAE, config: ModelConfig, folder: Path) -> tuple[float, str]:
    """The largest difference between a model and the folder written of it, in float64, and to what.

    To diffusers if it is installed, else to PyTorch with the weights of the file. RunError if
    diffusers cannot load the folder, or the difference is above the tolerance.
    """
    ours = _own_parts(model)
    try:
        with _quiet():
            diffusers: Any = importlib.import_module("diffusers")
    except Exception:  # it is not installed, or does not fit what it needs
        again, path = copy.deepcopy(model), folder / WEIGHTS
        written = to_own(load_weights(path), config.renamed)
        load_into(again, {**model.state_dict(), **written}, path)
        theirs, what = _own_parts(again), "PyTorch"
    else:
        theirs = config.parts_of(_load(getattr(diffusers, config.class_name), folder))
        what = f"diffusers {diffusers.__version__}"
    generator = torch.Generator().manual_seed(0)
    side = _POSITIONS * config.factor
    x = torch.rand(_BATCH, config.in_channels, side, side + config.factor, generator=generator)
    z = config.example_latents(model, (_BATCH, _POSITIONS, _POSITIONS + 1), generator)
    difference = max(
        _difference(own(given.double()), their(given.double()))
        for own, their, given in zip(ours, theirs, (x, z), strict=True)
    )
    if not difference <= config.tolerance:
        raise RunError(
            f"the model in {what} differs from that of the run by {difference:.2g}: nothing was "
            "written"
        )
    return difference, what


def _own_parts(model: Any) -> Parts:
    """The encoder and the decoder in float64; the model stays as it is."""
    encoder, decoder = copy.deepcopy((model.encoder, model.decoder))
    return encoder.double().eval(), decoder.double().eval()


def _load(cls: Any, folder: Path) -> nn.Module:
    """The model of a class of diffusers, in float64."""
    try:
        with _quiet():
            model: nn.Module = cls.from_pretrained(
                str(folder), local_files_only=True, low_cpu_mem_usage=False
            )
    except Exception as error:  # it raises anything
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise RunError(f"diffusers cannot load what would be written: {reason}") from error
    return model.eval().double()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide what diffusers prints."""
    sink = io.StringIO()
    with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        yield


def _difference(ours: Tensor, theirs: Tensor) -> float:
    scale = max(1.0, float(ours.abs().max()))
    difference = float((ours - theirs).abs().max()) / scale
    return difference if math.isfinite(difference) else math.inf
