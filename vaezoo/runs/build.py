"""Build models, losses and data sets from specs and options, within the memory of the machine."""

from __future__ import annotations

import inspect
import shlex
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from traceback import extract_tb
from typing import Any, cast

import torch
from torch import OutOfMemoryError, Tensor, nn
from torch.nn.modules import module as registration
from torch.nn.modules.batchnorm import _BatchNorm

from vaezoo.config import Components, RunConfig, find_conflict, title
from vaezoo.data.base import BaseDataset, GivenData, Splits, load_splits
from vaezoo.data.options import DataOptions
from vaezoo.data.spec import DataSpec
from vaezoo.errors import BrokenPluginError, DataError, OptionError, RunError, VaezooError, quoted
from vaezoo.losses.base import BaseLoss
from vaezoo.models.base import BaseVAE, Parts
from vaezoo.models.sampler import LatentSpec, Sampler
from vaezoo.options import Options
from vaezoo.plugins.registry import WORDS, registry
from vaezoo.plugins.sources import base_class
from vaezoo.plugins.specs import (
    PARTS,
    DatasetSpec,
    LikelihoodSpec,
    ModelSpec,
    NetworkSpec,
    PartSpec,
    SamplerSpec,
    Spec,
)
from vaezoo.runtime.memory import available_memory

MOST_TENSORS = 20_000
"""Parameters and buffers of one model: a hundred layers have a few hundred."""


class TooLargeError(MemoryError):
    """Modules would need more than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"modules of more than {limit:,} bytes")
        self.limit = limit


@contextmanager
def limit_memory(limit: int) -> Iterator[None]:
    """Raise TooLargeError as soon as modules built inside need more than `limit` bytes together.

    It is raised when a parameter or a buffer is registered, before its memory is written. Only
    modules of this thread count.
    """
    here = threading.get_ident()
    held = [0, 0]

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        if tensor is None or threading.get_ident() != here:
            return
        held[0] += tensor.numel() * tensor.element_size()
        held[1] += 1
        if held[0] > limit or held[1] > MOST_TENSORS:
            raise TooLargeError(limit)

    with (
        registration.register_module_parameter_registration_hook(count),
        registration.register_module_buffer_registration_hook(count),
    ):
        yield


@contextmanager
def meta_device() -> Iterator[None]:
    """Build modules on the meta device, without memory and without changing the random state."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        yield


def check_data(components: Components, data: DataSpec, *, resizable: bool = False) -> None:
    """DataError, in one line, unless the model and its parts accept this data.

    resizable: whether the data set has the option image_size.
    """
    for spec in components.specs().values():
        if isinstance(spec, ModelSpec):
            spec.input_spec.check(data, title(spec), resizable=resizable)
        if isinstance(spec, NetworkSpec):
            try:
                spec.input_spec.check(data, title(spec), resizable=resizable)
            except DataError as error:
                raise DataError(f"{error}{_suggest_part(components, spec, data)}") from None
        if isinstance(spec, LikelihoodSpec) and data.domain not in spec.domains:
            raise DataError(
                f"{title(spec)} is for {' and '.join(spec.domains)} data, and this data is "
                f"{data.domain}{_suggest_part(components, spec, data)}"
            )


def check_shape(components: Components, shape: tuple[int, ...]) -> None:
    """DataError, in one line, unless the model and its network accept examples of this shape."""
    for spec in components.specs().values():
        if isinstance(spec, (ModelSpec, NetworkSpec)):
            replace(spec.input_spec, labels=False).check(DataSpec(shape=shape), title(spec))


def _suggest_part(components: Components, part: PartSpec, data: DataSpec) -> str:
    """Other parts of this kind that accept the data, as ": give --network mlp"; "" for none."""
    names = []
    for spec in cast("list[PartSpec]", registry().specs(part.kind)):
        parts = {**components.parts, part.kind: spec}
        with suppress(DataError):
            if isinstance(spec, NetworkSpec):
                spec.input_spec.check(data, spec.name)
            fits = not isinstance(spec, LikelihoodSpec) or data.domain in spec.domains
            if fits and not find_conflict(replace(components, parts=parts)):
                names.append(spec.name)
    return f": give --{part.kind} {' or '.join(names[:4])}" if names else ""


def build_model(
    config: RunConfig, data: DataSpec, given: Mapping[str, object] | None = None
) -> BaseVAE:
    """Build a model of its parts, with its loss at `model.loss`, on the CPU.

    given: parts that are built already, by their kind. DataError, before anything is allocated, if
    the model or a part does not accept this data.
    """
    check_data(config.components, data)
    specs = config.components.specs()
    classes = {section: load_class(spec) for section, spec in specs.items() if section != "data"}
    with _name_plugin(*((specs[section], found) for section, found in classes.items())):
        return build_from_classes(config.components.model, classes, config.options, data, given)


