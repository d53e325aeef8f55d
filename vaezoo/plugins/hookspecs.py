"""The hooks of a plugin. Each is called once with a `register` function."""

from __future__ import annotations

from collections.abc import Callable

import pluggy

from vaezoo.plugins.specs import (
    BottleneckSpec,
    CommandSpec,
    DatasetSpec,
    LikelihoodSpec,
    LoggerSpec,
    LossSpec,
    MetricSpec,
    ModelSpec,
    NetworkSpec,
    SamplerSpec,
)

hookspec = pluggy.HookspecMarker("vaezoo")
hookimpl = pluggy.HookimplMarker("vaezoo")


@hookspec
def register_models(register: Callable[[ModelSpec], None]) -> None:
    """Call `register` with a ModelSpec for each model that the plugin brings."""


@hookspec
def register_networks(register: Callable[[NetworkSpec], None]) -> None:
    """Call `register` with a NetworkSpec for each network that the plugin brings."""


@hookspec
def register_bottlenecks(register: Callable[[BottleneckSpec], None]) -> None:
    """Call `register` with a BottleneckSpec for each bottleneck that the plugin brings."""


@hookspec
def register_likelihoods(register: Callable[[LikelihoodSpec], None]) -> None:
    """Call `register` with a LikelihoodSpec for each likelihood that the plugin brings."""


@hookspec
def register_samplers(register: Callable[[SamplerSpec], None]) -> None:
    """Call `register` with a SamplerSpec for each sampler that the plugin brings."""


@hookspec
def register_losses(register: Callable[[LossSpec], None]) -> None:
    """Call `register` with a LossSpec for each loss that the plugin brings."""


@hookspec
def register_datasets(register: Callable[[DatasetSpec], None]) -> None:
    """Call `register` with a DatasetSpec for each data set that the plugin brings."""


@hookspec
def register_metrics(register: Callable[[MetricSpec], None]) -> None:
    """Call `register` with a MetricSpec for each metric that the plugin brings."""


@hookspec
def register_loggers(register: Callable[[LoggerSpec], None]) -> None:
    """Call `register` with a LoggerSpec for each writer that the plugin brings."""


@hookspec
def register_commands(register: Callable[[CommandSpec], None]) -> None:
    """Call `register` with a CommandSpec for each subcommand of vaezoo that the plugin brings."""
