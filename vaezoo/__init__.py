"""vaezoo: a plugin-based zoo of variational autoencoders for PyTorch.

A name is imported when it is first used, so that `import vaezoo` does not import torch.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # as typing has it, whose import takes half of the time of this file

__version__ = "0.1.0"

_EXPORTS = {
    "vaezoo.api": (
        "create_model list_datasets list_losses list_metrics "
        "list_models list_parts load_data load_plugin load_run train"
    ),
    "vaezoo.data.base": "BaseDataset Batch GivenData Split Splits TensorSplit",
    "vaezoo.data.options": "DataOptions",
    "vaezoo.data.spec": "DataSpec",
    "vaezoo.errors": "VaezooError",
    "vaezoo.evaluation.metric": "MetricState",
    "vaezoo.losses.base": "BaseLoss LossOutput Phase StepContext",
    "vaezoo.models.base": "BaseVAE EncoderDecoderVAE Parts VAEOutput",
    "vaezoo.models.bottleneck": "Bottleneck",
    "vaezoo.models.likelihood": "Likelihood",
    "vaezoo.models.network": "Network",
    "vaezoo.models.sampler": "LatentSpec Sampler",
    "vaezoo.models.options": "GaussianOptions LatentOptions",
    "vaezoo.options": "Options",
    "vaezoo.plugins.hookspecs": "hookimpl",
    "vaezoo.plugins.specs": (
        "BottleneckSpec CommandSpec DatasetSpec InputSpec LikelihoodSpec LoggerSpec LossSpec "
        "MetricSpec ModelSpec NetworkSpec SamplerSpec"
    ),
    "vaezoo.training.loggers": "BaseLogger",
    "vaezoo.training.manual": "ManualTrainStep make_train_step",
}
_HOME = {name: module for module, names in _EXPORTS.items() for name in names.split()}

__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from typing import Any

    from vaezoo.api import *  # noqa: F403 - the names of its __all__
    from vaezoo.data.base import BaseDataset as BaseDataset
    from vaezoo.data.base import Batch as Batch
    from vaezoo.data.base import GivenData as GivenData
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
    from vaezoo.models.base import EncoderDecoderVAE as EncoderDecoderVAE
    from vaezoo.models.base import Parts as Parts
    from vaezoo.models.base import VAEOutput as VAEOutput
    from vaezoo.models.bottleneck import Bottleneck as Bottleneck
    from vaezoo.models.likelihood import Likelihood as Likelihood
    from vaezoo.models.network import Network as Network
    from vaezoo.models.options import GaussianOptions as GaussianOptions
    from vaezoo.models.options import LatentOptions as LatentOptions
    from vaezoo.models.sampler import LatentSpec as LatentSpec
    from vaezoo.models.sampler import Sampler as Sampler
    from vaezoo.options import Options as Options
    from vaezoo.plugins.hookspecs import hookimpl as hookimpl
    from vaezoo.plugins.specs import BottleneckSpec as BottleneckSpec
    from vaezoo.plugins.specs import CommandSpec as CommandSpec
    from vaezoo.plugins.specs import DatasetSpec as DatasetSpec
    from vaezoo.plugins.specs import InputSpec as InputSpec
    from vaezoo.plugins.specs import LikelihoodSpec as LikelihoodSpec
    from vaezoo.plugins.specs import LoggerSpec as LoggerSpec
    from vaezoo.plugins.specs import LossSpec as LossSpec
    from vaezoo.plugins.specs import MetricSpec as MetricSpec
    from vaezoo.plugins.specs import ModelSpec as ModelSpec
    from vaezoo.plugins.specs import NetworkSpec as NetworkSpec
    from vaezoo.plugins.specs import SamplerSpec as SamplerSpec
    from vaezoo.training.loggers import BaseLogger as BaseLogger
    from vaezoo.training.manual import ManualTrainStep as ManualTrainStep
    from vaezoo.training.manual import make_train_step as make_train_step


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'vaezoo' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
