"""What a plugin registers: names and import strings, no classes, so that lists need no torch."""

from __future__ import annotations

import copy
import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from vaezoo.data.spec import DataSpec
from vaezoo.errors import DataError, VaezooError

API_VERSION = 1
"""The version of the plugin interface. A spec made for a later one is refused."""

Kind = Literal["model", "loss", "dataset", "metric", "logger"]

CAPABILITIES: Mapping[str, str] = MappingProxyType(
    {
        "elbo": "its rate and distortion add up to a bound on the log-likelihood",
        "importance": "posterior, prior and likelihood have densities: importance weighting works",
        "discrete": "its latents are codes",
        "labels": "it is trained and sampled with class labels",
        "deterministic": "its posterior is a point",
        "external_weights": "it needs weights that are not trained here",
    }
)
"""Tags with a meaning to evaluation, so that numbers which do not compare are not put together."""

METRIC_REQUIRES: Mapping[str, str] = MappingProxyType(
    {
        "elbo": "this model has no ELBO",
        "importance": "this model has no importance weights",
        "density": "its posterior is a point and has no density",
        "discrete": "its latents are no codes",
        "continuous": "its latents are codes",
        "images": "the data is vectors, not images",
        "bounded": "it is a measure of values in [0, 1], and this data is real",
        "factors": "the factors of variation of this data are not known",
    }
)
"""What a metric may need of the model and the data: the word, and the reason where it is missing.

elbo, importance, discrete: the model has that tag. density, continuous: it has no tag
deterministic, discrete. images, bounded, factors: of the data.
"""

METRIC_COMPARABLE_KEYS: Mapping[str, str] = MappingProxyType(
    {
        "data": "the data set, as it was read, and the split",
        "likelihood": "what the nats are of: a density or a probability, given labels or not",
        "importance_samples": "the number of importance samples",
        "examples": "how many examples the estimate was made from",
        "network": "the network whose features were compared",
    }
)
"""What two numbers of a metric may have to share before one can be called the better."""

