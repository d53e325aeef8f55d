"""Specs: what a plugin registers. Names and import strings, so that lists need no torch."""

from __future__ import annotations

import copy
import importlib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from vaezoo.data.spec import NAMES, DataSpec, Domain
from vaezoo.errors import DataError, VaezooError

API_VERSION = 2
"""The version of the plugin interface. A spec that was written for another version is refused."""

PartKind = Literal["network", "bottleneck", "likelihood", "sampler"]
Kind = Literal["model", PartKind, "loss", "dataset", "metric", "logger", "command"]

PARTS: tuple[PartKind, ...] = get_args(PartKind)
"""The kinds of parts that models are made of, in the order in which they are shown."""

CAPABILITIES: Mapping[str, str] = {
    "elbo": "its rate and distortion add up to a bound on the log-likelihood",
    "importance": "posterior, prior and likelihood have densities: importance weighting works",
    "discrete": "its latents are codes",
    "labels": "it is trained and sampled with class labels",
    "deterministic": "its posterior is a point",
    "external_weights": "it needs weights that are not trained here",
}
"""Tags that evaluation knows: they say which metrics a model has, and which are comparable."""

METRIC_REQUIRES: Mapping[str, str] = {
    "elbo": "this model has no ELBO",
    "importance": "this model has no importance weights",
    "density": "its posterior is a point and has no density",
    "discrete": "its latents are no codes",
    "continuous": "its latents are codes",
    "images": "the data is not images",
    "bounded": "it is a measure of values in [0, 1], and this data has others",
    "factors": "the factors of variation of this data are not known",
}
"""What a metric may require of model and data: the word, and the reason where it is missing.

elbo, importance, discrete: the model has that tag. density, continuous: it has no tag
deterministic, discrete. images, bounded, factors: of the data.
"""

METRIC_COMPARABLE_KEYS: Mapping[str, str] = {
    "data": "the data set, as it was read, and the split",
    "likelihood": "what the nats are of: a density or a probability, given labels or not",
    "importance_samples": "the number of importance samples",
    "examples": "how many examples the estimate was made from",
    "network": "the network whose features were compared",
}
"""What two numbers of a metric may have to share before they can be ranked."""

METRIC_GROUPS: Mapping[str, str] = {
    "likelihood": "how probable the model finds the data",
    "latent": "what its latents hold, and which of them are used",
    "reconstructions": "how near reconstructions come to their originals",
    "factors": "how its latents stand to known factors of variation",
    "samples": "how its new images stand to real ones",
}
"""The groups of metrics, in the order in which they are shown."""


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """The data that a model accepts; checked before anything is allocated.

    ndims: the numbers of spatial dimensions that it accepts: 0 for vectors, 1 for signals, 2 for
        images, 3 for volumes.
    min_size: smallest size along each of them. max_size: largest, or None for no limit.
    channels: the channel counts it accepts, None for any; of vectors it accepts any length.
    shape: the only shape it accepts, for a model of fixed size; None for any.
    labels: True if it needs class labels.
    """

    ndims: tuple[int, ...] = (2,)
    min_size: int = 1
    max_size: int | None = None
    channels: tuple[int, ...] | None = None
    shape: tuple[int, ...] | None = None
    labels: bool = False

    def __post_init__(self) -> None:
        if self.shape is not None:
            object.__setattr__(self, "ndims", (len(self.shape) - 1,))
        if not self.ndims or not {*self.ndims} <= {*range(len(NAMES))}:
            raise VaezooError(f"ndims of an InputSpec are out of 0, 1, 2, 3, not {self.ndims!r}")

    def describe(self) -> str:
        """The accepted data in one line."""
        if self.shape is not None:
            parts = [DataSpec(shape=self.shape).describe()]
        else:
            sizes = [self._sizes(n) for n in self.ndims]
            channels = "any number of" if self.channels is None else _either(self.channels)
            parts = [_either(sizes)] + [f"{channels} channels"] * any(self.ndims)
        if self.labels:
            parts.append("with class labels")
        return ", ".join(parts)

    def check(self, data: DataSpec, model: str, *, resizable: bool = False) -> None:
        """Raise DataError, in one line, unless the model accepts this data.

        resizable: whether the data set has the option image_size.
        """
        if self.shape not in (None, data.shape):
            raise DataError(f"{model} takes {self.describe()}, and this data is {data.describe()}")
        if data.ndim not in self.ndims:
            names = _either(NAMES[n] for n in self.ndims)
            raise DataError(f"{model} takes {names}, and this data is {data.describe()}")
        if problem := self._problem_of_size(data, resizable):
            raise DataError(f"{model} takes {problem}")
        if self.labels and not data.class_names:
            raise DataError(f"{model} needs class labels, and this data has none")

    def _sizes(self, ndim: int) -> str:
        low, high = (_times([size] * ndim) for size in (self.min_size, self.max_size))
        most = f" to {high}" if self.max_size is not None else ""
        return f"{NAMES[ndim]} from {low}{most}" if ndim else NAMES[0]

    def _problem_of_size(self, data: DataSpec, resizable: bool) -> str:
        if data.ndim == 0:
            return ""
        for limit, fits, word in (
            (self.min_size, min(data.spatial_shape) >= self.min_size, "more"),
            (self.max_size, max(data.spatial_shape) <= (self.max_size or math.inf), "less"),
        ):
            if not fits:
                advice = f": give --image-size {limit} or {word}" if resizable else ""
                limits = f"{NAMES[data.ndim]} of {_times([limit] * data.ndim)} or {word}"
                return f"{limits}, not {_times(data.spatial_shape)}{advice}"
        if self.channels is not None and data.channels not in self.channels:
            return f"{_either(self.channels)} channels, not {data.channels}"
        return ""


