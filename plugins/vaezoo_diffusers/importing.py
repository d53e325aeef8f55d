"""Make a run folder of an autoencoder in the format of diffusers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaezoo import BaseVAE, DataSpec, Splits
from vaezoo.checkpoint.folder import RunFolder
from vaezoo.checkpoint.format import check_fit, file_digest, load_into, save_weights
from vaezoo.config import RunConfig, build_config, parse_settings, resolve_components
from vaezoo.errors import DataError, OptionError, RunError, counted
from vaezoo.runs.build import build_model, read_data
from vaezoo.runs.run import Run
from vaezoo.runs.train import run_record
from vaezoo.runtime.device import seeded

from .classes import read_config
from .config import ModelConfig
from .names import CONFIG
from .weights import dtype_of, find_weights, read_weights, to_own

_FOLDER = "folder"
"""The data set of a run if none is named: any folder of images, given later."""

_NO_DATA: Mapping[str, Any] = {
    "splits": {"train": 0, "validation": 0, "test": 0},
    "description": "none yet: the run was imported without data",
    "fingerprint": None,
    "skipped": [],
    "notes": [],
    "factor_names": [],
    "column_names": [],
    "given": None,
}


def import_run(
    source: Path,
    out: Path | None = None,
    *,
    data: str | None = None,
    settings: Sequence[str] = (),
    root: Path | None = None,
) -> Run:
    """Make a run of a folder of diffusers, and open it on the CPU.

    source: a folder with config.json and weights in safetensors, or a pipeline with such a folder
        `vae`. out: the run folder, new or empty; by default the next free one under `runs`.
    data: the data set of the run, as in training. settings: options of it, as "data.test=100".
        root: where it lies. Without data and root the run has a folder of images that is named
        later, and may be any.

    RunError, OptionError or DataError, in one line, before anything is written, if the folder is
    damaged, not understood or no model of vaezoo, or the data does not fit it.
    """
    if out is not None and os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):
        raise RunError(f"{out} exists already: give another -o")
    folder = _find_folder(source)
    description = read_config(folder / CONFIG)
    weights = find_weights(folder)
    tensors, files = read_weights(weights)
    record = {
        "path": str(source),
        "format": "diffusers",
        "class": description.class_name,
        "config": description.to_dict(),
        "dtype": dtype_of(tensors),
        "sha256": {file.name: file_digest(file) for file in (folder / CONFIG, *files)},
    }
    config, splits = _configure(description, data, settings, root)
    spec = _check_data(description, config, splits)
    model = _build(config, spec, tensors, description, folder / CONFIG, weights)
    own = {**_NO_DATA, "spec": spec.to_dict()} if splits is None else {**splits.record()}
    created = RunFolder.create(
        out,
        f"{config.components.model.name}-{config.components.data.name}",
        config.to_yaml(),
        {**run_record(config, {**own, "given": None}), "imported": record},
        lambda made: save_weights(made.weights, model.state_dict()),
    )
    return Run(created.path, "cpu")


def _build(
    config: RunConfig,
    spec: DataSpec,
    tensors: Mapping[str, Tensor],
    description: ModelConfig,
    path: Path,
    weights: Path,
) -> BaseVAE:
    """The model with these weights. RunError unless they are all of its weights, and no others."""
    with seeded(0, torch.device("cpu")):  # the random state of the caller stays as it is
        try:
            with torch.device("meta"):  # sizes that the weights do not have need no memory
                expected = build_model(config, spec).state_dict()
            check_fit(description.weights_of(expected), tensors, weights)
            model = build_model(config, spec)
        except OptionError as error:
            raise RunError(f"{path}: {error}") from None
    load_into(model, to_own(tensors, description.renamed), weights)
    return model


def _find_folder(source: Path) -> Path:
    """The folder itself, or `vae` in a pipeline."""
    # By os.path, which takes a name that no file can have for one that is not there.
    if not os.path.isdir(source):
        raise RunError(f"there is no folder {source}")
    for folder in (source, source / "vae"):
        if os.path.exists(folder / CONFIG):
            return folder
    raise RunError(f"{source} has no {CONFIG}, and no folder vae that has one")


def _configure(
    description: ModelConfig,
    data: str | None,
    settings: Sequence[str],
    root: Path | None,
) -> tuple[RunConfig, Splits | None]:
    """The configuration of the run, and its data; None if it has none."""
    sections = parse_settings(settings)
    given = sections.pop("data")
    if other := next((section for section, found in sections.items() if found), None):
        raise OptionError(f"--set {other}...: it is for the data only, as in --set data.test=100")
    names = {"model": description.model_name, "data": data or _FOLDER, "sampler": "none"}
    components = resolve_components(names, {})
    fields = components.data.load_options().model_fields
    wanted: dict[str, Any] = {"channels": str(description.in_channels)}
    if description.image_size is not None:
        wanted["image_size"] = description.image_size
    if data is None and description.in_channels not in (1, 3):
        raise OptionError(
            f"the model takes images of {description.in_channels} channels, which image files do "
            "not have: give --data npz and --root, or another data set of them"
        )
    given = {**{name: value for name, value in wanted.items() if name in fields}, **given}
    if root is not None:
        given["root"] = root
    config = build_config(components, {}, {**description.options(), "data": given})
    if data is None and root is None:
        return config, None
    return config, read_data(components.data, config.data)


def _check_data(description: ModelConfig, config: RunConfig, splits: Splits | None) -> DataSpec:
    """The data's spec. DataError unless the model takes images of this size and channels."""
    channels, factor = description.in_channels, description.factor
    if splits is None:
        options: Any = config.data
        spec = DataSpec(shape=(channels, *options.image_size))
    else:
        spec = splits.spec
    if spec.channels != channels:
        raise DataError(
            f"the model takes images of {counted(channels, 'channel')}, and the data is "
            f"{spec.describe()}: give another --data, or --set data.channels={channels}"
        )
    if wrong := [size for size in spec.spatial_shape if size % factor]:
        fits = max(factor, wrong[0] // factor * factor)
        raise DataError(
            f"the model takes images whose sides are multiples of {factor}, and the data is "
            f"{spec.describe()}: give --set data.image_size={fits}, or another"
        )
    return spec
