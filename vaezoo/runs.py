"""A finished run: its model, ready to sample, reconstruct and be evaluated."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaezoo.build import build_dataset, build_model
from vaezoo.config import RunConfig, load_recipe, resolve
from vaezoo.data.base import Splits
from vaezoo.data.batches import Batches
from vaezoo.data.spec import DataSpec
from vaezoo.errors import OptionError, RunError
from vaezoo.evaluation.evaluate import Evaluation, evaluate_model
from vaezoo.evaluation.modes import seeded
from vaezoo.files import read_json
from vaezoo.model import BaseVAE
from vaezoo.module_sizes import TooLargeError, modules_within
from vaezoo.reopen import choose_again
from vaezoo.runfolder import RunFolder
from vaezoo.training.checkpoint import load_into, load_weights
from vaezoo.training.machine import pick_device

_AT_ONCE = 256
"""How many examples are sampled or evaluated together."""

_PER_BYTE, _BESIDE = 4, 1 << 30
"""Bytes that a model may hold for each byte of its weights, and beside these: masks and tables that
are not saved with it, the networks of its loss."""


class Run:
    """A run folder, opened. The model is in evaluation mode, on `device`."""

    def __init__(self, path: Path | str, device: str = "auto") -> None:
        self.folder = RunFolder.existing(Path(path))
        self.device = pick_device(device)
        self.record: dict[str, Any] = read_json(self.folder.record)
        self.config = self._read_config()
        self.data_spec = self._read_data_spec()

    @property
    def path(self) -> Path:
        return self.folder.path

    @functools.cached_property
    def model(self) -> BaseVAE:
        """The trained model. RunError when its weights are missing, damaged or another model's."""
        config, weights = self.config, load_weights(self.folder.weights)
        held = sum(tensor.nbytes for tensor in weights.values())
        try:
            # A configuration, whosesoever, allocates nothing that its weights do not bear out.
            with modules_within(_PER_BYTE * held + _BESIDE):
                model = build_model(config.choice, config.model, config.loss, self.data_spec)
        except TooLargeError:
            raise RunError(
                f"{self.folder.weights} does not fit the model, which is far larger"
            ) from None
        load_into(model, weights, self.folder.weights)
        return model.to(self.device).eval()

    @functools.cached_property
    def splits(self) -> Splits:
        """The data that the run was trained on, read again. RunError when it has changed since."""
        splits = build_dataset(self.config.choice.data, self.config.data).load()
        check_same_data(self.record, splits)
        return splits

    @property
    def summary(self) -> dict[str, Any]:
        """The run's summary.json."""
        return read_json(self.folder.summary)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of the run's metrics.jsonl."""
        return self.folder.read_metrics()

    def sample(
        self, n: int, *, label: int | None = None, temperature: float = 1.0, seed: int = 0
    ) -> Tensor:
        """n examples, [n, *shape], on the CPU.

        label: the class to draw, for conditional models; without one the classes take turns.
        """
        return draw_samples(self.model, n, label=label, temperature=temperature, seed=seed)

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """x: [n, *shape], in [0, 1]. Returns the same shape, on the CPU."""
        parts = [
            self.model.reconstruct(
                x[i : i + _AT_ONCE].to(self.device),
                None if y is None else y[i : i + _AT_ONCE].to(self.device),
            ).cpu()
            for i in range(0, len(x), _AT_ONCE)
        ]
        return torch.cat(parts) if parts else x

    def read_images(self, paths: list[Path]) -> Tensor:
        """Image files as this run's data has them: float in [0, 1], [n, *shape]."""
        dataset = build_dataset(self.config.choice.data, self.config.data)
        return dataset.read_images(paths, self.data_spec).float() / 255.0

    def evaluate(self, *, importance_samples: int = 0, seed: int = 0) -> Evaluation:
        """Measure the model on the test split; see Evaluation."""
        return evaluate_model(
            self.model,
            test_batches(self.config, self.splits, self.device),
            capabilities=self.config.choice.model.tags,
            importance_samples=importance_samples,
            seed=seed,
        )

    def _read_config(self) -> RunConfig:
        recipe = load_recipe(self.folder.config)
        choice = choose_again(self.folder, recipe)
        try:
            return resolve(choice, recipe, {})
        except OptionError as error:
            raise RunError(f"{self.folder.config}: {error}") from None

    def _read_data_spec(self) -> DataSpec:
        try:
            return DataSpec.from_dict(self.record["data"]["spec"])
        except (KeyError, TypeError, AttributeError):
            raise RunError(f"{self.folder.record} is damaged: it does not tell the data") from None
        except ValueError as error:
            raise RunError(
                f"{self.folder.record} is damaged where it tells the data: {error}"
            ) from None


def load_run(path: Path | str, device: str = "auto") -> Run:
    """Open a run folder. device: auto, cpu, cuda, ... RunError when there is no run."""
    return Run(path, device)


def draw_samples(
    model: BaseVAE, n: int, *, label: int | None = None, temperature: float = 1.0, seed: int = 0
) -> Tensor:
    """n examples from a model in evaluation mode, on the CPU, the same for the same seed."""
    y = _labels(model, n, label)
    device = model._origin.device
    with seeded(seed, device):
        parts = []
        for i in range(0, n, _AT_ONCE):
            count = min(_AT_ONCE, n - i)
            part = None if y is None else y[i : i + count].to(device)
            parts.append(model.sample(count, part, temperature).float().cpu())
    return torch.cat(parts)


def test_batches(config: RunConfig, splits: Splits, device: torch.device) -> Batches:
    """The test split in order."""
    return Batches(splits.test, batch_size=_AT_ONCE, device=device, binarize=config.data.binarize)


def check_same_data(record: dict[str, Any], splits: Splits) -> None:
    """RunError when the data is not what the run was trained on."""
    data = record.get("data")
    if not isinstance(data, dict) or data.get("fingerprint") != splits.fingerprint:
        raise RunError(
            "the data has changed since this run was trained: its numbers would not compare"
        )


def _labels(model: BaseVAE, n: int, label: int | None) -> Tensor | None:
    if not model.conditional:
        if label is not None:
            raise OptionError("--class: this model is not conditional, it takes no labels")
        return None
    classes = len(model.data.classes)
    if label is None:
        return torch.arange(n) % classes
    if not 0 <= label < classes:
        raise OptionError(f"--class {label}: classes are numbered from 0 to {classes - 1}")
    return torch.full((n,), label)
