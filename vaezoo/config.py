"""The configuration of a run: defaults, then the config file, then the command line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml

from vaezoo.data.options import DataOptions
from vaezoo.errors import OptionError, RunError, did_you_mean, nearest, quoted
from vaezoo.options import Options, cli_flag, describe, find_options, format_value, parse, to_dict
from vaezoo.plugins.registry import WORDS, registry
from vaezoo.plugins.sources import is_source
from vaezoo.plugins.specs import (
    PARTS,
    BottleneckSpec,
    DatasetSpec,
    Kind,
    LossSpec,
    ModelSpec,
    PartKind,
    PartSpec,
    SamplerSpec,
    Spec,
)
from vaezoo.training.options import TrainOptions

SECTIONS = ("train", "model", *PARTS, "loss", "data")
"""The sections of a config file, in the order in which a plain option name is looked for."""

NO_PART = "none"
"""Given as `--sampler none`: the prior of the model itself."""

RESERVED = (
    *("model", *PARTS, "loss", "data", "config", "set", "out", "resume", "auto_resume", "help"),
    *("callback", "progress", "labels", "factors", "factor_names"),
)
"""Words that the command line and `vaezoo.train` have for themselves."""

RESUMABLE = (
    *("epochs", "steps", "patience", "device", "threads", "compile", "graph", "log", "shard"),
    *(
        "lr",
        "grad_clip",
        "skip_grad_norm",
        "accumulate",
        "on_nonfinite",
        "checkpoint_seconds",
        "checkpoint_every",
        "keep_checkpoints",
    ),
    "root",
)
"""The options of training and data that may change when a run is resumed. root: if the data moved;
the data itself is compared with the run's."""

Sections = Mapping[str, Mapping[str, Any]]

MAX_BYTES = 1 << 16
"""Bytes of a config file. What comes from it stays small in memory, since aliases are refused."""


@dataclass(frozen=True)
class Components:
    """The model of a run, the parts that it is made of, its loss and its data set."""

    model: ModelSpec
    loss: LossSpec
    data: DatasetSpec
    parts: Mapping[str, PartSpec] = field(default_factory=dict)

    def specs(self) -> dict[str, Spec]:
        """The specs by section."""
        return {"model": self.model, **self.parts, "loss": self.loss, "data": self.data}

    def options(self) -> dict[str, type[Options]]:
        """The option classes by section, in the order of SECTIONS."""
        found = {section: spec.load_options() for section, spec in self.specs().items()}
        if not self.data.options:
            found["data"] = DataOptions
        return {"train": TrainOptions, **found}

    def defaults(self) -> dict[str, dict[str, Any]]:
        """The defaults that the specs set, by section.

        Those that a model sets for a part or for the loss hold for its own part or loss only.
        """
        own = {**self.model.parts, "loss": self.model.loss_name}
        changed = {**self.model.part_options, "loss": self.model.loss_options}
        specs = self.specs().items()
        return {
            **{s: dict(changed.get(s, {})) if own.get(s) == spec.name else {} for s, spec in specs},
            "train": merge_layers([self.data.train_options, self.model.train_options]),
            "model": dict(self.model.model_options),
        }

    def flat_names(self) -> dict[str, tuple[str, str]]:
        """Each option by one plain name: name -> (section, field).

        Where two sections have a field of the same name, the first in the order of SECTIONS gets
        the plain name, and the later one is called `section_field`; so is one that is RESERVED.
        """
        names: dict[str, tuple[str, str]] = {}
        for section, cls in self.options().items():
            for info in describe(cls):
                taken = info.name in names or info.name in RESERVED
                name = f"{section}_{info.name}" if taken else info.name
                names[name] = (section, info.name)
        return names


@dataclass(frozen=True)
class RunConfig:
    """The full configuration of a run: its components and all their options, by section."""

    components: Components
    options: Mapping[str, Options]

    @property
    def train(self) -> TrainOptions:
        return cast(TrainOptions, self.options["train"])

    @property
    def data(self) -> DataOptions:
        return cast(DataOptions, self.options["data"])

    def replace(self, section: str, **changes: Any) -> RunConfig:
        """The configuration with other values of some options of a section."""
        changed = self.options[section].model_copy(update=changes)
        return RunConfig(self.components, {**self.options, section: changed})

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """The sections as plain values, as they are written to config.yaml."""
        specs = self.components.specs()
        named = {s: {"name": spec.name, **to_dict(self.options[s])} for s, spec in specs.items()}
        if "sampler" in self.components.model.parts and "sampler" not in named:
            named["sampler"] = {"name": NO_PART}
        return {**named, "train": to_dict(self.train)}

    def to_yaml(self) -> str:
        """The text of config.yaml."""
        text: str = yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)
        return text


