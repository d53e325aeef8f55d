"""What the checks are applied to: a model with its loss, or a data set, and small data for them."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, cast, get_args

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaezoo.config import (
    Components,
    default_parts,
    find_conflict,
    fitting_losses,
    title,
    with_own_tags,
)
from vaezoo.data.base import Batch, GivenData, Split, Splits
from vaezoo.data.loader import BatchLoader
from vaezoo.data.options import DataOptions
from vaezoo.data.spec import DataSpec, Domain
from vaezoo.errors import DataError, OptionError, VaezooError, nearest
from vaezoo.losses.base import LossOutput, Phase, StepContext, loss_of
from vaezoo.models.base import BaseVAE
from vaezoo.models.distributions import gaussian_from_params
from vaezoo.models.likelihood import Likelihood
from vaezoo.models.likelihoods import BernoulliLikelihood, GaussianLikelihood
from vaezoo.options import Options, parse
from vaezoo.plugins.registry import registry
from vaezoo.plugins.sources import base_class, spec_of_class
from vaezoo.plugins.specs import (
    SPECS,
    DatasetSpec,
    InputSpec,
    Kind,
    LossSpec,
    ModelSpec,
    NetworkSpec,
    PartKind,
    PartSpec,
    Spec,
)
from vaezoo.runs.build import build_from_classes, check_data, load_class
from vaezoo.runtime.device import Runtime, seeded
from vaezoo.testing.check import Subject
from vaezoo.training.options import TrainOptions
from vaezoo.training.train_step import TrainStep

EXAMPLES = 64
"""`num_examples` of every DataSpec here."""


def labelled(shape: tuple[int, ...], domain: Domain = "unit") -> DataSpec:
    classes = ("first", "second", "third")
    return DataSpec(shape=shape, domain=domain, class_names=classes, num_examples=EXAMPLES)


def small_data(
    takes: InputSpec, ndim: int | None = None, domains: Sequence[Domain] = get_args(Domain)
) -> DataSpec:
    """The data of most checks: a 16×16 image with one channel, or the nearest that is accepted.

    ndim: the number of spatial dimensions; by default 2, or the first that the model accepts.
    domains: those that its likelihood accepts.
    """
    domain = "unit" if "unit" in domains else domains[0]
    if takes.shape is not None:
        return labelled(takes.shape, domain)
    ndim = ndim if ndim is not None else 2 if 2 in takes.ndims else takes.ndims[0]
    if ndim == 0:
        return labelled((12,), "real" if "real" in domains else domain)
    return labelled(((takes.channels or (1,))[0], *_sides(takes, *(16, 16, 8)[:ndim])), domain)


def edge_cases(takes: InputSpec, domain: Domain = "unit") -> Iterator[DataSpec]:
    """Data specs at the limits of an InputSpec: sizes, channels, domains, labels, ranks."""
    low = max(takes.min_size, 4)
    of_ndim = {
        1: ((64,), (low + 9,)),
        2: ((28, 28), (32, 32), (64, 64), (low, low), (low, low + 9), (37, 29)),
        3: ((8, 16, 16), (low, low + 1, low + 3)),
    }
    for ndim in sorted(takes.ndims, key=(2, 1, 3, 0).index) if takes.shape is None else ():
        for sides in of_ndim.get(ndim, ()):
            for channels in takes.channels or (1, 3):
                yield labelled((channels, *_sides(takes, *sides)), domain)
    shape = small_data(takes).shape
    yield labelled(shape, domain)
    yield labelled(shape, "binary")
    if not takes.labels:
        yield DataSpec(shape=shape, domain=domain, num_examples=EXAMPLES)
    if 0 in takes.ndims and takes.shape is None:
        yield from (labelled((12,), "real"), labelled((5,), "unit"), labelled((30,), "binary"))


def _sides(takes: InputSpec, *sides: int) -> list[int]:
    """The nearest sides that the model accepts."""
    return [max(takes.min_size, min(side, takes.max_size or side)) for side in sides]


def make_batch(data: DataSpec, count: int) -> Batch:
    """Different examples with few degrees of freedom; the same ones each time.

    Vectors are sums of three sine waves; other data is blurred spots at different positions.
    """
    number = torch.arange(count)
    # Multiples of irrational numbers fill the square evenly.
    across, down = (number * 0.7549) % 1.0, (number * 0.5698) % 1.0
    if data.ndim:
        x = _spots([down, across, (number * 0.4302) % 1.0], data)
    else:
        position = torch.arange(data.numel) / data.numel
        weights = torch.stack([across, down, 1 - across]) - 0.5
        waves = torch.stack([torch.sin(2 * math.pi * k * position + k) for k in (1, 2, 3)])
        x = 2.0 * weights.T @ waves
        if data.domain != "real":
            x = torch.sigmoid(2 * x)
    if data.domain == "binary":
        x = (x >= 0.5).float()
    if data.domain == "count":
        x = (8 * x).round()
    return Batch(x, number % len(data.class_names) if data.class_names else None)


def _spots(centers: Sequence[Tensor], data: DataSpec) -> Tensor:
    """A spot for each example. centers: of each spatial dimension, [n] in 0 to 1."""
    squares = torch.zeros(len(centers[0]), *[1] * data.ndim)
    for axis, (size, center) in enumerate(zip(data.spatial_shape, centers, strict=False)):
        distance = (torch.arange(size) + 0.5) / size - center[:, None]
        around = (len(center), *[1] * axis, size, *[1] * (data.ndim - axis - 1))
        squares = squares + distance.square().view(around)
    spots = torch.exp(-squares / (2 * 0.2**2))
    shades = torch.linspace(1.0, 0.5, data.channels)
    return spots[:, None] * shades.view(-1, *[1] * data.ndim)


Named = str | Spec | type
"""A registered name or FILE.py:Class; a spec; or a class."""


def find_class(named: Named, kind: type[Spec]) -> tuple[Any, Any]:
    """The spec and the class of a name. VaezooError if it is of another kind."""
    if isinstance(named, type):
        if not issubclass(named, base := base_class(kind)):
            raise VaezooError(f"{named.__name__} is no {base.__name__}")
        return spec_of_class(named), named
    spec = registry().resolve(kind.kind, named) if isinstance(named, str) else named
    if not isinstance(spec, kind):
        raise VaezooError(f"{spec.kind} {spec.name} is no {kind.kind}")
    return spec, load_class(spec)


def _fitting_loss(model: ModelSpec, other_parts: bool) -> str:
    """The model's own loss, or, if other parts do not fit it, the first registered that does."""
    fitting = [loss.name for loss in fitting_losses(model)]
    if not other_parts or model.loss_name in fitting or not fitting:
        return model.loss_name
    return fitting[0]