def build_from_classes(
    spec: ModelSpec,
    classes: Mapping[str, Callable[..., Any]],
    options: Mapping[str, Options],
    data: DataSpec,
    given: Mapping[str, object] | None = None,
) -> BaseVAE:
    """Build a model and its loss from classes and options by section. given: as in build_model."""
    name, ready = spec.name, given or {}
    if not data.ndim:
        options = {section: values.for_vectors(data.numel) for section, values in options.items()}
    needed: tuple[str, ...] = getattr(classes["model"], "parts", ())
    missing = [kind for kind in needed if kind not in classes]
    if missing:
        raise VaezooError(f"model {name} is made of a {missing[0]}: name one in its spec's parts")
    unused = [kind for kind in classes if kind in PARTS and kind not in (*needed, "sampler")]
    if unused:
        raise VaezooError(
            f"model {name} takes no {unused[0]}: its class attribute `parts` lacks it"
        )

    def part(kind: str, *arguments: object) -> Any:
        if kind in ready:
            return ready[kind]
        return classes[kind](options[kind], *arguments) if kind in classes else None

    def build() -> tuple[BaseVAE, BaseLoss]:
        network = part("network", data)
        grid = () if network is None else network.latent_grid
        parts = Parts(network, part("bottleneck", grid), part("likelihood", data))
        model = classes["model"](options["model"], data, *([parts] if needed else []))
        if not getattr(model, "latent_shape", None):
            raise VaezooError(f"model {name} does not set latent_shape")
        if any(isinstance(layer, _BatchNorm) for layer in model.modules()):
            model.min_batch_size = max(2, model.min_batch_size)
        model.sampler = part("sampler", _latent_spec(model))
        if model.sampler is not None:
            model.sampler.requires_grad_(False)
        return model, classes["loss"](options["loss"], model, data)

    limit = available_memory()
    try:
        _check_memory(build, limit)
        with limit_memory(limit), _memory_errors():
            model, loss = build()
    except MemoryError as error:
        if isinstance(error, TooLargeError) and error.limit < limit:
            raise  # a caller set a lower limit
        raise OptionError(
            f"model {name} of these sizes does not fit in memory: make it smaller"
        ) from error
    object.__setattr__(model, "loss", loss)
    return model


def build_sampler(spec: SamplerSpec, options: Options, model: BaseVAE) -> Sampler:
    """Build a sampler for the latents of a model, on the CPU."""
    found = load_class(spec)
    with _name_plugin((spec, found)), limit_memory(available_memory()):
        sampler: Sampler = found(options, _latent_spec(model))
    return sampler.requires_grad_(False)


def _latent_spec(model: BaseVAE) -> LatentSpec:
    return LatentSpec(model.latent_shape, model.codebook, len(model.data.class_names))


def build_dataset(spec: DatasetSpec, options: DataOptions) -> BaseDataset:
    """Build a data set without loading it."""
    dataset_class = load_class(spec)
    with _name_plugin((spec, dataset_class)):
        return cast(BaseDataset, dataset_class(options))


def read_data(spec: DatasetSpec, options: DataOptions, given: GivenData | None = None) -> Splits:
    """Load the splits of a data set, or of what is given in its place."""
    return load_splits(build_dataset(spec, options), given)


def load_class(spec: Spec) -> Any:
    """Import the class of a spec. VaezooError unless it is a concrete class of this kind.

    The target of a part may also be a function that makes an object.
    """
    found, base = spec.load(), base_class(type(spec))
    if isinstance(spec, PartSpec) and inspect.isfunction(found):
        return found
    if not (isinstance(found, type) and issubclass(found, base)):
        raise VaezooError(f"{spec.kind} {spec.name}: {spec.target} is no {base.__name__}")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
        raise VaezooError(f"{spec.kind} {spec.name}: {spec.target} does not define {missing}")
    return found


@contextmanager
def _name_plugin(*parts: tuple[Spec, type]) -> Iterator[None]:
    """Turn an exception of a plugin's constructor into a BrokenPluginError with its line.

    An exception of a class of vaezoo itself is raised unchanged.
    """
    try:
        yield
    except (VaezooError, MemoryError):
        raise
    except Exception as error:
        for spec, built in parts:
            plugin, file = registry().plugin(spec), inspect.getsourcefile(built)
            lines = [f.lineno for f in extract_tb(error.__traceback__) if f.filename == file]
            if lines and plugin.distribution != "vaezoo":
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                name = spec.name if plugin.is_installed else f"{file}:{built.__name__}"
                raise BrokenPluginError(
                    f"{WORDS[spec.kind]} {spec.name} cannot be built: {reason} "
                    f"({file}, line {lines[-1]}; vaezoo check {shlex.quote(name)} shows more)"
                ) from error
        raise


def _check_memory(build: Callable[[], object], limit: int) -> None:
    """Build on the meta device; MemoryError if the modules would be too large."""
    try:
        with limit_memory(limit), _memory_errors(), meta_device():
            build()
    except MemoryError:
        raise
    except Exception:
        return  # raised again by the real build, or only on the meta device


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Turn what torch raises when memory is short into MemoryError."""
    try:
        yield
    except OutOfMemoryError as error:
        raise MemoryError from error
    except (RuntimeError, OverflowError, TypeError) as error:
        # The CPU's allocator fails, or a shape is past 64 bits; else a number is past 64 bits.
        allocator = isinstance(error, RuntimeError)
        words = ("allocate", "overflow") if allocator else ("int too large", "Overflow")
        if any(word in str(error) for word in words):
            raise MemoryError from error
        raise


def check_given(metadata: dict[str, Any], path: Path, given: GivenData | None) -> None:
    """RunError if the run's data came from Python, and is not given."""
    data = metadata.get("data")
    kind = data.get("given") if isinstance(data, dict) else None
    if kind and given is None:
        again = f"vaezoo.load_run({str(path)!r}, data=...)"
        resume = f"vaezoo.train(..., data=..., out={str(path)!r}, auto_resume=True)"
        raise RunError(
            f"the data of this run was given from Python ({quoted(kind)}): give it again, by "
            f"{again}, or {resume} to go on training"
        )


def check_same_data(metadata: dict[str, Any], splits: Splits) -> None:
    """RunError if the data is not what the run was trained on.

    An imported run may have none of its own: its fingerprint is null, and any data is right.
    """
    data = metadata.get("data")
    if not isinstance(data, dict) or data.get("fingerprint", "") not in (None, splits.fingerprint):
        given = isinstance(data, dict) and data.get("given")
        hint = "; give labels and factors too, if train got them" if given else ""
        raise RunError(
            f"the data has changed since this run was trained: its numbers would not compare{hint}"
        )