@dataclass(frozen=True, kw_only=True)
class MissingDataset(DatasetSpec):
    """Stands for the data set of a run whose plugin is not installed. why: the error, in one line.

    It has the options of every data set only.
    """

    why: str
    target: str = "vaezoo.data.base:BaseDataset"
    summary: str = "the data set of a run, whose plugin is not installed"

    def load(self) -> Any:
        raise RunError(self.why)


def resolve_components(
    names: Mapping[str, str | None], config: Sections, data: DatasetSpec | None = None
) -> Components:
    """Look up the names by section: those given, else the config file's, else the defaults.

    data: in place of the data set of that name.
    What is given may be a file with a class, which is imported; what a config file names is not.
    OptionError, in one line, if the loss or a part does not fit the model.
    """
    spec = _pick("model", names.get("model"), config, None)
    if not isinstance(spec, ModelSpec):
        raise OptionError("say which model to train (vaezoo list shows them)")
    parts = _resolve_parts(spec, names, config)
    components = Components(
        model=with_own_tags(spec, parts),
        loss=cast(LossSpec, _pick("loss", names.get("loss"), config, spec.loss_name)),
        data=data or resolve_dataset(names.get("data"), config),
        parts=parts,
    )
    if problem := find_conflict(components):
        raise OptionError(problem)
    return components


def _resolve_parts(
    model: ModelSpec, names: Mapping[str, str | None], config: Sections
) -> dict[str, PartSpec]:
    """The parts of a model: those given, else the config file's, else the model's own."""
    parts: dict[str, PartSpec] = {}
    own_config = config.get("model", {}).get("name", model.name) == model.name
    for kind in PARTS:
        default, given = default_part(model, kind), names.get(kind)
        if default is None and kind != "sampler":
            if given or (own_config and config.get(kind)):
                raise OptionError(_own_part(model, kind))
            continue
        if kind == "sampler" and (given or config.get(kind, {}).get("name")) == NO_PART:
            continue
        found = _pick(kind, given, config, None if default is None else default.name)
        if found is not None:
            parts[kind] = cast(PartSpec, found)
    return parts


def with_own_tags(model: ModelSpec, parts: Mapping[str, PartSpec]) -> ModelSpec:
    """The model with the tags that it has with these parts: they follow from the bottleneck."""
    return model.with_bottleneck(default_part(model, "bottleneck"), parts.get("bottleneck"))


def default_parts(model: ModelSpec) -> dict[str, PartSpec]:
    """The parts that a model is made of if no other is named."""
    found = {kind: default_part(model, kind) for kind in PARTS}
    return {kind: spec for kind, spec in found.items() if spec is not None}


def default_part(model: ModelSpec, kind: str) -> PartSpec | None:
    """The part of a model by default; None if it is not made of such a part."""
    name = model.parts.get(kind)
    if name is None:
        return None
    of_kind = cast(PartKind, kind)
    marked = (spec.name for spec in registry().specs(of_kind) if cast(PartSpec, spec).default)
    name = name or next(marked, "")
    if not name:
        raise OptionError(f"no installed plugin has a default {kind}: give --{kind}")
    return cast(PartSpec, registry().get(of_kind, name))


def find_conflict(components: Components) -> str:
    """Why a model, its parts and its loss do not fit together, in one line; "" if they do."""
    model, loss, parts = components.model, components.loss, components.parts
    if others := [kind for kind in parts if kind not in (*model.parts, "sampler")]:
        return _own_part(model, others[0])
    for kind, tags in model.part_requires.items():
        if kind in parts and (missing := _missing(tags, parts[kind])):
            return (
                f"{title(model)} needs a {kind} with {' and '.join(missing)}, which "
                f"{title(parts[kind])} is not"
            )
    network, bottleneck = parts.get("network"), parts.get("bottleneck")
    needs = bottleneck.requires if isinstance(bottleneck, BottleneckSpec) else ()
    if network is not None and bottleneck is not None and (missing := _missing(needs, network)):
        fitting = _names(s for s in registry().specs("network") if not _missing(missing, s))
        return (
            f"{title(bottleneck)} needs a network with {' and '.join(missing)}, which "
            f"{title(network)} is not: give --network {fitting}"
        )
    sampler = parts.get("sampler")
    latents = "discrete" if "discrete" in model.tags else "continuous"
    if isinstance(sampler, SamplerSpec) and sampler.requires and latents not in sampler.requires:
        return (
            f"{title(sampler)} is for {' and '.join(sampler.requires)} latents, and those of "
            f"{title(model)} are {latents}"
        )
    if missing := _missing(loss.requires, model):
        own = "" if loss.name == model.loss_name else f": its own loss is {model.loss_name}"
        return (
            f"{title(loss)} needs a model with {' and '.join(missing)}, which {model.name} is not"
            f"{own or f': give --loss {_names(fitting_losses(model))}'}"
        )
    return ""


