"""Finished runs: load a run folder, then sample, reconstruct and evaluate with its model."""

from __future__ import annotations

import copy
import functools
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor

from vaezoo.checkpoint.folder import RunFolder
from vaezoo.checkpoint.format import load_into, load_weights
from vaezoo.config import NO_PART, MissingDataset, RunConfig, build_config, title
from vaezoo.data.base import Batch, GivenData, Splits, Standardizer, check_examples
from vaezoo.data.loader import BatchLoader
from vaezoo.data.spec import DataSpec
from vaezoo.distributed import local_only, world_size
from vaezoo.errors import (
    DataError,
    OptionError,
    RunError,
    VaezooError,
    VaezooWarning,
    how_to_resume,
    nearest,
)
from vaezoo.evaluation.evaluate import Evaluation, evaluate, select_metrics
from vaezoo.evaluation.figures import (
    curves_figure,
    latents_figure,
    picture_figure,
    to_html,
)
from vaezoo.evaluation.latents import (
    DEFAULT_EXAMPLES,
    Interpolation,
    InterpolationMethod,
    LatentStats,
    Traversal,
    decode_mean,
    interpolate,
    latent_statistics,
    reject_discrete,
    traverse,
)
from vaezoo.evaluation.metric import FeatureChoice, no_progress
from vaezoo.evaluation.pictures import save_examples
from vaezoo.io import read_json
from vaezoo.models.base import BaseVAE
from vaezoo.models.distributions import mode, project_to_prior
from vaezoo.options import check_arguments, parse, to_dict
from vaezoo.plugins.registry import registry
from vaezoo.runs.build import (
    TooLargeError,
    build_dataset,
    build_model,
    build_sampler,
    check_given,
    check_same_data,
    limit_memory,
    read_data,
)
from vaezoo.runs.evaluation import (
    EVAL_BATCH_SIZE,
    SplitName,
    check_label,
    draw_samples,
    eval_context,
    eval_loader,
)
from vaezoo.runs.examples import (
    Examples,
    LatentKind,
    as_given,
    as_splits,
    check_latents,
    collect,
    decode_latents,
)
from vaezoo.runs.provenance import load_components
from vaezoo.runs.samplers import (
    SavedSampler,
    check_new,
    find_sampler,
    list_samplers,
    resolve_sampler,
    save_sampler,
)
from vaezoo.runtime import OnProgress, report_progress
from vaezoo.runtime.device import move_module, resolve_device, seeded, tune_malloc, versions

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = Any  # what check_arguments reads; matplotlib is imported when a plot is drawn

Seed = Annotated[int, Field(ge=0, lt=2**63)]

_MEMORY_FACTOR, _EXTRA_MEMORY = 4, 1 << 30
"""Bytes that a model may allocate for each byte of its weights, and in addition: for masks and
tables that are not saved, and the networks of its loss."""


