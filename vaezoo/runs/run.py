"""A finished run: its model, ready to sample, reconstruct and be evaluated."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vaezoo.checkpoint.folder import RunFolder
from vaezoo.checkpoint.format import load_into, load_weights
from vaezoo.config import RunConfig, build_config, load_config
from vaezoo.data.base import Batch, Split, Splits
from vaezoo.data.loader import BatchLoader
from vaezoo.data.spec import DataSpec
from vaezoo.errors import DataError, OptionError, RunError, how_to_resume, nearest
from vaezoo.evaluation.embedding import Embedding, EmbeddingMethod, embed_latents
from vaezoo.evaluation.evaluate import Evaluation, evaluate, select_metrics
from vaezoo.evaluation.interpolation import Interpolation, InterpolationMethod, interpolate
from vaezoo.evaluation.latents import (
    DEFAULT_EXAMPLES,
    LatentStats,
    decode_mean,
    latent_statistics,
    project_to_prior,
)
from vaezoo.evaluation.metric import EvalContext, FeatureChoice, OnProgress, no_progress
from vaezoo.evaluation.traversal import Traversal, reject_discrete, traverse
from vaezoo.io import read_json
from vaezoo.models.base import BaseVAE
from vaezoo.models.distributions import mode
from vaezoo.models.memory import TooLargeError, limit_memory
from vaezoo.runs.build import build_dataset, build_model
from vaezoo.runs.provenance import load_components
from vaezoo.runtime.device import resolve_device
from vaezoo.runtime.seed import seeded

SplitName = Literal["train", "validation", "test"]

_AT_ONCE = 256
"""How many examples are sampled or evaluated together."""

_PER_BYTE, _BESIDE = 4, 1 << 30
"""Bytes that a model may hold for each byte of its weights, and beside these: masks and tables that
are not saved with it, the networks of its loss."""


class Run:
    """A run folder, opened. The model is in evaluation mode, on `device`.

    Its files are read when they are asked for: not every process of a job that trained it has them.
    """

    def __init__(self, path: Path | str, device: str = "auto") -> None:
        self.folder = RunFolder(Path(path))
        self.device = resolve_device(device)

    @functools.cached_property
    def metadata(self) -> dict[str, Any]:
        """The run's run.json."""
        return read_json(self.folder.metadata)

    @functools.cached_property
    def config(self) -> RunConfig:
        """Everything that the run follows from."""
        return self._read_config()

    @functools.cached_property
    def data_spec(self) -> DataSpec:
        """What its data is."""
        return self._read_data_spec()

    @property
    def path(self) -> Path:
        return self.folder.path

    @functools.cached_property
    def model(self) -> BaseVAE:
        """The trained model. RunError when its weights are missing, damaged or another model's."""
        config, folder = self.config, self.folder
        if not (folder.weights.exists() or folder.summary.exists()) and folder.checkpoints.is_dir():
            raise RunError(f"the training of {self.path} has not ended; {how_to_resume(self.path)}")
        weights = load_weights(folder.weights)
        held = sum(tensor.nbytes for tensor in weights.values())
        try:
            # A configuration, whosesoever, allocates nothing that its weights do not bear out.
            with limit_memory(_PER_BYTE * held + _BESIDE):
                model = build_model(config.components, config.model, config.loss, self.data_spec)
        except TooLargeError:
            raise RunError(
                f"{self.folder.weights} does not fit the model, which is far larger"
            ) from None
        load_into(model, weights, self.folder.weights)
        return model.to(self.device).eval()

    @functools.cached_property
    def splits(self) -> Splits:
        """The data that the run was trained on, read again. RunError when it has changed since."""
        splits = build_dataset(self.config.components.data, self.config.data).load()
        check_same_data(self.metadata, splits)
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
        """Image files as this run's data has them: float in [0, 1], [n, *shape].

        0 or 1 where the data is binary, by threshold at one half.
        """
        dataset = build_dataset(self.config.components.data, self.config.data)
        levels = dataset.read_images(paths, self.data_spec)
        return (levels >= 128).float() if self.data_spec.domain == "binary" else levels / 255.0

    def example(self, which: str) -> Batch:
        """One example as a batch of 1, on the device: a file, or a number in the test split.

        OptionError for a number that is past the end. A file has no label.
        """
        if not which.isdecimal():
            return Batch(self.read_images([Path(which)]).to(self.device), None)
        batches, number = test_batches(self.config, self.splits, self.device), int(which)
        if number >= len(batches.split):
            raise OptionError(
                f"example {number}: the test split has {len(batches.split):,}, counted from 0"
            )
        return batches.batch(torch.tensor([number]))

    def latent_statistics(self, examples: int = DEFAULT_EXAMPLES) -> LatentStats:
        """What the latents hold, by examples of the test split."""
        return latent_statistics(
            self.model, test_batches(self.config, self.splits, self.device), examples
        )

    def traverse(
        self,
        rows: int = 10,
        *,
        steps: int = 9,
        start: str | None = None,
        label: str | None = None,
        examples: int = DEFAULT_EXAMPLES,
        latents: LatentStats | None = None,
    ) -> Traversal:
        """Rows of images in which one latent value moves, the most informative value first.

        start: an image file or the number of a test example; the prior's mean by default. label:
        a class, for conditional models, which need one. latents: statistics that exist already.
        OptionError for latents that are codes.
        """
        capabilities = self.config.components.model.tags
        reject_discrete(capabilities)
        begin = None if start is None else self.example(start)
        y = self._one_class(label, [begin] if begin else [])
        z = None if begin is None else self.encode_example(begin, y)
        return traverse(
            self.model,
            latents or self.latent_statistics(examples),
            capabilities=capabilities,
            rows=rows,
            steps=steps,
            start=z,
            label=y,
        )

    def interpolate(
        self,
        a: str,
        b: str,
        *,
        steps: int = 10,
        way: InterpolationMethod = "slerp",
        label: str | None = None,
    ) -> Interpolation:
        """Images on the way between two examples: files, or numbers of test examples."""
        reject_discrete(self.config.components.model.tags)
        ends = [self.example(which) for which in (a, b)]
        y = self._one_class(label, ends)
        latents = [self.encode_example(end, y) for end in ends]
        with torch.no_grad():
            prior = self.model.prior(None)
            z = project_to_prior(prior, interpolate(latents[0], latents[1], steps, way))
        return Interpolation(
            a=ends[0].x.cpu(),
            b=ends[1].x.cpu(),
            latents=z.cpu(),
            images=decode_mean(self.model, z, y),
        )

    def embed(
        self,
        examples: int = DEFAULT_EXAMPLES,
        *,
        method: EmbeddingMethod = "pca",
        by: str | None = None,
        seed: int = 0,
    ) -> Embedding:
        """Where test examples lie in the latent space, on a plane, and what colours them."""
        return embed_latents(
            self.latent_statistics(examples), self.splits, method=method, by=by, seed=seed
        )

    def check_has_pictures(self) -> None:
        """DataError for vectors, of which there is nothing to draw."""
        if not self.data_spec.is_image:
            raise DataError("this run's data is vectors: there are no pictures of them")

    def encode_example(self, example: Batch, label: int | None = None) -> Tensor:
        """Where an example lies, [1, *latent_shape]. label: its class, where it has none itself."""
        y = example.y if label is None or example.y is not None else torch.full((1,), label)
        with torch.no_grad():
            known = None if y is None else y.to(self.device)
            return mode(self.model.encode(example.x, self.model.labels(known)))

    def _one_class(self, label: str | None, examples: list[Batch]) -> int | None:
        """The class to decode with: as given, else that of all the examples. None: no labels."""
        if label is not None:
            return self.class_index(label)
        if not self.model.conditional:
            return None
        found = {int(batch.y) if batch.y is not None else -1 for batch in examples}
        if len(found) == 1 and -1 not in found:
            return found.pop()
        raise OptionError("this model is conditional: give --class, the class to decode with")

    def class_index(self, text: str) -> int:
        """The number of a class, by its number or name. OptionError if there is none such."""
        classes = self.data_spec.class_names
        if not self.model.conditional:
            raise OptionError("--class: this model is not conditional, it takes no labels")
        if text in classes:
            return classes.index(text)
        if text.isdecimal():
            if int(text) < len(classes):
                return int(text)
            raise OptionError(f"--class {text}: classes are numbered from 0 to {len(classes) - 1}")
        raise OptionError(f"--class: there is no class {text!r}{nearest(text, classes)}")

    def evaluate(
        self,
        *,
        metrics: Iterable[str] = ("default",),
        importance_samples: int = 0,
        seed: int = 0,
        split: SplitName = "test",
        repeats: int = 5,
        download: bool = False,
        features: FeatureChoice = "auto",
        on_progress: OnProgress = no_progress,
    ) -> Evaluation:
        """Measure the model on a split; see Evaluation.

        metrics: names, groups, `default` or `all`. importance_samples: draws an example for the
        log-likelihood. repeats: how often a score with chance in it is taken. download: whether
        weights of feature networks may be fetched. features: which network images are compared by:
        `inception`, `classifier` (a small one of this data), or the first of them that is at hand.
        on_progress: called with what is being done, how much of it is done, and the total.

        In a group of processes all of them must ask, and share the work; inside
        vaezoo.distributed.local_only one does it by itself.
        """
        setting = eval_context(
            self.model,
            self.config,
            self.splits,
            self.device,
            split=split,
            seed=seed,
            importance_samples=importance_samples,
            repeats=repeats,
            download=download,
            features=features,
            on_progress=on_progress,
        )
        return evaluate(setting, select_metrics(metrics))

    def _read_config(self) -> RunConfig:
        recipe = load_config(self.folder.config)
        components = load_components(self.folder, recipe)
        try:
            return build_config(components, recipe, {})
        except OptionError as error:
            raise RunError(f"{self.folder.config}: {error}") from None

    def _read_data_spec(self) -> DataSpec:
        try:
            return DataSpec.from_dict(self.metadata["data"]["spec"])
        except (KeyError, TypeError, AttributeError):
            raise RunError(
                f"{self.folder.metadata} is damaged: it does not describe the data"
            ) from None
        except ValueError as error:
            raise RunError(
                f"{self.folder.metadata} is damaged: its description of the data is wrong: {error}"
            ) from None