METRIC_GROUPS: Mapping[str, str] = MappingProxyType(
    {
        "likelihood": "how probable the model finds the data",
        "latent": "what its latents hold, and which of them are used",
        "reconstructions": "how near reconstructions come to their originals",
        "factors": "how its latents stand to known factors of variation",
        "samples": "how its new images stand to real ones",
    }
)

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_IMPORT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """What data a model takes; checked before anything is allocated.

    min_size: smallest height and width in pixels; max_size likewise, None for no limit.
    channels: the channel counts it takes, None for any.
    vectors: True if it (also) takes flat vectors, False if it takes images only.
    labels: True if it cannot do without class labels.
    """

    min_size: int = 1
    max_size: int | None = None
    channels: tuple[int, ...] | None = None
    vectors: bool = False
    labels: bool = False

    def describe(self) -> str:
        parts = [f"images from {self.min_size}×{self.min_size}"]
        if self.max_size is not None:
            parts[0] += f" to {self.max_size}×{self.max_size}"
        if self.channels is None:
            parts.append("any number of channels")
        else:
            parts.append(" or ".join(map(str, self.channels)) + " channels")
        if self.vectors:
            parts.append("flat vectors too")
        if self.labels:
            parts.append("with class labels")
        return ", ".join(parts)

    def check(self, data: DataSpec, model: str) -> None:
        """Raise DataError, in one line, unless the model takes this data."""
        if not data.is_image:
            if not self.vectors:
                raise DataError(
                    f"{model} takes images, and this data is vectors of {data.shape[0]} values"
                )
        else:
            smallest, largest = min(data.height, data.width), max(data.height, data.width)
            size = f"{data.height}×{data.width}"
            if smallest < self.min_size:
                raise DataError(
                    f"{model} takes images of {self.min_size}×{self.min_size} or more, not {size}: "
                    f"give --image-size {self.min_size} or more"
                )
            if self.max_size is not None and largest > self.max_size:
                raise DataError(
                    f"{model} takes images of {self.max_size}×{self.max_size} or less, not {size}: "
                    f"give --image-size {self.max_size} or less"
                )
            if self.channels is not None and data.channels not in self.channels:
                raise DataError(
                    f"{model} takes {' or '.join(map(str, self.channels))} channels, "
                    f"not {data.channels}"
                )
        if self.labels and not data.class_names:
            raise DataError(f"{model} needs class labels, and this data has none")


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What every registered thing says of itself.

    name: how users call it: small letters, digits and underscores.
    target: `package.module:Class`, imported when it is used.
    options: `package.module:Options`, its typed options (a `vaezoo.Options` subclass) in a module
        that imports no torch; None when it has none.
    summary: one line.
    paper: authors, year, and where to find it.
    tags: words to find it by; those in CAPABILITIES have a meaning to evaluation.
    """

    kind: ClassVar[Kind]
    name: str
    target: str
    options: str | None = None
    summary: str
    paper: str = ""
    tags: tuple[str, ...] = ()
    api_version: int = API_VERSION

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise VaezooError(
                f"{self.name!r} is no name for a {self.kind}: small letters, digits, underscores"
            )
        self._check_target()
        if self.options is not None:
            self._check_import("options", self.options)
        if not isinstance(self.summary, str) or not self.summary or "\n" in self.summary:
            raise VaezooError(f"{self.kind} {self.name}: the summary must be one line of text")
        if not isinstance(self.paper, str) or "\n" in self.paper:
            raise VaezooError(f"{self.kind} {self.name}: the paper must be one line of text")
        self._check_words("tags", self.tags)
        if self.api_version > API_VERSION:
            raise VaezooError(
                f"{self.kind} {self.name} is made for plugin API {self.api_version}, "
                f"this vaezoo has {API_VERSION}: upgrade vaezoo"
            )

    def _check_target(self) -> None:
        self._check_import("target", self.target)

    def _check_import(self, label: str, value: object) -> None:
        if not isinstance(value, str) or not _IMPORT.fullmatch(value):
            raise VaezooError(
                f"{self.kind} {self.name}: {label} {value!r} is not 'package.module:Name'"
            )

    def _check_words(self, label: str, value: object) -> None:
        if not isinstance(value, tuple) or not all(isinstance(word, str) for word in value):
            raise VaezooError(f"{self.kind} {self.name}: {label} must be a tuple of words")

    def _check_mapping(self, label: str, value: object) -> None:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise VaezooError(f"{self.kind} {self.name}: {label} must map names to values")

    def load(self) -> Any:
        """The class itself. Imports whatever its module imports, torch as a rule."""
        return _import(self.target, f"{self.kind} {self.name}")

    def load_options(self) -> Any:
        """The class of its options. Must not import torch."""
        from vaezoo.options import Options  # here: registering needs no pydantic

        if self.options is None:
            return Options
        found = _import(self.options, f"{self.kind} {self.name}")
        if not (isinstance(found, type) and issubclass(found, Options)):
            raise VaezooError(f"{self.kind} {self.name}: {self.options} is no vaezoo.Options class")
        return found


@dataclass(frozen=True, kw_only=True)
class ModelSpec(Spec):
    """A model: see Spec.

    loss: the objective it is trained with unless told otherwise.
    model_options, loss_options, train_options: defaults that differ from those of the classes.
    takes: what data it takes.
    base: the name of a registered model whose class and options this one has: an entry that
        differs in its objective or defaults alone needs no class of its own. `target` and
        `options` are then left out; `tags` and `takes` are the base's unless given.
    """

    kind: ClassVar[Kind] = "model"
    target: str = ""
    loss: str = "elbo"
    model_options: Mapping[str, Any] = field(default_factory=dict)
    loss_options: Mapping[str, Any] = field(default_factory=dict)
    train_options: Mapping[str, Any] = field(default_factory=dict)
    input_spec: InputSpec = InputSpec()
    base: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.loss, str) or not _NAME.fullmatch(self.loss):
            raise VaezooError(f"model {self.name}: {self.loss!r} is no name of a loss")
        for label in ("model_options", "loss_options", "train_options"):
            self._check_mapping(label, getattr(self, label))
        if not isinstance(self.input_spec, InputSpec):
            raise VaezooError(f"model {self.name}: takes must be vaezoo.InputSpec(...)")
        if self.base is not None and self.options is not None:
            raise VaezooError(
                f"model {self.name} is a variant of {self.base}: leave out target and "
                "options, which are that model's"
            )

    def inherit(self, base: ModelSpec) -> ModelSpec:
        """This variant with what it has from its base."""
        whole = copy.copy(self)
        # Past the check that a plugin's own words must pass.
        for name, value in {
            "target": base.target,
            "options": base.options,
            "input_spec": base.input_spec if self.input_spec == InputSpec() else self.input_spec,
            "tags": self.tags or base.tags,
            "model_options": {**base.model_options, **self.model_options},
            "train_options": {**base.train_options, **self.train_options},
        }.items():
            object.__setattr__(whole, name, value)
        return whole

    def _check_target(self) -> None:
        if self.base is None:
            super()._check_target()
        elif self.target or not _NAME.fullmatch(self.base):
            raise VaezooError(
                f"model {self.name}: base is the name of a model, and goes without target"
            )


@dataclass(frozen=True, kw_only=True)
class LossSpec(Spec):
    """An objective: see Spec. `needs` are the capability tags that a model must have for it."""

    kind: ClassVar[Kind] = "loss"
    requires: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_words("requires", self.requires)


@dataclass(frozen=True, kw_only=True)
class DatasetSpec(Spec):
    """A data set: see Spec. `train_options` are training defaults that suit it."""

    kind: ClassVar[Kind] = "dataset"
    train_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_mapping("train_options", self.train_options)


@dataclass(frozen=True, kw_only=True)
class MetricSpec(Spec):
    """A number that a finished model is measured by: see Spec.

    target: a subclass of vaezoo.BaseMetric.
    formula: the number in one line, as in the equation of the paper.
    unit: "" for a bare number. direction: which way is better, "neither" where none is.
    group: one of METRIC_GROUPS. requires: words of METRIC_REQUIRES.
    comparable_keys: words of METRIC_COMPARABLE_KEYS, what two numbers must share to be ranked.
    cost: in words. default: whether it is measured unless others are asked for, after training too.
    extra: the optional part of vaezoo that has to be installed for it, "" for none.
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

    def __post_init__(self) -> None:
        super().__post_init__()
        for label, known in (
            ("requires", METRIC_REQUIRES),
            ("comparable_keys", METRIC_COMPARABLE_KEYS),
        ):
            self._check_words(label, getattr(self, label))
            for word in getattr(self, label):
                if word not in known:
                    raise VaezooError(
                        f"metric {self.name}: {label} has {word!r}, which is none of "
                        f"{', '.join(known)}"
                    )
        if self.group not in METRIC_GROUPS:
            raise VaezooError(
                f"metric {self.name}: there is no group {self.group!r}, but "
                f"{', '.join(METRIC_GROUPS)}"
            )
        if self.direction not in ("higher", "lower", "neither"):
            raise VaezooError(f"metric {self.name}: better is higher, lower or neither")
        for label in ("formula", "unit", "cost", "extra"):
            text = getattr(self, label)
            if not isinstance(text, str) or "\n" in text:
                raise VaezooError(f"metric {self.name}: {label} must be one line of text")


@dataclass(frozen=True, kw_only=True)
class LoggerSpec(Spec):
    """Where the numbers of training go beside metrics.jsonl: see Spec.

    target: a subclass of vaezoo.BaseLogger.
    """

    kind: ClassVar[Kind] = "logger"


def _import(path: str, what: str) -> Any:
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever it raises is told as that plugin's fault
        raise VaezooError(
            f"{what}: importing {module_name} failed: {type(error).__name__}: {error}"
        ) from error
    if not hasattr(module, attribute):
        raise VaezooError(f"{what}: module {module_name} has no {attribute}")
    return getattr(module, attribute)
