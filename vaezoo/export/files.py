"""Writing a model's two directions to files, each held against PyTorch before it is kept."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from vaezoo.checkpoint.format import load_into, load_weights
from vaezoo.errors import RunError
from vaezoo.export.graphs import Graph, Part, example_inputs, make_graph
from vaezoo.io import atomic_write, require_extra
from vaezoo.models.base import BaseVAE
from vaezoo.runs.build import build_model
from vaezoo.runs.run import Run
from vaezoo.runtime.device import no_validate_args

Format = Literal["onnx", "torch-export", "safetensors"]
ENDINGS: Mapping[Format, str] = {
    "onnx": ".onnx",
    "torch-export": ".pt2",
    "safetensors": ".safetensors",
}

TOLERANCE = 1e-4
"""How far an exported value may be from PyTorch's, in units of the largest one if above 1."""
_CHECKED_BATCHES = (1, 2, 5)
_LONGEST_REASON = 160

Answer = Callable[[Tensor, Tensor | None], Sequence[Tensor]]


@dataclass(frozen=True)
class Exported:
    """A file that was written. part: None for the whole model.

    difference: the largest from PyTorch, over the batches of several sizes that it was checked on.
    """

    path: Path
    part: Part | None
    inputs: dict[str, list[int | str]]
    outputs: list[str]
    difference: float

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "path": str(self.path)}


def check_extra(format_: Format, who: str = "") -> None:
    """MissingExtraError unless what writes and checks this format is installed.

    who: the option that asks for it, --format unless told otherwise.
    """
    if format_ == "onnx":
        for module in ("onnx", "onnxscript", "onnxruntime"):
            require_extra(module, who or "--format onnx", "export")


def export_part(run: Run, part: Part, format_: Format, path: Path) -> Exported:
    """One direction of a run's model, for batches of any size.

    RunError when the model cannot be exported so, or answers otherwise than in PyTorch: nothing is
    written then.
    """
    model = run.model
    graph = make_graph(model, part).eval()
    told = description(run)
    found: list[float] = []

    def write(temporary: Path) -> None:
        with _quiet(), _told(part, format_):
            if format_ == "onnx":
                data = onnx_bytes(graph, model, part, told)
                answer = onnx_answer(data)
                temporary.write_bytes(data)
            else:
                program = _program(graph, model, part)
                # Under its own name: torch.export.save asks for the ending.
                named = temporary.with_name(f"{temporary.name}.pt2")
                try:
                    torch.export.save(program, named, extra_files={"vaezoo.json": told})
                    answer = torch.export.load(named).module()
                    named.replace(temporary)
                finally:
                    named.unlink(missing_ok=True)
            found.append(largest_difference(graph, answer, model, part))
        _check(found[0], f"the {part}")

    atomic_write(path, write)
    names = input_names(model, part)
    shapes: list[list[int | str]] = [["batch", *shape] for shape in (_shape(model, part), ())]
    return Exported(
        path, part, dict(zip(names, shapes, strict=False)), [*graph.output_names], found[0]
    )


def export_weights(run: Run, path: Path) -> Exported:
    """The weights, with all that builds the model again in the file's header."""
    model = run.model
    again = build_model(run.config.choice, run.config.model, run.config.loss, run.data_spec).eval()
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
            difference = max(difference, largest_difference(graph, other, model, part))
        _check(difference, "the model")

    atomic_write(path, write)
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
    return Exported(path, None, {}, names, difference)


def description(run: Run) -> str:
    """What the file says of itself, as JSON: model, options, data, latent."""
    return json.dumps(
        {
            "model": run.config.choice.model.name,
            "config": run.config.to_yaml(),
            "data": run.data_spec.to_dict(),
            "latent_shape": list(run.model.latent_shape),
        },
        ensure_ascii=False,
    )


def onnx_bytes(graph: Graph, model: BaseVAE, part: Part, told: str) -> bytes:
    """An ONNX model with a batch axis of any size, as one file."""
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
    entry.key, entry.value = "vaezoo", told
    return proto.SerializeToString()


def onnx_answer(data: bytes) -> Answer:
    """The model run by onnxruntime."""
    runtime = require_extra("onnxruntime", "--format onnx", "export")
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def answer(first: Tensor, y: Tensor | None = None) -> list[Tensor]:
        arrays = [first.numpy()] + ([] if y is None else [y.numpy()])
        return [
            torch.from_numpy(found)
            # An input that the model does not look at is not among the names.
            for found in session.run(None, dict(zip(names, arrays, strict=False)))
        ]

    return answer


def input_names(model: BaseVAE, part: Part) -> list[str]:
    first = "x" if part == "encoder" else "z"
    return [first, "y"] if model.conditional else [first]


@torch.no_grad()
def largest_difference(graph: Graph, answer: Answer, model: BaseVAE, part: Part) -> float:
    """The largest between what the graph says and the answer, relative to values above 1."""
    largest = 0.0
    for n in _CHECKED_BATCHES:
        first, y = example_inputs(model, part, n)
        # A program takes what it was traced with, and that is no `None`.
        given = (first,) if y is None else (first, y)
        for ours, theirs in zip(graph(*given), answer(*given), strict=True):
            scale = max(1.0, float(ours.abs().max()))
            largest = max(largest, float((ours - theirs).abs().max()) / scale)
    return largest


def _program(graph: Graph, model: BaseVAE, part: Part) -> torch.export.ExportedProgram:
    first, y = example_inputs(model, part, 2)
    inputs = (first,) if y is None else (first, y)
    batch = torch.export.Dim("batch")
    with torch.no_grad(), no_validate_args():  # a graph holds nothing that follows from values
        return torch.export.export(
            graph, inputs, dynamic_shapes=tuple({0: batch} for _ in inputs), strict=False
        )


def _shape(model: BaseVAE, part: Part) -> tuple[int, ...]:
    return tuple(model.data.shape if part == "encoder" else model.latent_shape)


def _check(difference: float, what: str) -> None:
    if not difference <= TOLERANCE:
        raise RunError(
            f"{what} as exported answers otherwise than in PyTorch, by {difference:.2g}: "
            "nothing was written"
        )


@contextlib.contextmanager
def _told(part: Part, format_: Format) -> Iterator[None]:
    """Whatever an exporter cannot do, in one line."""
    try:
        yield
    except OSError:
        raise  # of the disk, and told as such
    except Exception as error:  # exporters raise anything; nothing of theirs is ours to sort out
        reason = " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
        raise RunError(
            f"the {part} of this model cannot be exported with --format {format_}: {reason}"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What exporters print on their way is not for the user."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