def load_run(path: Path | str, device: str = "auto") -> Run:
    """Open a run folder. device: auto, cpu, cuda, ... RunError when there is no run."""
    run = Run(RunFolder.existing(Path(path)).path, device)
    _ = run.config, run.data_spec  # so that what is wrong with it is told here
    return run


def draw_samples(
    model: BaseVAE, n: int, *, label: int | None = None, temperature: float = 1.0, seed: int = 0
) -> Tensor:
    """n examples from a model in evaluation mode, on the CPU, the same for the same seed."""
    y = _labels(model, n, label)
    device = model.device
    with seeded(seed, device):
        parts = []
        for i in range(0, n, _AT_ONCE):
            count = min(_AT_ONCE, n - i)
            part = None if y is None else y[i : i + count].to(device)
            parts.append(model.sample(count, part, temperature).float().cpu())
    return torch.cat(parts)


def test_batches(config: RunConfig, splits: Splits, device: torch.device) -> BatchLoader:
    """The test split in order."""
    return BatchLoader(
        splits.test, batch_size=_AT_ONCE, device=device, binarize=config.data.binarize
    )


def eval_context(
    model: BaseVAE,
    config: RunConfig,
    splits: Splits,
    device: torch.device,
    *,
    split: SplitName = "test",
    seed: int = 0,
    importance_samples: int = 0,
    repeats: int = 5,
    download: bool = False,
    features: FeatureChoice = "auto",
    on_progress: OnProgress = no_progress,
) -> EvalContext:
    """What evaluation has to know of a run to measure its model on a split."""
    loaded: Split = getattr(splits, split)
    return EvalContext(
        model,
        frozenset(config.components.model.tags),
        BatchLoader(loaded, batch_size=_AT_ONCE, device=device, binarize=config.data.binarize),
        splits=splits,
        loaded=loaded,
        split_name=split,
        data_name=config.components.data.name,
        seed=seed,
        importance_samples=importance_samples,
        repeats=repeats,
        download=download,
        features=features,
        on_progress=on_progress,
    )


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
    classes = len(model.data.class_names)
    if label is None:
        return torch.arange(n) % classes
    if not 0 <= label < classes:
        raise OptionError(f"--class {label}: classes are numbered from 0 to {classes - 1}")
    return torch.full((n,), label)
