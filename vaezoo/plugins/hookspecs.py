"""The five hooks of a plugin. Each is called once with a `register` function."""

from __future__ import annotations

from collections.abc import Callable

import pluggy

from vaezoo.plugins.specs import DatasetSpec, LossSpec, MetricSpec, ModelSpec, WriterSpec

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
def register_writers(register: Callable[[WriterSpec], None]) -> None:
    """Call `register` with a WriterSpec for each writer that the plugin brings."""