def _fitting_network(own: NetworkSpec, data: DataSpec) -> NetworkSpec:
    """The network itself, or, if it does not accept the data, the first registered that does."""
    for spec in (own, *registry().specs("network")):
        with suppress(DataError):
            cast(NetworkSpec, spec).input_spec.check(data, spec.name)
            return cast(NetworkSpec, spec)
    return own


CPU = torch.device("cpu")
LEARNING_STEPS = 200


_MADE_HERE = DatasetSpec(
    name="made_here", target="vaezoo.testing.subjects:make_batch", summary="Made by the checks"
)


class ModelWithLoss(Subject):
    """A model, its parts and a loss, by their specs and classes, with options that make them small.

    parts: parts in place of the model's own, by kind. about: what is checked. dataset: the data
    that it is checked on; by default examples that are made here.
    """

    def __init__(
        self,
        model: Named,
        loss: Named | None = None,
        *,
        parts: Mapping[str, Named] | None = None,
        about: Kind = "model",
        dataset: LoadedDataset | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.dataset = dataset
        model_spec, self.model_class = find_class(model, ModelSpec)
        self.classes: dict[str, Any] = {"model": self.model_class}
        specs: dict[str, PartSpec] = default_parts(model_spec)
        for kind, named in (parts or {}).items():
            specs[kind], self.classes[kind] = find_class(named, SPECS[cast(PartKind, kind)])
        for kind, spec in specs.items():
            self.classes.setdefault(kind, load_class(spec))
        tagged = with_own_tags(model_spec, specs)
        loss = _fitting_loss(tagged, bool(parts)) if loss is None else loss
        loss_spec, self.classes["loss"] = find_class(loss, LossSpec)
        self.components = Components(tagged, loss_spec, _MADE_HERE, specs)
        self.spec = self.components.specs()[about]
        self.tags = tagged.tags
        self.expected_failures = {}
        for found in self.classes.values():
            self.expected_failures |= getattr(found, "expected_failures", {})
        if problem := find_conflict(self.components):
            raise OptionError(problem)
        self._read_options(options or {})
        if dataset is not None:
            check_data(self.components, self.data)

    @property
    def input_spec(self) -> InputSpec:
        """The data that what is checked accepts: a network, else the model."""
        spec = self.spec
        return spec.input_spec if isinstance(spec, NetworkSpec) else self.model_spec.input_spec

    @property
    def model_spec(self) -> ModelSpec:
        return self.components.model

    @property
    def loss_spec(self) -> LossSpec:
        return self.components.loss

    def _read_options(self, given: Mapping[str, Any]) -> None:
        """Read the options of model, parts, loss and training, and give each to its owner."""
        specs, defaults = self.components.specs(), self.components.defaults()
        classes = {s: spec.load_options() for s, spec in specs.items() if s != "data"}
        known = [name for cls in classes.values() for name in cls.model_fields]
        for name in given:
            if name not in known:
                raise OptionError(f"{self.name} has no option {name!r}{nearest(name, known)}")
        self.by_section: dict[str, Options] = {}
        rest = dict(given)
        for section, cls in classes.items():
            own = {k: rest.pop(k) for k in [*rest] if k in cls.model_fields}
            self.by_section[section] = _parse(cls, defaults[section], own, title(specs[section]))
        self.options = {title(specs[s]): options for s, options in self.by_section.items()}
        suits = self.components.model.train_options.items()
        suited = {k: v for k, v in suits if k not in ("epochs", "steps")}
        self.train_options = parse(TrainOptions, {"lr": 3e-3, **suited}, "training")

    @functools.cached_property
    def data(self) -> DataSpec:
        """The data set's; else a small image, or a small vector if the model accepts no images."""
        if self.dataset is not None:
            return self.dataset.splits.spec
        takes, likelihood = self.input_spec, self.components.parts.get("likelihood")
        domains = getattr(likelihood, "domains", get_args(Domain))
        first = small_data(takes, None, domains)
        try:
            self.build(first)
        except DataError:
            if 0 not in takes.ndims or takes.shape is not None:
                raise
            return small_data(takes, 0, domains)
        return first

    def part(self, kind: str, argument: object, **changes: Any) -> Any:
        """A part alone: of the data, or of the grid of a bottleneck. changes: of its options."""
        options = self.by_section[kind].model_copy(update=changes)
        with seeded(0, CPU):
            return self.classes[kind](options, argument)

    def build(self, data: DataSpec | None = None, seed: int = 0) -> BaseVAE:
        """A new model with its loss at `model.loss`, in training mode, on the CPU.

        If its network does not accept the data, it has the first registered one that does.
        DataError if the model does not accept the data.
        """
        data = self.data if data is None else data
        components, classes, options = self.components, self.classes, self.by_section
        network = components.parts.get("network")
        if isinstance(network, NetworkSpec) and network is not self.spec:
            fitting = _fitting_network(network, data)
            if fitting is not network:
                parts = {**components.parts, "network": fitting}
                components = dataclasses.replace(components, parts=parts)
                classes = {**classes, "network": load_class(fitting)}
                cls = fitting.load_options()
                options = {**options, "network": _parse(cls, {}, {}, title(fitting))}
        check_data(components, data)
        with seeded(seed, CPU):
            return build_from_classes(components.model, classes, options, data).train()

    def batch(self, count: int | None = None, data: DataSpec | None = None) -> Batch:
        """`count` examples; by default the smallest batch that the model can be trained on."""
        count = max(4, self.model_class.min_batch_size) if count is None else count
        if self.dataset is not None and data is None:
            return self.dataset.batch(count)
        return make_batch(self.data if data is None else data, count)

    def context(self, step: int = 0, total_steps: int = 100) -> StepContext:
        return StepContext(torch.tensor(step), total_steps, EXAMPLES)

    def outputs(
        self, model: BaseVAE, batch: Batch | None = None
    ) -> Iterator[tuple[Phase, LossOutput]]:
        """Each phase of a training step with its output on the batch."""
        for phase in loss_of(model).phases(model):
            yield phase, phase.loss_fn(model, batch or self.batch(), self.context())

    def loss(self, model: BaseVAE, batch: Batch) -> Tensor:
        """The loss of a batch, with a fixed seed."""
        with seeded(1, CPU):
            return loss_of(model)(model, batch, self.context(50)).loss

    def train_step(self, model: BaseVAE, total_steps: int, options: TrainOptions) -> TrainStep:
        return TrainStep(
            model,
            loss_of(model),
            options,
            runtime=Runtime(CPU, "fp32"),
            total_steps=total_steps,
            note=lambda text: None,
        )

    def train(self, model: BaseVAE, batch: Batch, steps: int) -> Iterator[Tensor]:
        """Train on one batch; yields the values of each step, [terms], the loss first."""
        set_training(model, True)
        update = self.train_step(model, steps, self.train_options)
        for step in range(steps):
            with seeded(step, CPU):
                values = update(batch, self.context(step, steps), step)
            yield values

    @functools.cached_property
    def learned(self) -> tuple[BaseVAE, float, float]:
        """A model trained on one batch until it explains half of the variance of that batch, and
        the explained variance before and after."""
        model = self.build()
        batch = self.batch(max(8, self.model_class.min_batch_size))
        before = after = explained_variance(model, batch)
        for step, _ in enumerate(self.train(model, batch, LEARNING_STEPS), 1):
            if step % 20 == 0:
                after = explained_variance(model, batch)
                if after >= 0.5:
                    break
        return model, before, after

    @functools.cached_property
    def stepped(self) -> BaseVAE:
        """A model after three training steps."""
        model = self.build()
        list(self.train(model, self.batch(), 3))
        return model

    @contextmanager
    def in_evaluation(
        self, count: int, *, learned: bool = False
    ) -> Iterator[tuple[BaseVAE, Batch, Tensor | None]]:
        """A model in evaluation mode without gradients, a batch, and the labels for the model.

        learned: the model that was trained on one batch until it overfits, so its rate is large.
        """
        model = set_training(self.learned[0] if learned else self.stepped, False)
        batch = self.batch(count)
        with seeded(0, CPU), torch.no_grad():
            yield model, batch, model.labels(batch.y)


def _parse(
    cls: type[Options], defaults: Mapping[str, Any], given: Mapping[str, Any], what: str
) -> Options:
    """Options with their `test_defaults`, unless those do not fit the other defaults."""
    small: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        small |= vars(base).get("test_defaults", {})
    try:
        return parse(cls, {**defaults, **small, **given}, what)
    except OptionError:
        return parse(cls, {**defaults, **given}, what)


def set_training(model: BaseVAE, mode: bool) -> BaseVAE:
    """Set model and loss to training mode, or to evaluation mode."""
    loss_of(model).train(mode)
    return model.train(mode)


def named_values(output: LossOutput) -> dict[str, Tensor]:
    """The loss and the terms of an output."""
    return {"loss": output.loss, **output.terms}


def explained_variance(model: BaseVAE, batch: Batch) -> float:
    """The fraction of a batch's variance that its reconstruction explains."""
    with seeded(2, CPU), torch.no_grad():
        mean = model(batch.x, batch.y).likelihood.mean
    spread = (batch.x - batch.x.mean(0)).square().sum()
    return float(1 - (mean - batch.x).square().sum() / spread)


class LoadedDataset(Subject):
    """A data set by its spec and class, with options."""

    spec: DatasetSpec

    def __init__(
        self,
        dataset: Named,
        options: Mapping[str, Any] | None = None,
        given: GivenData | None = None,
    ) -> None:
        self.given = given
        self.spec, self.dataset_class = find_class(dataset, DatasetSpec)
        self.tags = self.spec.tags
        self.expected_failures = self.dataset_class.expected_failures
        self.title = f"data set {self.name}"
        cls = self.spec.load_options() if self.spec.options else DataOptions
        if not issubclass(cls, DataOptions):
            raise OptionError(f"{self.title}: its options must derive from DataOptions")
        self.data_options = parse(cls, options or {}, self.title)
        self.options = {self.title: self.data_options}

    def load(self, **changes: Any) -> Splits:
        """Load the data set again, with some options changed."""
        values = {**self.data_options.model_dump(), **changes}
        options = parse(type(self.data_options), values, self.title)
        dataset = self.dataset_class(options)
        return dataset.load() if self.given is None else dataset.load_object(self.given)

    @functools.cached_property
    def splits(self) -> Splits:
        return self.load()

    def batch(self, count: int) -> Batch:
        """The first training examples, as a model gets them; again from the first if too few."""
        data, binarize = self.splits, self.data_options.binarize
        loader = BatchLoader(
            data.train, batch_size=count, device=CPU, spec=data.spec, binarize=binarize
        )
        return loader.batch(torch.arange(count) % len(data.train))

    def parts(self) -> dict[str, Split]:
        return {name: getattr(self.splits, name) for name in ("train", "validation", "test")}


class ReferenceVAE(BaseVAE):
    """A Gaussian latent of four between dense layers (Kingma & Welling 2013, section 3)."""

    def __init__(self, options: Options, data: DataSpec) -> None:
        super().__init__(options, data)
        self.latent_shape = (4,)
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(data.numel, 32), nn.Tanh(), nn.Linear(32, 8)
        )
        self.decoder = nn.Sequential(
            nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, data.numel), nn.Unflatten(1, data.shape)
        )
        self.likelihood: Likelihood = GaussianLikelihood(data, 0.25, learned=True)
        if data.domain == "binary":
            self.likelihood = BernoulliLikelihood(data)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return gaussian_from_params(self.encoder(x))

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return self.likelihood(self.decoder(z))
