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
    "BaseMetric": "vaezoo.evaluation.metric",
    "BaseVAE": "vaezoo.model",
    "BaseWriter": "vaezoo.training.writer",
    "Batch": "vaezoo.data.batch",
    "BodyOptions": "vaezoo.network_options",
    "Context": "vaezoo.losses.base",
    "DataOptions": "vaezoo.data.options",
    "DataSpec": "vaezoo.data.spec",
    "DatasetSpec": "vaezoo.specs",
    "GaussianOptions": "vaezoo.network_options",
    "LikelihoodOptions": "vaezoo.likelihood_options",
    "LossOutput": "vaezoo.losses.base",
    "LossSpec": "vaezoo.specs",
    "MetricSpec": "vaezoo.specs",
    "ModelSpec": "vaezoo.specs",
    "NetworkOptions": "vaezoo.network_options",
    "Options": "vaezoo.options",
    "Phase": "vaezoo.losses.base",
    "Split": "vaezoo.data.base",
    "Splits": "vaezoo.data.base",
    "Takes": "vaezoo.specs",
    "TensorSplit": "vaezoo.data.base",
    "VAEOutput": "vaezoo.model",
    "VaezooError": "vaezoo.errors",
    "WriterSpec": "vaezoo.specs",
    "create_model": "vaezoo.api",
    "hookimpl": "vaezoo.hookspecs",
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
    from vaezoo.data.base import Split as Split
    from vaezoo.data.base import Splits as Splits
    from vaezoo.data.base import TensorSplit as TensorSplit
    from vaezoo.data.batch import Batch as Batch
    from vaezoo.data.options import DataOptions as DataOptions
    from vaezoo.data.spec import DataSpec as DataSpec
    from vaezoo.errors import VaezooError as VaezooError
    from vaezoo.evaluation.metric import BaseMetric as BaseMetric
    from vaezoo.hookspecs import hookimpl as hookimpl
    from vaezoo.likelihood_options import LikelihoodOptions as LikelihoodOptions
    from vaezoo.losses.base import BaseLoss as BaseLoss
    from vaezoo.losses.base import Context as Context
    from vaezoo.losses.base import LossOutput as LossOutput
    from vaezoo.losses.base import Phase as Phase
    from vaezoo.model import BaseVAE as BaseVAE
    from vaezoo.model import VAEOutput as VAEOutput
    from vaezoo.network_options import BodyOptions as BodyOptions
    from vaezoo.network_options import GaussianOptions as GaussianOptions
    from vaezoo.network_options import NetworkOptions as NetworkOptions
    from vaezoo.options import Options as Options
    from vaezoo.specs import DatasetSpec as DatasetSpec
    from vaezoo.specs import LossSpec as LossSpec
    from vaezoo.specs import MetricSpec as MetricSpec
    from vaezoo.specs import ModelSpec as ModelSpec
    from vaezoo.specs import Takes as Takes
    from vaezoo.specs import WriterSpec as WriterSpec
    from vaezoo.training.writer import BaseWriter as BaseWriter


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'vaezoo' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
