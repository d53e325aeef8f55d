"""Export encoder and decoder to files, and compare each with PyTorch before it is kept."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from vaezoo import BaseVAE
from vaezoo.checkpoint.format import load_into, load_weights
from vaezoo.data.base import Standardizer
from vaezoo.errors import RunError
from vaezoo.io import atomic_write, require_extra
from vaezoo.models.distributions import mode
from vaezoo.runs.build import build_model
from vaezoo.runs.run import Run
from vaezoo.runtime.device import no_validate_args

Part = Literal["encoder", "decoder"]
PARTS: tuple[Part, ...] = ("encoder", "decoder")


class EncoderGraph(nn.Module):
    """The encoder: x [batch, *data.shape], in the data's units, and y [batch] if it takes classes.

    Outputs: z [batch, *latent_shape], the posterior's mode; for a Gaussian posterior also its
    standard deviation `scale`, in the same shape.
    """

    def __init__(self, model: BaseVAE) -> None:
        super().__init__()
        self.model = model
        with torch.no_grad():
            posterior = model.encode(*example_inputs(model, "encoder", 2))
        base = posterior.base_dist if isinstance(posterior, Independent) else None
        self.standardizer = Standardizer(model.data).to(model.device)
        self.gaussian = isinstance(base, Normal)
        self.output_names = ("z", "scale") if self.gaussian else ("z",)

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, ...]:
        posterior = self.model.encode(self.standardizer(x), y)
        z = mode(posterior)
        return (z, posterior.stddev) if self.gaussian else (z,)


class DecoderGraph(nn.Module):
    """The decoder: z [batch, *latent_shape] and y to the mean x [batch, *data.shape]."""

    output_names = ("x",)

    def __init__(self, model: BaseVAE) -> None:
        super().__init__()
        self.model = model
        self.standardizer = Standardizer(model.data).to(model.device)

    def forward(self, z: Tensor, y: Tensor | None = None) -> tuple[Tensor, ...]:
        return (self.standardizer.inverse(self.model.decode(z, y).mean),)


Graph = EncoderGraph | DecoderGraph


def make_graph(model: BaseVAE, part: Part) -> Graph:
    """The module of one part of a model, whose inputs and outputs are tensors."""
    return EncoderGraph(model) if part == "encoder" else DecoderGraph(model)


def example_inputs(model: BaseVAE, part: Part, n: int) -> tuple[Tensor, ...]:
    """Inputs for a batch of n, the same at each call, on the model's device.

    An exported program takes exactly the inputs that it was traced with: y only if the model is
    conditional.
    """
    generator = torch.Generator().manual_seed(n)
    if part == "encoder":
        x = torch.rand(n, *model.data.shape, generator=generator)
        inputs = [Standardizer(model.data).inverse(x)]
    else:
        inputs = [torch.randn(n, *model.latent_shape, generator=generator)]
    if model.conditional:
        inputs.append(torch.arange(n) % max(1, len(model.data.class_names)))
    return tuple(tensor.to(model.device) for tensor in inputs)


Format = Literal["onnx", "torch-export"]
"""The formats of programs."""

TOLERANCE = 1e-4
"""Largest allowed difference from PyTorch, relative to the largest value if that is above 1."""
_CHECKED_BATCH_SIZES = (1, 2, 5)
_MAX_REASON_LENGTH = 160

Model = Callable[..., Sequence[Tensor]]
"""A function of the inputs that `example_inputs` gives."""


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    part: None for the whole model. inputs: shape by name. difference: the largest from
    compared_with, over batches of several sizes; see TOLERANCE. notes: lines for the user.
    """

    path: Path
    part: Part | None
    inputs: dict[str, list[int | str]]
    outputs: list[str]
    difference: float
    compared_with: str = "PyTorch"
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "path": str(self.path)}


def check_extra(option: str = "--format onnx") -> None:
    """MissingExtraError unless the packages that write and check ONNX are installed.

    option: the option that needs them, for the message.
    """
    for module in ("onnx", "onnxscript", "onnxruntime"):
        require_extra(module, option, "export")


def export_onnx(run: Run, path: Path, part: Part) -> list[Exported]:
    """Export a part to ONNX. MissingExtraError without the extra `export`; see `export_part`."""
    check_extra()
    return [export_part(run, part, "onnx", path)]


def export_program(run: Run, path: Path, part: Part) -> list[Exported]:
    """Export a part as a program of torch.export; see `export_part`."""
    return [export_part(run, part, "torch-export", path)]


