"""What the checks are applied to: a model with its loss, or a data set, found by name and built."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaezoo.data.base import BaseDataset, Batch, Split, Splits
from vaezoo.data.options import DataOptions
from vaezoo.data.spec import DataSpec
from vaezoo.errors import DataError, OptionError, VaezooError, nearest
from vaezoo.losses.base import BaseLoss, LossOutput, StepContext, loss_of
from vaezoo.models.base import BaseVAE
from vaezoo.models.distributions import gaussian_from_params
from vaezoo.models.likelihoods import make_likelihood
from vaezoo.models.options import LikelihoodOptions
from vaezoo.options import Options, parse
from vaezoo.plugins.loader import spec_of_class
from vaezoo.plugins.registry import registry
from vaezoo.plugins.specs import DatasetSpec, LossSpec, ModelSpec, Spec
from vaezoo.runs.build import build_from_classes, load_class
from vaezoo.runtime.device import Runtime
from vaezoo.runtime.seed import seeded
from vaezoo.testing.examples import EXAMPLES, make_batch, small_image, small_vector
from vaezoo.training.options import TrainOptions
from vaezoo.training.train_step import TrainStep

Named = str | Spec | type
"""A registered name or FILE.py:Class; a spec; or a class."""


def find_class(named: Named, kind: type[Spec], base: type[Any]) -> tuple[Any, Any]:
    """The spec and the class of a name. VaezooError if it is of another kind."""
    if isinstance(named, type):
        if not issubclass(named, base):
            raise VaezooError(f"{named.__name__} is no {base.__name__}")
        return spec_of_class(named), named
    spec = registry().resolve(kind.kind, named) if isinstance(named, str) else named
    if not isinstance(spec, kind):
        raise VaezooError(f"{spec.kind} {spec.name} is no {kind.kind}")
    return spec, load_class(spec, base)


CPU = torch.device("cpu")
LEARNING_STEPS = 200
LEARNING_EXAMPLES = 8
ENOUGH = 0.5
"""Training on one batch ends when this fraction of its variance is explained."""
_LOOKS_EVERY = 20
_FEW_STEPS = 3


class ModelWithLoss:
    """A model and a loss, by their specs and classes, with options that make them small."""

    def __init__(
        self,
        model: Named,
        loss: Named | None = None,
        *,
        about: str = "model",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.model_spec, self.model_class = find_class(model, ModelSpec, BaseVAE)
        loss = self.model_spec.loss_name if loss is None else loss
        self.loss_spec, self.loss_class = find_class(loss, LossSpec, BaseLoss)
        self.name = self.model_spec.name if about == "model" else self.loss_spec.name
        missing = [tag for tag in self.loss_spec.requires if tag not in self.tags]
        if missing:
            raise OptionError(
                f"loss {self.loss_spec.name} needs a model with {' and '.join(missing)}, which "
                f"{self.model_spec.name} is not"
            )
        self._options(options or {})

    @property
    def tags(self) -> tuple[str, ...]:
        return self.model_spec.tags

    @property
    def expected_failures(self) -> Mapping[str, str]:
        return {**self.model_class.expected_failures, **self.loss_class.expected_failures}

    @functools.cached_property
    def data(self) -> DataSpec:
        """A small image; a small vector if the model does not accept images."""
        image = small_image(self.model_spec.input_spec)
        try:
            self.build(image)
        except DataError:
            if not self.model_spec.input_spec.vectors:
                raise
            return small_vector()
        return image

    def build(self, data: DataSpec | None = None, seed: int = 0, **options: Any) -> BaseVAE:
        """A new model with its loss at `model.loss`, in training mode, on the CPU.

        options: options of the model to change. DataError if the model does not accept the data.
        """
        data = self.data if data is None else data
        self.model_spec.input_spec.check(data, self.model_spec.name)
        own = self.model_options
        if options:
            own = type(own)(**{**own.model_dump(), **options})
        with seeded(seed, CPU):
            model = build_from_classes(
                self.name, self.model_class, own, self.loss_class, self.loss_options, data
            )
        return model.train()

    def batch(self, count: int | None = None, data: DataSpec | None = None) -> Batch:
        """`count` examples; by default the smallest batch that the model can be trained on."""
        least = max(4, self.model_class.min_batch_size)
        return make_batch(self.data if data is None else data, least if count is None else count)

    def context(self, step: int = 0, total_steps: int = 100) -> StepContext:
        return StepContext(torch.tensor(step), total_steps, EXAMPLES)

    def train(self, model: BaseVAE, batch: Batch, steps: int) -> Iterator[Tensor]:
        """Train on one batch; yields the values of each step, [terms], the loss first."""
        loss = loss_of(model).train()
        model.train()
        updates = TrainStep(
            model,
            loss,
            self.train_options,
            runtime=Runtime(CPU, "fp32"),
            total_steps=steps,
            note=lambda text: None,
        )
        for step in range(steps):
            with seeded(step, CPU):
                values = updates(batch, self.context(step, steps), step)
            yield values

    @functools.cached_property
    def learned(self) -> tuple[BaseVAE, float, float]:
        """A model trained on one batch, and the explained variance before and after.

        In training mode, on the batch that it was trained on.
        """
        model = self.build()
        batch = self.batch(max(LEARNING_EXAMPLES, self.model_class.min_batch_size))
        before = after = explained_variance(model, batch)
        for step, _ in enumerate(self.train(model, batch, LEARNING_STEPS), 1):
            if step % _LOOKS_EVERY == 0:
                after = explained_variance(model, batch)
                if after >= ENOUGH:
                    break
        return model, before, after

    @functools.cached_property
    def stepped(self) -> BaseVAE:
        """A model after a few training steps."""
        model = self.build()
        for _ in self.train(model, self.batch(), _FEW_STEPS):
            pass
        return model

    @contextmanager
    def in_evaluation(self, *, learned: bool = False) -> Iterator[BaseVAE]:
        """A model in evaluation mode without gradients.

        learned: the model that was trained on one batch until it overfits, so its rate is large.
        """
        model = (self.learned[0] if learned else self.stepped).eval()
        loss_of(model).eval()
        with seeded(0, CPU), torch.no_grad():
            yield model

    def _options(self, given: Mapping[str, Any]) -> None:
        """Read the options of model, loss and training, and give each option to its owner."""
        classes: dict[str, type[Options]] = {
            "model": self.model_spec.load_options(),
            "loss": self.loss_spec.load_options(),
        }
        own: dict[str, dict[str, Any]] = {"model": {}, "loss": {}}
        for name, value in given.items():
            section = next((s for s, cls in classes.items() if name in cls.model_fields), None)
            if section is None:
                known = [field for cls in classes.values() for field in cls.model_fields]
                raise OptionError(f"{self.name} has no option {name!r}{nearest(name, known)}")
            own[section][name] = value
        spec, loss = self.model_spec, self.loss_spec
        changed = spec.loss_options if loss.name == spec.loss_name else {}
        self.model_options = _parse(
            classes["model"], spec.model_options, own["model"], f"model {spec.name}"
        )
        self.loss_options = _parse(classes["loss"], changed, own["loss"], f"loss {loss.name}")
        suited = {k: v for k, v in spec.train_options.items() if k not in ("epochs", "steps")}
        self.train_options = parse(TrainOptions, {"lr": 3e-3, **suited}, "training")


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


def compute_loss(pair: ModelWithLoss, model: BaseVAE, batch: Batch, step: int = 50) -> LossOutput:
    """The loss of a batch, with a fixed seed."""
    with seeded(1, CPU):
        return loss_of(model)(model, batch, pair.context(step))


def explained_variance(model: BaseVAE, batch: Batch) -> float:
    """The fraction of a batch's variance that its reconstruction explains."""
    with seeded(2, CPU), torch.no_grad():
        mean = model(batch.x, batch.y).likelihood.mean
    spread = (batch.x - batch.x.mean(0)).square().sum()
    return float(1 - (mean - batch.x).square().sum() / spread)


class LoadedDataset:
    """A data set by its spec and class, with options."""

    def __init__(self, dataset: Named, options: Mapping[str, Any] | None = None) -> None:
        spec, self.dataset_class = find_class(dataset, DatasetSpec, BaseDataset)
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
        """Load the data set again, with some options changed."""
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


_LATENTS, _WIDE = 4, 32


class ReferenceVAE(BaseVAE):
    """A Gaussian latent of four between dense layers (Kingma & Welling 2013, section 3)."""

    options: LikelihoodOptions

    def __init__(self, options: LikelihoodOptions, data: DataSpec) -> None:
        super().__init__(options, data)
        self.latent_shape = (_LATENTS,)
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(data.numel, _WIDE), nn.Tanh(), nn.Linear(_WIDE, 2 * _LATENTS)
        )
        self.decoder = nn.Sequential(
            nn.Linear(_LATENTS, _WIDE),
            nn.Tanh(),
            nn.Linear(_WIDE, data.numel),
            nn.Unflatten(1, data.shape),
        )
        self.likelihood = make_likelihood(options, data)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return gaussian_from_params(self.encoder(x))

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return self.likelihood(self.decoder(z))
