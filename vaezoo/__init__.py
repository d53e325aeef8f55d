"""vaezoo: a plugin-based zoo of variational autoencoders for PyTorch.

Every name here is imported when it is first used, so that `import vaezoo` costs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "BaseDataset": "vaezoo.data.base",
    "BaseLoss": "vaezoo.losses.base",
    "MetricState": "vaezoo.evaluation.metric",
    "BaseVAE": "vaezoo.models.base",
    "BaseLogger": "vaezoo.training.loggers",
    "Batch": "vaezoo.data.base",
    "BackboneOptions": "vaezoo.nn.options",
    "StepContext": "vaezoo.losses.base",
    "DataOptions": "vaezoo.data.options",
    "DataSpec": "vaezoo.data.spec",
    "DatasetSpec": "vaezoo.plugins.specs",
    "EncoderDecoderVAE": "vaezoo.models.encoder_decoder",
    "GaussianOptions": "vaezoo.models.options",
    "LikelihoodOptions": "vaezoo.models.options",
    "LossOutput": "vaezoo.losses.base",
    "LossSpec": "vaezoo.plugins.specs",
    "MetricSpec": "vaezoo.plugins.specs",
    "ModelSpec": "vaezoo.plugins.specs",
    "NetworkOptions": "vaezoo.models.options",
    "Options": "vaezoo.options",
    "Phase": "vaezoo.losses.base",
    "Split": "vaezoo.data.base",
    "Splits": "vaezoo.data.base",
    "InputSpec": "vaezoo.plugins.specs",
    "TensorSplit": "vaezoo.data.base",
    "VAEOutput": "vaezoo.models.base",
    "VaezooError": "vaezoo.errors",
    "VectorVAE": "vaezoo.models.encoder_decoder",
    "LoggerSpec": "vaezoo.plugins.specs",
    "create_model": "vaezoo.api",
    "hookimpl": "vaezoo.plugins.hookspecs",
    "list_datasets": "vaezoo.api",
    "list_losses": "vaezoo.api",
    "list_metrics": "vaezoo.api",
    "list_models": "vaezoo.api",
    "load_data": "vaezoo.api",
    "load_plugin": "vaezoo.api",
    "load_run": "vaezoo.api",
    "train": "vaezoo.api",
}

__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from vaezoo.api import create_model as create_model
    from vaezoo.api import list_datasets as list_datasets
    from vaezoo.api import list_losses as list_losses
    from vaezoo.api import list_metrics as list_metrics
    from vaezoo.api import list_models as list_models
    from vaezoo.api import load_data as load_data
    from vaezoo.api import load_plugin as load_plugin
    from vaezoo.api import load_run as load_run
    from vaezoo.api import train as train
    from vaezoo.data.base import BaseDataset as BaseDataset
    from vaezoo.data.base import Batch as Batch
    from vaezoo.data.base import Split as Split
    from vaezoo.data.base import Splits as Splits
    from vaezoo.data.base import TensorSplit as TensorSplit
    from vaezoo.data.options import DataOptions as DataOptions
    from vaezoo.data.spec import DataSpec as DataSpec
    from vaezoo.errors import VaezooError as VaezooError
    from vaezoo.evaluation.metric import MetricState as MetricState
    from vaezoo.losses.base import BaseLoss as BaseLoss
    from vaezoo.losses.base import LossOutput as LossOutput
    from vaezoo.losses.base import Phase as Phase
    from vaezoo.losses.base import StepContext as StepContext
    from vaezoo.models.base import BaseVAE as BaseVAE
    from vaezoo.models.base import VAEOutput as VAEOutput
    from vaezoo.models.encoder_decoder import EncoderDecoderVAE as EncoderDecoderVAE
    from vaezoo.models.encoder_decoder import VectorVAE as VectorVAE
    from vaezoo.models.options import GaussianOptions as GaussianOptions
    from vaezoo.models.options import LikelihoodOptions as LikelihoodOptions
    from vaezoo.models.options import NetworkOptions as NetworkOptions
    from vaezoo.nn.options import BackboneOptions as BackboneOptions
    from vaezoo.options import Options as Options
    from vaezoo.plugins.hookspecs import hookimpl as hookimpl
    from vaezoo.plugins.specs import DatasetSpec as DatasetSpec
    from vaezoo.plugins.specs import InputSpec as InputSpec
    from vaezoo.plugins.specs import LoggerSpec as LoggerSpec
    from vaezoo.plugins.specs import LossSpec as LossSpec
    from vaezoo.plugins.specs import MetricSpec as MetricSpec
    from vaezoo.plugins.specs import ModelSpec as ModelSpec
    from vaezoo.training.loggers import BaseLogger as BaseLogger


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'vaezoo' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
