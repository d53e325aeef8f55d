"""Put a model together with its loss, and load data: from specs and options to objects."""

from __future__ import annotations

from typing import Any

from torch import OutOfMemoryError

from vaezoo.config import Choice
from vaezoo.data.base import BaseDataset, Splits
from vaezoo.data.options import DataOptions
from vaezoo.data.spec import DataSpec
from vaezoo.errors import OptionError, VaezooError
from vaezoo.losses.base import BaseLoss
from vaezoo.model import BaseVAE
from vaezoo.options import Options
from vaezoo.specs import DatasetSpec, Spec


def build_model(
    choice: Choice, model_options: Options, loss_options: Options, data: DataSpec
) -> BaseVAE:
    """The model with its objective at `model.loss`, both on the CPU.

    DataError when the model does not take this data; nothing is allocated then.
    """
    choice.model.takes.check(data, choice.model.name)
    model_class = _load(choice.model, BaseVAE)
    loss_class = _load(choice.loss, BaseLoss)
    try:
        model: BaseVAE = model_class(model_options, data)
        loss: BaseLoss = loss_class(loss_options, model, data)
    except (MemoryError, OutOfMemoryError) as error:
        raise _too_large(choice) from error
    except RuntimeError as error:
        # What the CPU's allocator raises, and a shape past 64 bits.
        if "allocate" in str(error) or "overflow" in str(error):
            raise _too_large(choice) from error
        raise
    if not getattr(model, "latent_shape", None):
        raise VaezooError(f"model {choice.model.name} does not set latent_shape")
    object.__setattr__(model, "loss", loss)
    return model


def build_dataset(spec: DatasetSpec, options: DataOptions) -> BaseDataset:
    """The data set, not yet loaded."""
    dataset: BaseDataset = _load(spec, BaseDataset)(options)
    return dataset


def load_splits(spec: DatasetSpec, options: DataOptions) -> Splits:
    """The data set's splits; decodes it if that was not done before."""
    return build_dataset(spec, options).load()


def _load(spec: Spec, base: type) -> Any:
    found = spec.load()
    if not (isinstance(found, type) and issubclass(found, base)):
        raise VaezooError(f"{spec.kind} {spec.name}: {spec.target} is no {base.__name__}")
    return found


def _too_large(choice: Choice) -> OptionError:
    return OptionError(
        f"model {choice.model.name} of these sizes does not fit in memory: make it smaller"
    )