def export_part(run: Run, part: Part, format_: Format, path: Path) -> Exported:
    """Export the encoder or the decoder of a run, for batches of any size.

    RunError if the model cannot be exported in this format, or if the exported model gives other
    values than PyTorch; nothing is written then.
    """
    model = run.model
    graph = make_graph(model, part).eval()
    metadata = description(run)
    difference = 0.0

    def write(temporary: Path) -> None:
        nonlocal difference
        with _quiet_exporter(part, format_):
            if format_ == "onnx":
                data = onnx_bytes(graph, model, part, metadata)
                exported = onnx_model(data)
                temporary.write_bytes(data)
            else:
                program = _program(graph, model, part)
                # torch.export.save requires this suffix.
                named = temporary.with_name(f"{temporary.name}.pt2")
                try:
                    torch.export.save(program, named, extra_files={"vaezoo.json": metadata})
                    exported = torch.export.load(named).module()
                    named.replace(temporary)
                finally:
                    named.unlink(missing_ok=True)
            difference = largest_difference(graph, exported, model, part)
        _check(difference, f"the {part}")

    atomic_write(path, write)
    first = model.data.shape if part == "encoder" else model.latent_shape
    shapes: list[list[int | str]] = [["batch", *first], ["batch"]]
    inputs = dict(zip(input_names(model, part), shapes, strict=False))
    return Exported(path, part, inputs, [*graph.output_names], difference)


def export_weights(run: Run, path: Path) -> list[Exported]:
    """Export the weights to safetensors; the header holds all that is needed to build the model."""
    model = run.model
    config = run.config
    again = build_model(config, run.data_spec).eval()
    difference = 0.0

    def write(temporary: Path) -> None:
        nonlocal difference
        save_file(
            {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
            temporary,
            metadata={"vaezoo": description(run)},
        )
        load_into(again, load_weights(temporary), path)
        for part in ("encoder", "decoder"):
            graph, other = make_graph(model, part), make_graph(again, part)
            difference = largest_difference(graph, other, model, part)
            _check(difference, f"the {part}")

    atomic_write(path, write)
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
    return [Exported(path, None, {}, names, difference)]


def description(run: Run) -> str:
    """The metadata of an exported file, as JSON: model, options, data, latent shape."""
    values = {
        "model": run.config.components.model.name,
        "config": run.config.to_yaml(),
        "data": run.data_spec.to_dict(),
        "latent_shape": list(run.model.latent_shape),
    }
    return json.dumps(values, ensure_ascii=False)


def onnx_bytes(graph: Graph, model: BaseVAE, part: Part, metadata: str) -> bytes:
    """An ONNX file whose batch axis has any size."""
    program = torch.onnx.export(
        _program(graph, model, part),
        (),
        dynamo=True,
        external_data=False,
        verbose=False,
        input_names=input_names(model, part),
        output_names=[*graph.output_names],
    )
    assert program is not None
    proto = program.model_proto
    entry = proto.metadata_props.add()
    entry.key, entry.value = "vaezoo", metadata
    return proto.SerializeToString()


def onnx_model(data: bytes) -> Model:
    """The model of an ONNX file, run by onnxruntime."""
    runtime = require_extra("onnxruntime", "--format onnx", "export")
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(*inputs: Tensor) -> list[Tensor]:
        arrays = [tensor.numpy() for tensor in inputs]
        # An input that the model does not use is not among the names.
        outputs = session.run(None, dict(zip(names, arrays, strict=False)))
        return [torch.from_numpy(output) for output in outputs]

    return run


def input_names(model: BaseVAE, part: Part) -> list[str]:
    first = "x" if part == "encoder" else "z"
    return [first, "y"] if model.conditional else [first]


@torch.no_grad()
def largest_difference(graph: Graph, exported: Model, model: BaseVAE, part: Part) -> float:
    """The largest difference between the graph and the exported model; see TOLERANCE.

    NaN if one of them gives values that are not finite.
    """
    largest = 0.0
    for n in _CHECKED_BATCH_SIZES:
        given = example_inputs(model, part, n)
        for ours, theirs in zip(graph(*given), exported(*given), strict=True):
            scale = max(1.0, float(ours.abs().max()))
            difference = float((ours - theirs).abs().max())
            if not math.isfinite(difference):
                return math.nan
            largest = max(largest, difference / scale)
    return largest


def _program(graph: Graph, model: BaseVAE, part: Part) -> torch.export.ExportedProgram:
    inputs = example_inputs(model, part, 2)
    shapes = tuple({0: torch.export.Dim("batch")} for _ in inputs)
    with torch.no_grad(), no_validate_args():  # checks of values cannot be traced
        program = torch.export.export(graph, inputs, dynamic_shapes=shapes, strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names the source files of this machine
    return program


def _check(difference: float, what: str) -> None:
    if math.isnan(difference):
        raise RunError(f"{what} gives values that are not finite: nothing was written")
    if not difference <= TOLERANCE:
        raise RunError(
            f"{what} as exported differs from PyTorch by {difference:.2g}: nothing was written"
        )


@contextlib.contextmanager
def _quiet_exporter(part: Part, format_: Format) -> Iterator[None]:
    """Hide what an exporter warns, logs and prints, and report what it raises in one line."""
    before, sink = logging.root.manager.disable, io.StringIO()
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            contextlib.redirect_stdout(sink),
            contextlib.redirect_stderr(sink),
        ):
            yield
    except OSError:
        raise  # of the disk: reported by the caller
    except Exception as error:  # exporters raise anything
        reason = " ".join(str(error).split())[:_MAX_REASON_LENGTH] or type(error).__name__
        raise RunError(
            f"the {part} of this model cannot be exported with --format {format_}: {reason}"
        ) from error
    finally:
        logging.disable(before)
