"""A data set as the checks want it: with its options, loaded."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from vaezoo.data.base import BaseDataset, Split, Splits
from vaezoo.data.options import DataOptions
from vaezoo.errors import OptionError
from vaezoo.options import parse
from vaezoo.plugins.specs import DatasetSpec
from vaezoo.testing.named import Named, found


class Loaded:
    """A data set by its spec and class."""

    def __init__(self, dataset: Named, options: Mapping[str, Any] | None = None) -> None:
        spec, self.dataset_class = found(dataset, DatasetSpec, BaseDataset)
        self.spec: DatasetSpec = spec
        cls = spec.load_options() if spec.options else DataOptions
        if not issubclass(cls, DataOptions):
            raise OptionError(f"data set {spec.name}: its options must derive from DataOptions")
        self.options = parse(cls, options or {}, f"data set {spec.name}")

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def tags(self) -> tuple[str, ...]:
        return self.spec.tags

    @property
    def expected_failures(self) -> Mapping[str, str]:
        return self.dataset_class.expected_failures

    def load(self, **changes: Any) -> Splits:
        """Load it anew, with some options changed."""
        options = parse(
            type(self.options), {**self.options.model_dump(), **changes}, f"data set {self.name}"
        )
        splits: Splits = self.dataset_class(options).load()
        return splits

    @functools.cached_property
    def splits(self) -> Splits:
        return self.load()

    def parts(self) -> dict[str, Split]:
        splits = self.splits
        return {"train": splits.train, "validation": splits.validation, "test": splits.test}
