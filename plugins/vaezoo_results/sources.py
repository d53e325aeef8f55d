"""The examples that a command is about: a split of the run, another data set, or image files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vaezoo.cli.options import check_writable, choice_option, class_option, set_option
from vaezoo.errors import OptionError, RunError
from vaezoo.io import require_extra
from vaezoo.runtime import is_rank0

if TYPE_CHECKING:
    from torch import Tensor

    from vaezoo import Splits
    from vaezoo.runs.examples import ExampleBatch, Examples
    from vaezoo.runs.run import Run


TABLES = (".npz", ".npy", ".safetensors", ".csv", ".parquet")
"""The endings of files of columns."""


@dataclass(frozen=True)
class Source:
    """What was named on the command line.

    class_names, factor_names: of its data. width: of the longest name of a file, 0 without names.
    """

    examples: Examples
    class_names: Sequence[str]
    factor_names: Sequence[str]
    width: int

    def columns(self, batch: ExampleBatch) -> dict[str, Any]:
        """The name or number of each example, its class and its factors; then the values."""
        import numpy as np

        found: dict[str, Any] = {"example": batch.index.numpy()}
        if self.width:
            found["example"] = np.array(batch.names, dtype=f"<U{self.width}")
        if batch.labels is not None:
            found["label"] = batch.labels.numpy()
        if batch.factors is not None:
            for i, name in enumerate(self.factor_names):
                found[f"factor_{name}"] = batch.factors[:, i].numpy()
        return found | {name: values.numpy() for name, values in batch.values.items()}


def check_file(out: Path, overwrite: bool, endings: Sequence[str]) -> None:
    """RunError unless rank 0 can write the file; MissingExtraError if its format needs more."""
    check_writable(out, overwrite or not is_rank0(), endings)
    if out.suffix.lower() == ".parquet":
        require_extra("pyarrow", "a .parquet file", "parquet")


def source_options(function: Callable[..., Any]) -> Any:
    """The options of the examples: IMAGES, --split, --data, --set, --root and --class."""
    options = [
        click.argument("images", nargs=-1, metavar="[IMAGES]..."),
        choice_option("--split", ["test", "validation", "train"], "The split of the data."),
        click.option("--data", metavar="NAME", help="Another data set, in place of the run's."),
        set_option("An option of --data, as data.examples=1000. Repeatable."),
        click.option(
            "--root",
            type=click.Path(path_type=Path),
            metavar="DIR",
            help="Where the data lies: that of --data, or that of the run if it moved.",
        ),
        class_option,
    ]
    for option in reversed(options):
        function = option(function)
    return function


def open_source(
    run: Run,
    images: Sequence[str],
    split: Any,
    data: str | None,
    settings: Sequence[str],
    root: Path | None,
    label: str | None,
) -> Source:
    """The examples that the options name; OptionError or DataError if they do not fit."""
    if settings and data is None:
        raise OptionError("--set data...: name the data set too, by --data")
    if images and data is not None:
        raise OptionError("give image files or --data, not both")
    if label is not None and not images:
        raise OptionError("--class is for image files: a data set has classes of its own")
    splits: Splits | None = None
    if data is not None:
        splits = _load(run, data, settings, root)
        found = run.examples(splits, split=split)
    elif images:
        found = run.examples(_image_files(run, images, label))
    else:
        _check_readable(run)
        splits, found = run.splits, run.examples(split=split)
    return Source(
        found,
        () if splits is None else splits.spec.class_names,
        () if splits is None else splits.factor_names,
        _width(found),
    )


def _check_readable(run: Run) -> None:
    """RunError if only Python has the data of the run."""
    about = run.metadata.get("data")
    if isinstance(about, dict) and about.get("given"):
        raise RunError(
            "the data of this run was given from Python: name a data set by --data, or give it "
            f"again in Python, by vaezoo.load_run({str(run.path)!r}, data=...)"
        )


def _load(run: Run, data: str, settings: Sequence[str], root: Path | None) -> Splits:
    """Another data set, in the shape and with the values of the run's unless that is set."""
    from vaezoo import load_data
    from vaezoo.plugins.registry import registry

    fields = registry().resolve("dataset", data).load_options().model_fields
    spec = run.data_spec
    binarize = run.config.data.binarize
    if spec.domain == "binary" and binarize == "none":
        binarize = "threshold"
    wanted: dict[str, Any] = {"binarize": binarize}
    if spec.is_image:
        wanted |= {"image_size": (spec.height, spec.width), "channels": str(spec.channels)}
    options = {name: value for name, value in wanted.items() if name in fields}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not name.startswith("data.") or not equals:
            raise OptionError(f"--set {setting}: give data.OPTION=VALUE")
        options[name.removeprefix("data.")] = value
    if root is not None:
        options["root"] = str(root)
    return load_data(data, **options)


def _image_files(run: Run, images: Sequence[str], label: str | None) -> Any:
    import torch

    from .files import ImageFiles

    number = None if label is None else run.class_index(label)
    if run.model.conditional and number is None:
        raise OptionError("this model is conditional: give --class, the class of the images")
    labels = None if number is None else torch.full((len(images),), number)
    return ImageFiles([Path(image) for image in images], run.read_images, labels)


def _width(examples: Examples) -> int:
    """The length of the longest name; 0 if the examples have none."""
    import torch

    def longest(index: Tensor) -> int:
        return max(map(len, examples.split.names(index.to(examples.split.device)) or [""]))

    if not longest(torch.arange(1)):
        return 0
    return max(longest(part) for part in torch.arange(len(examples)).split(65_536))