def fitting_losses(model: ModelSpec) -> list[LossSpec]:
    """The registered losses that a model has the tags for."""
    losses = cast("list[LossSpec]", registry().specs("loss"))
    return [loss for loss in losses if not _missing(loss.requires, model)]


def _missing(tags: Iterable[str], spec: Spec) -> list[str]:
    return [tag for tag in tags if tag not in spec.tags]


def _own_part(model: ModelSpec, kind: str) -> str:
    return f"{title(model)} builds its own {kind}: leave out --{kind}"


def _names(specs: Iterable[Spec]) -> str:
    """Some names of specs: "conv or resnet"."""
    return " or ".join([spec.name for spec in specs][:4]) or "another one"


def resolve_dataset(name: str | None, config: Sections) -> DatasetSpec:
    """Look a data set up: the one given, else the config file's, else the default."""
    defaults = default_datasets()
    spec = _pick("dataset", name, config, defaults[0] if len(defaults) == 1 else None)
    if not isinstance(spec, DatasetSpec):
        raise OptionError("say which data set to use (vaezoo list --kind datasets shows them)")
    return spec


def default_datasets() -> list[str]:
    """The data sets that declare themselves the default: it is one, unless plugins disagree."""
    specs = cast("list[DatasetSpec]", registry().specs("dataset"))
    return [spec.name for spec in specs if spec.default]


def _pick(kind: Kind, given: str | None, config: Sections, default: str | None) -> Spec | None:
    if given:
        return registry().resolve(kind, given)
    name = config.get("data" if kind == "dataset" else kind, {}).get("name") or default
    if name is not None and is_source(str(name)):
        raise OptionError(
            f"a config file cannot name a file to run: give {name} on the command line"
        )
    return None if name is None else registry().get(kind, str(name))


def build_config(components: Components, config: Sections, given: Sections) -> RunConfig:
    """Put the layers together and validate them. OptionError names the option that is wrong."""
    defaults, specs = components.defaults(), components.specs()
    values: dict[str, Options] = {}
    classes = components.options()
    for section, cls in classes.items():
        layer = config.get(section, {})
        spec = specs.get(section)
        # Options of the config file belong to the model, part, loss or data set that it names.
        if spec is not None:
            own = layer.get("name", spec.name) == spec.name
            layer = {key: value for key, value in layer.items() if own and key != "name"}
        merged = merge_layers([defaults[section], layer, given.get(section, {})])
        for name in merged:
            owners = [other for other, owner in classes.items() if name in owner.model_fields]
            if owners and section not in owners:
                raise OptionError(
                    f"{'training' if spec is None else title(spec)} has no option {quoted(name)}: "
                    f"it is one of section {owners[0]}, as in {owners[0]}.{name}"
                )
        values[section] = parse(cls, merged, "training" if spec is None else title(spec))
    unused = [section for section, options in given.items() if options and section not in values]
    if unused:
        raise OptionError(f"{title(components.model)} has no {unused[0]} to set options of")
    if not isinstance(values["data"], DataOptions):
        raise OptionError(f"{title(components.data)}: its options must derive from DataOptions")
    return RunConfig(components, values)


def check_resumable(run: RunConfig, config: RunConfig) -> None:
    """OptionError if a configuration differs from a run's in what cannot change on resuming."""
    components = run.components.flat_names().items()
    flags = {field: cli_flag(flat) for flat, field in components}
    old, new = run.to_dict(), config.to_dict()
    for section in ("model", *PARTS, "loss", "data", "train"):
        flags[section, "name"] = "MODEL" if section == "model" else f"--{section}"
        absent = {"name": NO_PART} if section in PARTS else {}
        for name, value in old.get(section, absent).items():
            given = new.get(section, absent).get(name)
            if given != value and (section not in ("train", "data") or name not in RESUMABLE):
                raise OptionError(
                    f"{flags[section, name]} {format_value(given)}: the run has "
                    f"{format_value(value)}, which cannot change when it is resumed: only "
                    f"{', '.join(map(cli_flag, RESUMABLE))} can"
                )


