"""Options of the data sets of files. This module imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vaezoo import DataOptions
from vaezoo.data.options import DecodeOptions, DiskOptions, ImageSize

_STANDARDIZE = (
    "auto: the model gets real-valued data with a mean of 0 and a standard deviation of 1, and all "
    "results are in the data's units; off: as it is"
)


class SplitOptions(DataOptions):
    """How data is split that does not come with a test part."""

    test_fraction: float = Field(
        0.25, gt=0, lt=1, description="fraction held out if there is no test folder or array"
    )
    split_seed: int = Field(0, ge=0, lt=2**32, description="seed of the random split")


class FolderOptions(SplitOptions, DiskOptions, DecodeOptions):
    """Options of `folder`."""

    image_size: ImageSize = Field((64, 64), description="height and width, as 64 or 96x64")
    channels: Literal["auto", "1", "3"] = Field(
        "auto", description="1: grey, 3: colour, auto: grey if a first look finds no colour"
    )
    split: Literal["random", "sorted"] = Field(
        "random",
        description="if there are no train and test folders: random by split_seed, or sorted: the "
        "first in the order of their paths are for training",
    )
    max_skipped: float = Field(
        0.1, ge=0, le=1, description="refuse the folder if a larger fraction cannot be read"
    )


class ArrayOptions(SplitOptions):
    """Options of arrays, from a file or from Python."""

    layout: Literal["auto", "channels_first", "channels_last", "no_channels"] = Field(
        "auto",
        description="where the channels of signals, images and volumes are: channels_first: after "
        "the examples; channels_last: at the end; no_channels: there is no such axis; auto: the "
        "axis of at most 4 values, and grey images if a three-dimensional array has none",
    )
    values: Literal["auto", "counts", "real"] = Field(
        "auto",
        description="what numbers are: auto: grey levels, 0 and 1, or real numbers, whichever they "
        "can be; counts: whole numbers from 0, used as they are; real: real numbers",
    )
    standardize: Literal["auto", "off"] = Field("auto", description=_STANDARDIZE)


class NpzOptions(ArrayOptions, DiskOptions):
    """Options of `npz`: root is the file."""


class TableOptions(SplitOptions, DiskOptions):
    """Options of `table`: root is the file."""

    columns: tuple[str, ...] = Field(
        (),
        description="names of the columns that are values of an example, with commas; by default "
        "all but the label and the factors",
    )
    categorical: tuple[str, ...] = Field(
        (),
        description="columns of numbers that are categories; texts are categories anyway",
    )
    label_column: str | None = Field(None, description="the column with the class of each example")
    factor_columns: tuple[str, ...] = Field(
        (), description="columns with known factors of variation: whole numbers or texts"
    )
    values: Literal["auto", "counts"] = Field(
        "auto",
        description="what numbers are: auto: real numbers, or 0 and 1 if there are no others; "
        "counts: whole numbers from 0, used as they are",
    )
    standardize: Literal["auto", "off"] = Field(
        "auto", description=f"{_STANDARDIZE}; categories, true and false stay 1 and 0"
    )
    delimiter: str = Field(
        "",
        max_length=1,
        description="character between the cells of a .csv file; by default the one of , ; | and "
        "tab that its first line has most of",
    )
    encoding: str = Field("utf-8", description="encoding of a .csv file, as latin-1")


class TorchvisionOptions(DiskOptions):
    """Options of the data sets of torchvision."""

    image_size: ImageSize | None = Field(
        None, description="height and width, as 64 or 96x64; none: as the data comes"
    )
    download: bool = Field(False, description="download the data into root if it is not there")


class EmnistOptions(TorchvisionOptions):
    """Options of `emnist`."""

    part: Literal["balanced", "byclass", "bymerge", "digits", "letters", "mnist"] = Field(
        "balanced", description="which of EMNIST's six sets"
    )


class CelebaOptions(TorchvisionOptions, DecodeOptions):
    """Options of `celeba`."""

    image_size: ImageSize = Field((64, 64), description="height and width, as 64 or 96x64")
    center_crop: int | None = Field(
        148, ge=1, description="cut this many pixels square out of the centre before resizing"
    )
