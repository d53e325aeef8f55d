"""The five hooks of a plugin. Each is called once with a `register` function."""

from __future__ import annotations

from collections.abc import Callable

import pluggy

from vaezoo.plugins.specs import DatasetSpec, LoggerSpec, LossSpec, MetricSpec, ModelSpec

hookspec = pluggy.HookspecMarker("vaezoo")
hookimpl = pluggy.HookimplMarker("vaezoo")


@hookspec
def register_models(register: Callable[[ModelSpec], None]) -> None:
    """Call `register` with a ModelSpec for each model that the plugin brings."""


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