def split_by_section(components: Components, flat: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Plain option names into their sections; OptionError for an unknown one."""
    names = components.flat_names()
    sections: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for name, value in flat.items():
        if name not in names:
            classes, titles = components.options(), [*map(title, components.specs().values())]
            helps = {n: classes[s].model_fields[f].description or "" for n, (s, f) in names.items()}
            raise OptionError(
                f"neither training, {', '.join(titles[:-1])} nor {titles[-1]} has an option "
                f"{quoted(name)}"
                f"{did_you_mean(find_options(name, helps))}"
            )
        section, field = names[name]
        sections[section][field] = value
    return sections


def parse_settings(settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`section.option=value` texts into sections; values are read as YAML."""
    sections: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for text in settings:
        key, equals, value = text.partition("=")
        section, dot, name = key.strip().partition(".")
        if not equals or not dot or section not in SECTIONS or not name:
            raise OptionError(
                f"--set {quoted(text)} is not SECTION.OPTION=VALUE with a section out of "
                f"{', '.join(SECTIONS)}, as in --set model.latent_dim=16"
            )
        if name == "name":
            raise OptionError(
                f"--set {quoted(text)}: name the {section} itself on the command line"
            )
        try:
            sections[section][name] = parse_yaml(value)
        except YamlError as error:
            raise OptionError(f"--set {quoted(text)}: the value {error}") from None
    return sections


def load_config(path: Path) -> dict[str, dict[str, Any]]:
    """Read a config file. OptionError says what is wrong with the file."""
    try:
        with path.open("rb") as file:  # its size is not asked: it may be a pipe or a device
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise OptionError(f"{path} is too large for a config file")
        loaded = parse_yaml(content.decode("utf-8"))
    except OSError as error:
        raise OptionError(f"cannot read {path}: {error.strerror or error}") from None
    except YamlError as error:
        raise OptionError(f"{path} {error}{error.where}") from None
    except ValueError:  # its bytes are not UTF-8, or no file can have this name
        raise OptionError(f"{path} is not YAML in UTF-8") from None
    if loaded is None:
        loaded = {}
    if not isinstance(loaded, dict):
        raise OptionError(f"{path} is no config file: it needs sections {', '.join(SECTIONS)}")
    for section, values in loaded.items():
        if section not in SECTIONS:
            raise OptionError(
                f"{path} has an unknown section {quoted(section)}{nearest(str(section), SECTIONS)} "
                f"(sections are {', '.join(SECTIONS)})"
            )
        if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
            raise OptionError(f"{path}: section {section} is not a list of option: value")
        if section != "train" and not isinstance(values.get("name", ""), str):
            raise OptionError(f"{path}: the name in section {section} is not text")
    return loaded


class YamlError(ValueError):
    """A text that is not YAML, or has more than plain values. where: ", line 3", or ""."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.where = "" if line is None else f", line {line + 1}"


def parse_yaml(text: str) -> Any:
    """The plain values in a YAML text: numbers, text, lists, mappings and so on. Dates are text.

    YamlError for a tag, an alias and what is not YAML.
    """
    try:
        return yaml.load(text, _PlainLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise YamlError("is not YAML", None if mark is None else mark.line) from None
    except RecursionError:
        raise YamlError("is nested too deeply") from None


class _PlainLoader(yaml.SafeLoader):
    """A SafeLoader that refuses tags, and aliases, which may stand for gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        line = event.start_mark.line
        if isinstance(event, yaml.AliasEvent):
            name = (event.anchor or "")[:40]
            raise YamlError(f"has the alias *{name}, and aliases are not read", line)
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise YamlError(f"has the tag {tag[:80]}, and tags are not read", line)
        return super().compose_node(parent, index)

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        """The tag of a value. Dates, merge keys, 1:9:2 (base 60) and long numbers are text here."""
        tag: str = super().resolve(kind, value, implicit)
        name = tag.rpartition(":")[2]
        text = name in ("timestamp", "merge", "value") or (name == "float" and ":" in value)
        if text or (name == "int" and re.fullmatch(r"[-+]?[0-9]{1,19}", value) is None):
            return "tag:yaml.org,2002:str"
        return tag


def merge_layers(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Later layers win; one that says `steps` overrules an earlier one's `epochs`, and so on."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for name, other in (("steps", "epochs"), ("epochs", "steps")):
            if format_value(layer.get(name)).lower() != "none":
                merged.pop(other, None)
        merged.update(layer)
    return merged


def title(spec: Spec) -> str:
    return f"{WORDS[spec.kind]} {spec.name}"
