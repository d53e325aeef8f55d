"""The Python interface of vaezoo, for scripts and notebooks."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from vaezoo.config import (
    build_config,
    load_config,
    resolve_components,
    resolve_dataset,
    split_by_section,
)
from vaezoo.data.base import GivenData, Splits
from vaezoo.data.options import DataOptions
from vaezoo.data.spec import DataSpec
from vaezoo.errors import OptionError
from vaezoo.models.base import BaseVAE
from vaezoo.models.bottleneck import Bottleneck
from vaezoo.models.likelihood import Likelihood
from vaezoo.models.network import Network
from vaezoo.options import check_arguments, parse
from vaezoo.plugins.registry import registry
from vaezoo.plugins.specs import (
    DatasetSpec,
    LossSpec,
    MetricSpec,
    ModelSpec,
    PartKind,
    PartSpec,
    Spec,
)
from vaezoo.runs.build import build_model, read_data
from vaezoo.runs.run import Run, load_run
from vaezoo.runs.train import start_run
from vaezoo.training.loggers import ProgressCallback

__all__ = [
    "create_model",
    "list_datasets",
    "list_losses",
    "list_metrics",
    "list_models",
    "list_parts",
    "load_data",
    "load_plugin",
    "load_run",
    "train",
]


def list_models() -> list[ModelSpec]:
    """Every model that a plugin brings, in the order of their names."""
    return cast("list[ModelSpec]", registry().specs("model"))


def list_losses() -> list[LossSpec]:
    """Every loss that a plugin brings, in the order of their names."""
    return cast("list[LossSpec]", registry().specs("loss"))


def list_datasets() -> list[DatasetSpec]:
    """Every data set that a plugin brings, in the order of their names."""
    return cast("list[DatasetSpec]", registry().specs("dataset"))


def list_parts(kind: PartKind) -> list[PartSpec]:
    """Every network, bottleneck, likelihood or sampler that a plugin brings, by their names."""
    return cast("list[PartSpec]", registry().specs(kind))


def list_metrics() -> list[MetricSpec]:
    """Every metric that a plugin brings, in the order of their names."""
    return cast("list[MetricSpec]", registry().specs("metric"))


@check_arguments
def load_plugin(source: Path | str) -> list[Spec]:
    """Load a plugin that is not installed, and return its specs.

    source: `my_vae.py`, `package.module`, or one class of it: `my_vae.py:MyVAE`. The file is
    run, so name only files that you trust. VaezooError says what is wrong with it.
    """
    return list(registry().add(str(source)).specs)


@check_arguments
def load_data(
    data: Any = None,
    *,
    labels: Any = None,
    factors: Any = None,
    factor_names: Sequence[str] = (),
    **options: Any,
) -> Splits:
    """Load a data set, by default the one that declares itself so.

    data, labels, factors, factor_names: as in `train`.
    options: those that `vaezoo info NAME` shows.

    DataError says what is missing or wrong with the data, OptionError what with the options.
    """
    name, given = _given(data, labels, factors, factor_names)
    spec = resolve_dataset(name, {})
    parsed = parse(spec.load_options(), options, f"data set {spec.name}")
    assert isinstance(parsed, DataOptions)
    return read_data(spec, parsed, given)


def _given(
    data: Any, labels: Any, factors: Any, factor_names: Sequence[str]
) -> tuple[str | None, GivenData | None]:
    """The name of the data set, and what is given in its place."""
    if data is not None and not isinstance(data, str):
        return registry().reader_of(data).name, GivenData(data, labels, factors, factor_names)
    if not (labels is None and factors is None and not factor_names):
        raise OptionError("labels and factors are given with an array as data, not with a name")
    return data, None


@check_arguments
def create_model(
    name: str,
    data: Any,
    *,
    labels: Any = None,
    network: str | type | Network | None = None,
    bottleneck: str | type | Bottleneck | None = None,
    likelihood: str | type | Likelihood | None = None,
    sampler: str | type | None = None,
    loss: str | None = None,
    **options: Any,
) -> BaseVAE:
    """Build a new model, untrained, on the CPU, with its loss at `model.loss`.

    data: a DataSpec, the shape of an example, such as (3, 64, 64), or data as in `train`: an array,
        Splits, ..., which is read for its DataSpec. labels: with such data.
    network, bottleneck, likelihood, sampler: parts in place of the model's own: a name, a class, or
        an object of a class that was built for this data.
    loss: the name of its loss, by default the model's own.
    options: of the model, its parts and its loss, as `vaezoo info` shows them: `latent_dim=16`;
        for an array also those of the data, as `layout`.
    """
    data_name, given = None, None
    if isinstance(data, tuple):
        try:
            data = DataSpec(shape=data)
        except ValueError as error:
            raise OptionError(str(error)) from None
    elif isinstance(data, Splits):
        data = data.spec
    if not isinstance(data, DataSpec):
        data_name, given = _given(data, labels, None, ())
    elif labels is not None:
        raise OptionError("labels are given with an array as data")
    parts: dict[str, Any] = {
        "network": network,
        "bottleneck": bottleneck,
        "likelihood": likelihood,
        "sampler": sampler,
    }
    built = {kind: part for kind, part in parts.items() if not isinstance(part, str | type | None)}
    classes = {kind: type(built[kind]) if kind in built else part for kind, part in parts.items()}
    names = {kind: _register(part, kind) for kind, part in classes.items()}
    components = resolve_components({"model": name, "loss": loss, "data": data_name, **names}, {})
    sections = split_by_section(components, options)
    foreign = [key for section in ("train", "data") for key in sections[section]]
    if foreign and (isinstance(data, DataSpec) or sections["train"]):
        raise OptionError(f"{foreign[0]!r} is an option of training or data, not of a model")
    config = build_config(components, {}, sections)
    if not isinstance(data, DataSpec):
        data = read_data(components.data, config.data, given).spec
    return build_model(config, data, built)


def _register(part: str | type | None, kind: str) -> str | None:
    """The name of a part; a class is registered first. OptionError if it is of another kind."""
    if not isinstance(part, type):
        return part
    spec = registry().add_class(part)
    if spec.kind != kind:
        raise OptionError(f"{kind}: {part.__name__} is a {spec.kind}")
    return spec.name


@check_arguments
def train(
    model: str | None = None,
    *,
    data: Any = None,
    labels: Any = None,
    factors: Any = None,
    factor_names: Sequence[str] = (),
    network: str | None = None,
    bottleneck: str | None = None,
    likelihood: str | None = None,
    sampler: str | None = None,
    loss: str | None = None,
    out: Path | str | None = None,
    config: Path | str | None = None,
    auto_resume: bool = False,
    progress: bool = False,
    callback: ProgressCallback | None = None,
    **options: Any,
) -> Run:
    """Train a model into a run folder, as `vaezoo train` does, and open the run.

    model, data, loss, and the parts network, bottleneck, likelihood, sampler: names; what is not
        given comes from the config file, else from the defaults.
    data: may also be a numpy array, a tensor, a torch Dataset with a length, whose items are x or
        (x, y), a DataFrame of pandas or polars, or Splits. Options of the data, such as `layout`,
        `values` and `test_fraction`, are those of the data set that reads it: `vaezoo info arrays`
        and `vaezoo info table` show them.
    labels: with such data, the class of each example, [n]: whole numbers, texts, or bools.
    factors: its factors of variation, [n, factors], whole numbers or texts, with `factor_names`.
    out: the run folder, which must be new or empty; by default the next free one under `runs`.
    auto_resume: resume the run at `out` if it has begun, and only open it if it has finished.
    config: a YAML file.
    progress: print what the command prints while it trains: a bar on a terminal, else lines.
    callback: is called as training goes on, in place of `progress`.
    options: of training, model, parts, loss and data, by their names: `epochs=5, beta=4`.
    """
    sections = {} if config is None else load_config(Path(config))
    dataset, given = _given(data, labels, factors, factor_names)
    names = {
        "model": model,
        "network": network,
        "bottleneck": bottleneck,
        "likelihood": likelihood,
        "sampler": sampler,
        "loss": loss,
        "data": dataset,
    }
    components = resolve_components(names, sections)
    resolved = build_config(components, sections, split_by_section(components, options))
    folder = None if out is None else Path(out)
    if progress:
        if callback is not None:
            raise OptionError("give progress=True or a callback, not both")
        from vaezoo.training.progress import make_progress_callback

        callback = make_progress_callback()
    with contextlib.closing(callback or ProgressCallback()) as show:
        return start_run(resolved, folder, show, auto_resume=auto_resume, given=given)
