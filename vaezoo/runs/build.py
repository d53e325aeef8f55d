"""Put a model together with its loss, and load data: from specs and options to objects."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from traceback import extract_tb
from typing import TypeVar

from torch import OutOfMemoryError

from vaezoo.config import Components
from vaezoo.data.base import BaseDataset, Splits
from vaezoo.data.options import DataOptions
from vaezoo.data.spec import DataSpec
from vaezoo.errors import BrokenPluginError, OptionError, VaezooError
from vaezoo.losses.base import BaseLoss
from vaezoo.models.base import BaseVAE
from vaezoo.models.memory import TooLargeError, limit_memory, meta_device
from vaezoo.options import Options
from vaezoo.plugins.registry import WORDS, registry
from vaezoo.plugins.specs import DatasetSpec, Spec
from vaezoo.runtime.memory import available_memory

BaseT = TypeVar("BaseT", BaseVAE, BaseLoss, BaseDataset)


def build_model(
    components: Components, model_options: Options, loss_options: Options, data: DataSpec
) -> BaseVAE:
    """The model with its objective at `model.loss`, both on the CPU.

    DataError when the model does not take this data; nothing is allocated then.
    """
    components.model.input_spec.check(data, components.model.name)
    model_class = load_class(components.model, BaseVAE)  # type: ignore[type-abstract]
    loss_class = load_class(components.loss, BaseLoss)  # type: ignore[type-abstract]
    with _told((components.model, model_class), (components.loss, loss_class)):
        return build_from_classes(
            components.model.name, model_class, model_options, loss_class, loss_options, data
        )


def build_from_classes(
    name: str,
    model_class: type[BaseVAE],
    model_options: Options,
    loss_class: type[BaseLoss],
    loss_options: Options,
    data: DataSpec,
) -> BaseVAE:
    """The same from classes. name: what to call the model when something is wrong."""

    def build() -> tuple[BaseVAE, BaseLoss]:
        model = model_class(model_options, data)
        return model, loss_class(loss_options, model, data)

    limit = available_memory()
    try:
        _build_on_paper(build, limit)
        with limit_memory(limit), _memory_errors():
            model, loss = build()
    except MemoryError as error:
        if isinstance(error, TooLargeError) and error.limit < limit:
            raise  # it is less that a caller allows
        raise OptionError(
            f"model {name} of these sizes does not fit in memory: make it smaller"
        ) from error
    if not getattr(model, "latent_shape", None):
        raise VaezooError(f"model {name} does not set latent_shape")
    object.__setattr__(model, "loss", loss)
    return model


def build_dataset(spec: DatasetSpec, options: DataOptions) -> BaseDataset:
    """The data set, not yet loaded."""
    dataset_class = load_class(spec, BaseDataset)  # type: ignore[type-abstract]
    with _told((spec, dataset_class)):
        return dataset_class(options)


def load_splits(spec: DatasetSpec, options: DataOptions) -> Splits:
    """The data set's splits; decodes it if that was not done before."""
    return build_dataset(spec, options).load()


def load_class(spec: Spec, base: type[BaseT]) -> type[BaseT]:
    """The class that a spec names. VaezooError if it is of another kind, or not finished."""
    found = spec.load()
    if not (isinstance(found, type) and issubclass(found, base)):
        raise VaezooError(f"{spec.kind} {spec.name}: {spec.target} is no {base.__name__}")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise VaezooError(f"{spec.kind} {spec.name}: {spec.target} does not define {missing}")
    return found


@contextmanager
def _told(*parts: tuple[Spec, type]) -> Iterator[None]:
    """What the constructor of somebody else's class raises, as a BrokenPluginError with its line.

    An exception in our own classes is our fault, and passes as it is.
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
                said = " ".join(f"{type(error).__name__}: {error}".split())
                name = spec.name if plugin.is_installed else f"{file}:{built.__name__}"
                raise BrokenPluginError(
                    f"{WORDS[spec.kind]} {spec.name} cannot be built: {said} "
                    f"({file}, line {lines[-1]}; vaezoo check {shlex.quote(name)} shows more)"
                ) from error
        raise


def _build_on_paper(build: Callable[[], object], limit: int) -> None:
    """MemoryError when what is built would be too large. Whatever else is wrong comes up again."""
    try:
        with limit_memory(limit), _memory_errors(), meta_device():
            build()
    except MemoryError:
        raise
    except Exception:
        return  # wrong options, or a model that cannot do without values


@contextmanager
def _memory_errors() -> Iterator[None]:
    """What torch raises when memory is short, as MemoryError."""
    try:
        yield
    except OutOfMemoryError as error:
        raise MemoryError from error
    except RuntimeError as error:
        # What the CPU's allocator raises, and a shape past 64 bits.
        if "allocate" in str(error) or "overflow" in str(error):
            raise MemoryError from error
        raise
    except (OverflowError, TypeError) as error:  # a number past 64 bits
        if "int too large" in str(error) or "Overflow" in str(error):
            raise MemoryError from error
        raise