def _either(found: Iterable[object]) -> str:
    *others, last = map(str, found)
    return f"{', '.join(others)} or {last}" if others else last


def _times(sizes: Iterable[object]) -> str:
    return "×".join(map(str, sizes))


def _matches(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _are_words(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(word, str) for word in value)


def _words_of(known: Iterable[str]) -> _Check:
    expected = f"a tuple of words out of {', '.join(known)}"
    return lambda value: _are_words(value) and {*value} <= {*known}, expected


def _one_of(known: Iterable[str]) -> _Check:
    return lambda value: value in [*known], f"one of {', '.join(known)}"


_Check = tuple[Callable[[Any], bool], str]
_IMPORT = "'package.module:Name'"
_is_import = _matches(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_is_name = _matches(r"[a-z][a-z0-9_]*")
_CHECKS: Mapping[str, _Check] = {
    "name": (_is_name, "small letters, digits and underscores"),
    "target": (_is_import, _IMPORT),
    "shape": (
        lambda value: value is None or (isinstance(value, tuple) and 1 <= len(value) <= 4),
        "a tuple of one to four whole numbers, the channels first",
    ),
    "model.target": (lambda value: value == "" or _is_import(value), _IMPORT),
    "options": (lambda value: value is None or _is_import(value), _IMPORT),
    "summary": (_matches(r"[^\n]+"), "one line of text"),
    **dict.fromkeys(
        ("paper", "formula", "unit", "cost", "extra", "files"),
        (_matches(r"[^\n]*"), "one line of text"),
    ),
    **dict.fromkeys(
        ("tags", "other_names", "requires", "accepts"), (_are_words, "a tuple of words")
    ),
    **dict.fromkeys(
        ("model_options", "loss_options", "train_options"),
        (
            lambda value: isinstance(value, Mapping) and all(isinstance(key, str) for key in value),
            "a mapping from names to values",
        ),
    ),
    "parts": (
        lambda value: isinstance(value, Mapping) and {*value} <= {*PARTS},
        f"a mapping from {', '.join(PARTS)} to names",
    ),
    "domains": _words_of(get_args(Domain)),
    "base": (lambda value: value is None or _is_name(value), "the name of a model"),
    "loss": (
        lambda value: isinstance(value, LossSpec) or _is_name(value),
        "the name of a loss or a LossSpec",
    ),
    "input_spec": (lambda value: isinstance(value, InputSpec), "vaezoo.InputSpec(...)"),
    "direction": _one_of(("higher", "lower", "neither")),
    "group": _one_of(METRIC_GROUPS),
    "metric.requires": _words_of(METRIC_REQUIRES),
    "sampler.requires": _words_of(("continuous", "discrete")),
    "comparable_keys": _words_of(METRIC_COMPARABLE_KEYS),
}
"""By field, or kind and field: a condition on its value, and in words what it must be."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What is common to everything that a plugin registers.

    name: how users name it: small letters, digits and underscores.
    target: `package.module:Class`, imported when it is used.
    options: `package.module:Options`, its typed options (a `vaezoo.Options` subclass) in a module
        that imports no torch; None when it has none.
    summary: one line.
    paper: authors, year, and where to find it.
    tags: words to find it by; evaluation knows those in CAPABILITIES.
    other_names: what people call it elsewhere, in small letters and digits only, as betavae. They
        are suggested to a user who types one, not accepted.
    """

    kind: ClassVar[Kind]
    name: str
    target: str
    options: str | None = None
    summary: str
    paper: str = ""
    tags: tuple[str, ...] = ()
    other_names: tuple[str, ...] = ()
    api_version: int = API_VERSION

    def __post_init__(self) -> None:
        if self.api_version != API_VERSION:
            advice = "upgrade vaezoo" if self.api_version > API_VERSION else "upgrade the plugin"
            raise VaezooError(
                f"{self.kind} {self.name} is made for plugin API {self.api_version}, "
                f"this vaezoo has {API_VERSION}: {advice}"
            )
        for label, value in vars(self).items():
            check = _CHECKS.get(f"{self.kind}.{label}") or _CHECKS.get(label)
            if check is not None and not check[0](value):
                raise VaezooError(
                    f"{self.kind} {self.name}: {label} must be {check[1]}, not {value!r}"
                )

    def load(self) -> Any:
        """Import the class. This imports what its module imports, as a rule torch."""
        return _import(self.target, f"{self.kind} {self.name}")

    def load_options(self) -> Any:
        """Import the class of its options, which must not import torch."""
        from vaezoo.options import Options  # here: registering needs no pydantic

        if self.options is None:
            return Options
        found = _import(self.options, f"{self.kind} {self.name}")
        if not (isinstance(found, type) and issubclass(found, Options)):
            raise VaezooError(f"{self.kind} {self.name}: {self.options} is no vaezoo.Options class")
        return found


@dataclass(frozen=True, kw_only=True)
class PartSpec(Spec):
    """A part that models are made of: see Spec.

    default: True if it is used in a model that does not name its part of this kind.
    """

    kind: ClassVar[PartKind]
    default: bool = False


@dataclass(frozen=True, kw_only=True)
class NetworkSpec(PartSpec):
    """A network: see Spec. Its tag `grid` says that it has a grid of features.

    target: a subclass of vaezoo.Network. input_spec: what data it accepts.
    """

    kind: ClassVar[PartKind] = "network"
    input_spec: InputSpec = InputSpec()


@dataclass(frozen=True, kw_only=True)
class BottleneckSpec(PartSpec):
    """A bottleneck: see Spec. Its tags of CAPABILITIES are those of a model with it.

    target: a subclass of vaezoo.Bottleneck. requires: the tags that the network must have.
    """

    kind: ClassVar[PartKind] = "bottleneck"
    requires: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LikelihoodSpec(PartSpec):
    """A likelihood: see Spec.

    target: a subclass of vaezoo.Likelihood, or a function of the same arguments that makes one.
    domains: the domains of data that it accepts.
    """

    kind: ClassVar[PartKind] = "likelihood"
    domains: tuple[Domain, ...] = get_args(Domain)


@dataclass(frozen=True, kw_only=True)
class SamplerSpec(PartSpec):
    """A sampler, a prior that is fitted after training: see Spec.

    target: a subclass of vaezoo.Sampler. requires: the latents that it fits: "continuous",
        "discrete" (codes), or () for both.
    """

    kind: ClassVar[PartKind] = "sampler"
    requires: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LossSpec(Spec):
    """A loss: see Spec. requires: the capability tags that a model must have for it."""

    kind: ClassVar[Kind] = "loss"
    requires: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ModelSpec(Spec):
    """A model: see Spec.

    loss: the loss that it is trained with by default: the name of a registered one, or a LossSpec,
        which is registered with the model.
    parts: the parts that it is made of: for each kind the name of the default one; "" for the one
        that is marked as default.
    part_options: for each kind of part, defaults of that part that differ from its own.
    part_requires: for each kind of part, tags that a part of it must have in this model.
    model_options, loss_options, train_options: defaults that differ from those of the classes.
    input_spec: what data it accepts.
    base: the name of a registered model whose class and options this one has, for a model that
        differs only in its parts, its loss or its defaults. `target` and `options` are then left
        out; `tags`, `input_spec` and each part are those of the base unless given.
    """

    kind: ClassVar[Kind] = "model"
    target: str = ""
    loss: str | LossSpec = "elbo"
    parts: Mapping[str, str] = field(default_factory=dict)
    part_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    part_requires: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    model_options: Mapping[str, Any] = field(default_factory=dict)
    loss_options: Mapping[str, Any] = field(default_factory=dict)
    train_options: Mapping[str, Any] = field(default_factory=dict)
    input_spec: InputSpec = InputSpec()
    base: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.base is not None and (self.target or self.options):
            raise VaezooError(
                f"model {self.name} is a variant of {self.base}: leave out target and options, "
                "which are those of that model"
            )
        if self.base is None and not self.target:
            raise VaezooError(f"model {self.name} needs a target or a base")

    @property
    def loss_name(self) -> str:
        """The name of the loss that it is trained with by default."""
        return self.loss if isinstance(self.loss, str) else self.loss.name

    def with_bottleneck(self, own: PartSpec | None, other: PartSpec | None) -> ModelSpec:
        """This model with the tags that it has with another bottleneck than its own.

        A tag of its own bottleneck that it does not have itself, it has with no other.
        """
        if own is None or other is None or own.name == other.name:
            return self
        lacks = {*own.tags} - {*self.tags}
        kept = [tag for tag in self.tags if tag not in own.tags]
        changed = copy.copy(self)
        tags = dict.fromkeys([*kept, *(tag for tag in other.tags if tag not in lacks)])
        object.__setattr__(changed, "tags", tuple(tags))
        return changed

    def inherit(self, base: ModelSpec) -> ModelSpec:
        """This variant with the fields that it has from its base filled in."""
        filled = copy.copy(self)

        def same(kind: str) -> bool:
            return self.parts.get(kind) in (None, base.parts.get(kind))

        # Not by dataclasses.replace: it would refuse a variant that has a target.
        for name, value in {
            "target": base.target,
            "options": base.options,
            "input_spec": base.input_spec if self.input_spec == InputSpec() else self.input_spec,
            "tags": self.tags or base.tags,
            "parts": {**base.parts, **self.parts},
            "part_options": {
                kind: {
                    **(base.part_options.get(kind, {}) if same(kind) else {}),
                    **self.part_options.get(kind, {}),
                }
                for kind in {**base.part_options, **self.part_options}
            },
            "part_requires": {**base.part_requires, **self.part_requires},
            "model_options": {**base.model_options, **self.model_options},
            "train_options": {**base.train_options, **self.train_options},
        }.items():
            object.__setattr__(filled, name, value)
        return filled


@dataclass(frozen=True, kw_only=True)
class DatasetSpec(Spec):
    """A data set: see Spec.

    train_options: training defaults that suit it. default: True if it is used when none is named.
    files: the files to fetch by hand, where they come from, and where they go; "" for none.
    shape: the shape of every example, whatever the options; None if it depends on them. A model
        that does not take it is refused before anything is read.
    accepts: the types of Python objects that may be given in its place, as in
        `vaezoo.train(data=...)`, by their full names, as "numpy.ndarray"; also subclasses of these.
    """

    kind: ClassVar[Kind] = "dataset"
    train_options: Mapping[str, Any] = field(default_factory=dict)
    default: bool = False
    files: str = ""
    shape: tuple[int, ...] | None = None
    accepts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MetricSpec(Spec):
    """A metric of a trained model: see Spec.

    target: a subclass of vaezoo.MetricState. Its method `name` returns the value.
    formula: the number in one line, as in the equation of the paper.
    unit: "" for a bare number. direction: which way is better, "neither" where none is.
    group: one of METRIC_GROUPS. requires: words of METRIC_REQUIRES.
    comparable_keys: words of METRIC_COMPARABLE_KEYS, what two numbers must share to be ranked.
    cost: in words. default: True if it is computed when no metric is named, and after training.
    extra: the extra of vaezoo that has to be installed for it, "" for none.
    """

    kind: ClassVar[Kind] = "metric"
    formula: str
    unit: str = ""
    direction: Literal["higher", "lower", "neither"]
    group: str
    requires: tuple[str, ...] = ()
    comparable_keys: tuple[str, ...] = ("data",)
    cost: str = "one pass over the split"
    default: bool = False
    extra: str = ""


@dataclass(frozen=True, kw_only=True)
class LoggerSpec(Spec):
    """A logger that receives the numbers of training, beside metrics.jsonl: see Spec.

    target: a subclass of vaezoo.BaseLogger.
    """

    kind: ClassVar[Kind] = "logger"


@dataclass(frozen=True, kw_only=True)
class CommandSpec(Spec):
    """A subcommand of `vaezoo`: see Spec.

    target: a click.Command, imported when it is used. summary: what `vaezoo --help` shows.
    """

    kind: ClassVar[Kind] = "command"


SPECS: Mapping[Kind, type[Spec]] = {
    spec.kind: spec
    for spec in (
        *(ModelSpec, NetworkSpec, BottleneckSpec, LikelihoodSpec, SamplerSpec),
        *(LossSpec, DatasetSpec, MetricSpec, LoggerSpec, CommandSpec),
    )
}
"""The class of the specs of each kind."""

PLURALS: Mapping[str, Kind] = {f"{kind}{'es' if kind == 'loss' else 's'}": kind for kind in SPECS}
"""The kinds by their plurals."""


def _import(path: str, what: str) -> Any:
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # reported as a fault of the plugin
        raise VaezooError(
            f"{what}: importing {module_name} failed: {type(error).__name__}: {error}"
        ) from error
    if not hasattr(module, attribute):
        raise VaezooError(f"{what}: module {module_name} has no {attribute}")
    return getattr(module, attribute)