class Run:
    """An opened run folder. The model is in evaluation mode, on `device`.

    A file is read when it is first used: not every process of a training job has the run folder.
    """

    @check_arguments
    def __init__(
        self,
        path: Path | str,
        device: str = "auto",
        *,
        root: Path | str | None = None,
        given: GivenData | None = None,
    ) -> None:
        self.folder, self._root, self._given = RunFolder(Path(path)), root, given
        self.device = resolve_device(device)
        self.sampler_name: str | None = None
        """The sampler that was chosen by `with_sampler`; "none" for the model's own prior."""
        self._sampler: SavedSampler | None = None

    def __repr__(self) -> str:
        """The model, the data and the results in one line."""
        try:
            specs = self.config.components
            text = f"{specs.model.name} on {specs.data.name}"
            text += f", sampler {self.sampler_name}" if self.sampler_name else ""
            if not self.folder.summary.exists():
                state = "imported" if self.metadata.get("imported") else "training has not ended"
                return f"Run {self.path}: {text}, {state}"
            summary = self.summary
            elbo, r2 = summary["elbo"], summary["reconstruction_r2"]
            text += f", {summary['steps']:,} steps"
            text += "" if elbo is None else f", ELBO {elbo:.2f} nats"
            return f"Run {self.path}: {text}" + ("" if r2 is None else f", R² {r2:.3f}")
        except (VaezooError, KeyError, TypeError, ValueError) as error:
            return f"Run {self.path}, damaged: {error}"

    def _repr_html_(self) -> str:
        """The run in a notebook: a line, and small pictures."""
        pictures = {"reconstructions": self.folder.reconstructions, "samples": self.folder.samples}
        return to_html(repr(self), pictures)

    @functools.cached_property
    def metadata(self) -> dict[str, Any]:
        """The content of run.json: what the run was made from."""
        return self.folder.read_metadata()

    @functools.cached_property
    def config(self) -> RunConfig:
        """The full configuration of the run."""
        components, values = load_components(self.folder)
        try:
            config = build_config(components, values, {})
        except OptionError as error:
            raise RunError(f"{self.folder.config}: {error}") from None
        if self._root is None or isinstance(components.data, MissingDataset):
            return config
        moved = {**to_dict(config.data), "root": self._root}
        data = parse(type(config.data), moved, title(components.data))
        return RunConfig(components, {**config.options, "data": data})

    @functools.cached_property
    def data_spec(self) -> DataSpec:
        """The shape, domain and classes of the run's data."""
        damaged = f"{self.folder.metadata} is damaged: "
        try:
            return DataSpec.from_dict(self.metadata["data"]["spec"])
        except (KeyError, TypeError, AttributeError):
            raise RunError(f"{damaged}it does not describe the data") from None
        except ValueError as error:
            raise RunError(f"{damaged}its description of the data is wrong: {error}") from None

    @functools.cached_property
    def _standardizer(self) -> Standardizer:
        return Standardizer(self.data_spec).to(self.device)

    @property
    def path(self) -> Path:
        return self.folder.path

    @functools.cached_property
    def model(self) -> BaseVAE:
        """The trained model. RunError if its weights are missing, damaged or of another model."""
        config, folder = self.config, self.folder
        if not (folder.weights.exists() or folder.summary.exists()) and folder.checkpoints.is_dir():
            raise RunError(f"the training of {self.path} has not ended; {how_to_resume(self.path)}")
        weights = load_weights(folder.weights)
        size = sum(tensor.nbytes for tensor in weights.values())
        try:
            # A config file from elsewhere must not allocate far more than its weights need.
            with limit_memory(_MEMORY_FACTOR * size + _EXTRA_MEMORY):
                model = build_model(config, self.data_spec)
        except TooLargeError:
            raise RunError(
                f"{folder.weights} does not fit the model, which is far larger"
            ) from None
        load_into(model, weights, folder.weights)
        model = move_module(model, self.device).eval()
        tune_malloc()
        if self.sampler_name == NO_PART:
            model.sampler = None
        elif self._sampler is not None:
            model.sampler = self._sampler.build(model)
        return model

    @property
    def sampler_record(self) -> Mapping[str, Any]:
        """How the chosen sampler was fitted: its options, examples, seed, seconds and versions."""
        return {} if self._sampler is None else self._sampler.record

    @property
    def samplers(self) -> list[str]:
        """The names of the samplers that `fit_sampler` has fitted."""
        return list_samplers(self.folder)

    @check_arguments
    def with_sampler(self, name: str, options: Mapping[str, Any] | None = None) -> Self:
        """The same run with another sampler: its samples and evaluations are with this one.

        name: one of `samplers`, that of the training, or "none" for the model's own prior.
        options: sampling options of the sampler, as {"guidance": 2.0}, in place of the saved ones.
        """
        if name == NO_PART and options:
            raise OptionError("the prior of the model itself has no options of a sampler")
        run = copy.copy(self)
        run.__dict__.pop("model", None)
        run.sampler_name, run._sampler = name, None
        if name != NO_PART:
            run._sampler = find_sampler(self.folder, self.config.components, name, options or {})
            spec = run._sampler.spec if run._sampler else self.config.components.parts["sampler"]
            run.sampler_name = spec.name
        return run

    @check_arguments
    def fit_sampler(
        self, name: str, *, seed: Seed = 0, overwrite: bool = False, **options: Any
    ) -> Self:
        """Fit a sampler to the latents of the training split, and keep it in the run folder.

        The weights of the model do not change. Returns the run with this sampler.

        name: of the sampler. options: of the sampler, as `vaezoo info NAME` shows them.
        RunError if the run has one of this name, unless `overwrite`. OptionError if the sampler
        does not take the latents of this model.
        """
        if world_size() > 1:
            raise OptionError("a sampler is fitted by one process only: leave torchrun out")
        spec = resolve_sampler(name, self.config.components)
        if not overwrite:
            check_new(self.folder, spec)
        parsed = parse(spec.load_options(), options, title(spec))
        model, start = self.with_sampler(NO_PART).model, time.perf_counter()
        loader = eval_loader(self.config, self.splits, "train", self.device)
        count = len(loader.split)

        def batches() -> Iterator[Batch]:
            for number, batch in enumerate(loader.sequential()):
                report_progress("encoding", number * loader.batch_size, count)
                yield batch

        with seeded(seed, self.device):  # the weights of a sampler are drawn when it is built
            model.sampler = move_module(build_sampler(spec, parsed, model), self.device)
            model.fit_sampler(batches())
        if not model.sampler.is_fitted:
            raise OptionError(f"{title(spec)} is not fitted with these options: give more steps")
        seconds = round(time.perf_counter() - start, 2)
        record = {"examples": count, "seed": seed, "seconds": seconds, "versions": versions()}
        save_sampler(self.folder, spec, parsed, model.sampler, record)
        return self.with_sampler(spec.name)

    @functools.cached_property
    def splits(self) -> Splits:
        """The data that the run was trained on, read again. RunError if it has changed."""
        check_given(self.metadata, self.path, self._given)
        try:
            splits = read_data(self.config.components.data, self.config.data, self._given)
        except DataError as error:
            movable = "root" in type(self.config.data).model_fields and "--root" not in str(error)
            movable = movable and self._given is None
            raise DataError(f"{error}{'; if it moved, give --root' if movable else ''}") from None
        check_same_data(self.metadata, splits)
        return replace(splits, spec=self.data_spec)

    @property
    def summary(self) -> dict[str, Any]:
        """The content of summary.json."""
        return read_json(self.folder.summary)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        return self.folder.read_metrics()

    @check_arguments
    def sample(
        self,
        n: PositiveInt,
        *,
        label: int | str | None = None,
        temperature: NonNegativeFloat = 1.0,
        seed: Seed = 0,
    ) -> Tensor:
        """n examples, [n, *shape], in the data's units, on the CPU: see `draw_samples`.

        label: the class to draw, for conditional models; by default the classes alternate.
        A VaezooWarning says it if the prior is not fitted yet.
        """
        number = None if label is None else self.class_index(label)
        return draw_samples(self.model, n, label=number, temperature=temperature, seed=seed)

    @check_arguments
    def reconstruct(self, x: Any, y: Any = None) -> Any:
        """Reconstructions, as an array if x is one, else as a tensor on the CPU: [n, *shape].

        x: a tensor or an array, [n, *shape], in [0, 1], or real, in the data's units. y: class
        numbers, [n], for conditional models. DataError for another shape and other values.
        """
        if not len(check_examples(x, self.data_spec)):
            return x
        # Not `decode`, which refuses latents that are not finite, as those of a diverged model.
        z = torch.as_tensor(self.encode(x, y))
        return as_given(self._decode(z, self._check_labels(y, len(z))), x)

    @check_arguments
    def examples(self, x: Any = None, y: Any = None, *, split: SplitName = "test") -> Examples:
        """Examples that `encode` and `score` then give in batches, in constant memory.

        x: by default the data of the run, of which `split` is used; else other Splits, a Split, or
        examples as for `reconstruct`, then y, their class numbers, [n], for conditional models.
        DataError if the examples are not as the run's.
        """
        given = self.splits if x is None else x
        splits = replace(as_splits(given, y, self.model, self._check_labels), spec=self.data_spec)
        context = eval_context(self.model, self.config, splits, split)
        binary = self.data_spec.domain == "binary" and context.batches.binarize == "none"
        if binary and x is not None:  # the 8-bit images of the run itself are 0 or 255
            context.batches.binarize = "threshold"
        return Examples(context)

    @check_arguments
    def encode(
        self,
        x: Any = None,
        y: Any = None,
        *,
        what: LatentKind | Sequence[LatentKind] = "mean",
        split: SplitName = "test",
        seed: Seed = 0,
    ) -> Any:
        """The latents of examples, [n, *latent_shape]; of several kinds, a dictionary by kind.

        x, y, split: as for `examples`. The result is an array if x is one, else a tensor.
        what: mean, the posterior's mean, or its mode where the mean has no closed form or is no
            latent (flows, spheres); std, its standard deviation; sample, a draw of it; indices, the
            numbers of the codes, int64. OptionError if the model has no such values.
        """
        kinds: Sequence[LatentKind] = [what] if isinstance(what, str) else what
        if not kinds:
            raise OptionError("encode: what names nothing: give mean, std, sample or indices")
        with local_only():
            found = collect(self.examples(x, y, split=split).encode(kinds, seed=seed), x)
        return found[kinds[0]] if isinstance(what, str) else found

    @check_arguments
    def decode(self, z: Any, y: Any = None, *, sample: bool = False, seed: Seed = 0) -> Any:
        """Examples of latents, [n, *shape], in the data's units: the likelihood's mean.

        z: [n, *latent_shape], or the indices of codes as `encode` gives them, whole numbers. The
        result is an array if z is one, else a tensor on the CPU.
        y: class numbers, [n], for conditional models. sample: draw from the likelihood, by the
        seed. DataError for latents of another shape, and for NaN and infinity.
        """
        y = self._check_labels(y, len(z) if hasattr(z, "__len__") else 0)
        return as_given(self._decode(check_latents(self.model, z), y, sample, seed), z)

    def _decode(self, z: Tensor, y: Tensor | None, sample: bool = False, seed: int = 0) -> Tensor:
        batch = EVAL_BATCH_SIZE
        return decode_latents(self.model, z, y, sample=sample, seed=seed, batch_size=batch)

    @check_arguments
    def score(
        self,
        x: Any = None,
        y: Any = None,
        *,
        importance_samples: NonNegativeInt = 0,
        split: SplitName = "test",
        seed: Seed = 0,
    ) -> dict[str, Any]:
        """Scores of each example, [n] each, by name; the mean of each is what `evaluate` gives.

        elbo, rate, distortion: nats, at one sample of the posterior. log_likelihood: nats, the
        importance-weighted estimate, if `importance_samples` is not 0. mse: the mean squared error
        of the reconstruction, in the data's units squared.
        x, y, split: as for `examples`. The scores are arrays if x is one, else tensors.
        A VaezooWarning says which scores a model does not have, and why.
        """
        with local_only():
            examples = self.examples(x, y, split=split)
            if missing := examples.missing_scores(importance_samples):
                why = "; ".join(dict.fromkeys(missing.values()))
                warnings.warn(f"no {', '.join(missing)}: {why}", VaezooWarning, stacklevel=2)
            scores = examples.score(importance_samples=importance_samples, seed=seed)
            return collect(scores, x)

    def _check_labels(self, y: Any, examples: int) -> Tensor | None:
        """The class numbers of conditional models; None for other models."""
        if not self.model.conditional:
            return None
        classes = len(self.data_spec.class_names)
        if y is None:
            raise OptionError("this model is conditional: give y, the class number of each example")
        try:
            y = torch.as_tensor(y)
        except (TypeError, ValueError, RuntimeError):
            raise DataError(f"y is no array of numbers: {type(y).__name__}") from None
        if y.is_floating_point() or y.shape != (examples,):
            raise DataError(f"y is not {examples:,} class numbers: its shape is {list(y.shape)}")
        if examples and not 0 <= int(y.min()) <= int(y.max()) < classes:
            raise DataError(f"y has other numbers than those of the classes, 0 to {classes - 1}")
        return y.long()

    @check_arguments
    def read_images(self, paths: str | Path | Sequence[str | Path]) -> Tensor:
        """Image files, preprocessed as the run's data: float in [0, 1], [n, *shape].

        Binary data gets a threshold at one half.
        """
        paths = [paths] if isinstance(paths, (str, Path)) else paths
        if not paths:
            raise OptionError("read_images: give one image file or more")
        dataset = build_dataset(self.config.components.data, self.config.data)
        levels = dataset.read_images([Path(path) for path in paths], self.data_spec)
        return (levels >= 128).float() if self.data_spec.domain == "binary" else levels / 255.0

    @check_arguments
    def example(self, which: int | str | Path) -> Batch:
        """A batch of one example, on the device: an image file, or a number in the test split.

        A file has no label. OptionError if the test split has no such number.
        """
        if not isinstance(which, int) and not str(which).isdecimal():
            return Batch(self.read_images([which]).to(self.device), None)
        loader, number = self._test_loader(), int(str(which))
        if not 0 <= number < len(loader.split):
            raise OptionError(
                f"example {number}: the test split has {len(loader.split):,}, counted from 0"
            )
        batch = loader.batch(torch.tensor([number]))
        return batch._replace(x=self._standardizer.inverse(batch.x))

    @check_arguments
    def latent_statistics(self, examples: PositiveInt = DEFAULT_EXAMPLES) -> LatentStats:
        """Statistics of each latent dimension over examples of the test split."""
        return latent_statistics(self.model, self._test_loader(), examples)

    @check_arguments
    def traverse(
        self,
        rows: PositiveInt = 10,
        *,
        steps: PositiveInt = 9,
        start: int | str | Path | None = None,
        label: int | str | None = None,
        examples: PositiveInt = DEFAULT_EXAMPLES,
        latents: LatentStats | None = None,
    ) -> Traversal:
        """Rows of images in which one latent value changes, the most informative value first.

        start: an image file or the number of a test example; by default the prior's mean. label:
        the class, which conditional models need. latents: statistics that exist already.
        OptionError for discrete latents.
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

    @check_arguments
    def interpolate(
        self,
        a: int | str | Path,
        b: int | str | Path,
        *,
        steps: PositiveInt = 10,
        method: InterpolationMethod = "slerp",
        label: int | str | None = None,
    ) -> Interpolation:
        """Images decoded between two examples: files, or numbers of test examples."""
        reject_discrete(self.config.components.model.tags)
        ends = [self.example(a), self.example(b)]
        y = self._one_class(label, ends)
        a_z, b_z = (self.encode_example(end, y) for end in ends)
        with torch.no_grad():
            z = project_to_prior(self.model.prior(), interpolate(a_z, b_z, steps, method))
        return Interpolation(
            ends[0].x.cpu(), ends[1].x.cpu(), latents=z.cpu(), images=decode_mean(self.model, z, y)
        )

    @check_arguments
    def encode_example(self, example: Batch, label: int | None = None) -> Tensor:
        """The posterior's mode, [1, *latent_shape]. label: the class of an example without one."""
        y = example.y
        if y is None and label is not None:
            y = torch.full((1,), label, device=self.device)
        with torch.no_grad():
            return mode(self.model.encode(self._standardizer(example.x), self.model.labels(y)))

    def _one_class(self, label: int | str | None, examples: list[Batch]) -> int | None:
        """The class to decode with: the given one, else that of the examples. None: no classes."""
        if label is not None:
            return self.class_index(label)
        if not self.model.conditional:
            return None
        found = {None if batch.y is None else int(batch.y) for batch in examples}
        if len(found) == 1 and None not in found:
            return found.pop()
        raise OptionError("this model is conditional: give --class, the class to decode with")

    def classes_of(self, examples: Sequence[Batch], label: str | None = None) -> Tensor | None:
        """The class of each example: the given one, else its own; None if the model takes none.

        examples: one in each batch. OptionError if one of them has no class, and none is given.
        """
        if label is not None:
            return torch.full((len(examples),), self.class_index(label))
        if not self.model.conditional:
            return None
        known = [batch.y for batch in examples if batch.y is not None and int(batch.y) >= 0]
        if len(known) < len(examples):
            raise OptionError("this model is conditional: give --class, the class of the images")
        return torch.cat(known)

    def class_index(self, label: int | str) -> int:
        """The number of a class, by its number or name. OptionError if there is no such class."""
        classes, text = self.data_spec.class_names, str(label)
        if isinstance(label, int):
            return check_label(self.model, label)
        if text in classes:
            return check_label(self.model, classes.index(text))
        if text.isdecimal() or not self.model.samples_classes:
            return check_label(self.model, int(text) if text.isdecimal() else 0)
        raise OptionError(f"--class: there is no class {text!r}{nearest(text, classes)}")

    @check_arguments
    def evaluate(
        self,
        *,
        metrics: str | Sequence[str] = ("default",),
        importance_samples: NonNegativeInt = 0,
        seed: Seed = 0,
        split: SplitName = "test",
        repeats: PositiveInt = 5,
        download: bool = False,
        features: FeatureChoice = "auto",
        on_progress: OnProgress = no_progress,
    ) -> Evaluation:
        """Compute metrics of the model on a split.

        metrics: names, groups, `default` or `all`. features: `inception`, `classifier` (a small
        network, trained on this data), or `auto`: the first of them that is available. The other
        options are those of EvalContext. All processes of a process group must call this.
        """
        context = replace(
            eval_context(self.model, self.config, self.splits, split, seed),
            importance_samples=importance_samples,
            repeats=repeats,
            download=download,
            features=features,
            on_progress=on_progress,
        )
        return evaluate(context, select_metrics([metrics] if isinstance(metrics, str) else metrics))

    def plot_curves(self) -> Figure:
        """The terms of the loss over the training steps, as a figure of matplotlib."""
        return curves_figure(self.metrics)

    @check_arguments
    def plot_samples(
        self,
        n: PositiveInt = 64,
        *,
        label: int | str | None = None,
        temperature: NonNegativeFloat = 1.0,
        seed: Seed = 0,
    ) -> Figure:
        """Samples as a figure of matplotlib: see `sample`. DataError for vectors."""
        x = self.sample(n, label=label, temperature=temperature, seed=seed)
        return picture_figure(lambda path: save_examples(path, self.data_spec, x))

    @check_arguments
    def plot_reconstructions(self, x: Any = None, y: Any = None, *, n: PositiveInt = 16) -> Figure:
        """Examples above their reconstructions, as a figure of matplotlib. DataError for vectors.

        x, y: see `reconstruct`; by default n examples of the test split, spread evenly over it.
        """
        if x is None:
            loader = self._test_loader()
            count = len(loader.split)
            batch = loader.batch(torch.linspace(0, count - 1, min(n, count)).long())
            x, y = self._standardizer.inverse(batch.x).cpu(), self.model.labels(batch.y)
        x = check_examples(x, self.data_spec)
        reconstructed = self.reconstruct(x, y)
        return picture_figure(lambda path: save_examples(path, self.data_spec, x, reconstructed))

    @check_arguments
    def plot_latents(self, examples: PositiveInt = DEFAULT_EXAMPLES) -> Figure:
        """The latents of test examples by their principal components, in colours of classes."""
        found = self.latent_statistics(examples)
        return latents_figure(found.points, found.labels, self.data_spec.class_names)

    def _test_loader(self) -> BatchLoader:
        return eval_loader(self.config, self.splits, "test", self.device)


@check_arguments
def load_run(
    path: Path | str,
    device: str = "auto",
    *,
    root: Path | str | None = None,
    sampler: str | None = None,
    sampler_options: Mapping[str, Any] | None = None,
    data: Any = None,
    labels: Any = None,
    factors: Any = None,
    factor_names: Sequence[str] = (),
) -> Run:
    """Open a run folder. RunError if there is no run.

    device: auto, cpu, cuda, ... root: where the data lies now, if it was moved.
    sampler, sampler_options: as for `Run.with_sampler`; by default the run's own.
    data, labels, factors, factor_names: what the run was trained on, if `train` got it as an
        object; only what needs the data needs them, as `evaluate`. It must hold the same values.
    """
    given = None if data is None else GivenData(data, labels, factors, factor_names)
    run = Run(RunFolder.existing(Path(path)).path, device, root=root, given=given)
    _ = run.config, run.data_spec  # raises here if they are damaged
    own = run.config.components.data
    if given is not None and (reader := registry().reader_of(data)) != own:
        raise OptionError(f"data: {given.type_name} is for {title(reader)}, not {title(own)}")
    if sampler is None:
        if sampler_options:
            raise OptionError("sampler_options go with a sampler: name it too")
        return run
    return run.with_sampler(sampler, sampler_options)
