"""The configuration of a run: defaults, then the config file, then the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from vaezoo.data.options import DataOptions
from vaezoo.errors import OptionError, nearest, quoted
from vaezoo.options import Options, describe, format_value, parse, to_dict
from vaezoo.plain_yaml import LARGEST, NotPlainError, load_plain
from vaezoo.plugins.loader import is_source
from vaezoo.plugins.registry import WORDS, registry
from vaezoo.plugins.specs import DatasetSpec, Kind, LossSpec, ModelSpec, Spec
from vaezoo.training.options import TrainOptions

SECTIONS = ("train", "model", "loss", "data")
"""The sections of a config file, in the order in which a plain option name is looked for."""

RESERVED = ("model", "loss", "data", "config", "set", "out", "resume", "help", "callback")
"""Words that the command line and `vaezoo.train` have for themselves."""

Sections = Mapping[str, Mapping[str, Any]]

DEFAULT_DATA = "sprites"


@dataclass(frozen=True)
class Components:
    """Which model, loss and data set a run is about, with the classes of their options."""

    model: ModelSpec
    loss: LossSpec
    data: DatasetSpec

    def options(self) -> dict[str, type[Options]]:
        """The option classes by section, in the order of SECTIONS."""
        return {
            "train": TrainOptions,
            "model": self.model.load_options(),
            "loss": self.loss.load_options(),
            "data": self.data.load_options() if self.data.options else DataOptions,
        }

    def defaults(self) -> dict[str, dict[str, Any]]:
        """The defaults, by section, that differ from those of the option classes."""
        own_loss = self.loss.name == self.model.loss_name
        return {
            "train": _merge([self.data.train_options, self.model.train_options]),
            "model": dict(self.model.model_options),
            "loss": dict(self.model.loss_options) if own_loss else {},
            "data": {},
        }

    def flat_names(self) -> dict[str, tuple[str, str]]:
        """Each option by one plain name: name -> (section, field).

        Where two sections have a field of the same name, the first in the order of SECTIONS has
        it, and the later one is called `section_field`; so is one that is RESERVED.
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
    """Everything that a run follows from."""

    components: Components
    train: TrainOptions
    model: Options
    loss: Options
    data: DataOptions

    def to_dict(self) -> dict[str, dict[str, Any]]:
        return {
            "model": {"name": self.components.model.name, **to_dict(self.model)},
            "loss": {"name": self.components.loss.name, **to_dict(self.loss)},
            "data": {"name": self.components.data.name, **to_dict(self.data)},
            "train": to_dict(self.train),
        }

    def to_yaml(self) -> str:
        text: str = yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)
        return text


def resolve_components(
    model: str | None, loss: str | None, data: str | None, config: Sections
) -> Components:
    """Look the three names up: those given, else the config file's, else the defaults.

    What is given may be a file with a class, which is imported; what a config file names is not.
    """
    spec = _pick("model", model, config, None)
    if not isinstance(spec, ModelSpec):
        raise OptionError("say which model to train (vaezoo list shows them)")
    components = Components(
        model=spec,
        loss=cast(LossSpec, _pick("loss", loss, config, spec.loss_name)),
        data=cast(DatasetSpec, _pick("dataset", data, config, DEFAULT_DATA)),
    )
    missing = [tag for tag in components.loss.requires if tag not in components.model.tags]
    if missing:
        raise OptionError(
            f"loss {components.loss.name} needs a model with {' and '.join(missing)}, which "
            f"{components.model.name} is not: its own loss is {components.model.loss_name}"
        )
    return components


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
    classes, defaults = components.options(), components.defaults()
    named = {"model": components.model, "loss": components.loss, "data": components.data}
    values: dict[str, Options] = {}
    for section, cls in classes.items():
        layers: list[Mapping[str, Any]] = [defaults[section]]
        layer = config.get(section, {})
        # Options of the config file belong to the model, loss or data set that it names.
        if section == "train":
            layers.append(layer)
        elif layer.get("name", named[section].name) == named[section].name:
            layers.append({key: value for key, value in layer.items() if key != "name"})
        layers.append(given.get(section, {}))
        what = "training" if section == "train" else _title(named[section])
        values[section] = parse(cls, _merge(layers), what)
    train, data = values["train"], values["data"]
    assert isinstance(train, TrainOptions)
    if not isinstance(data, DataOptions):
        raise OptionError(f"{_title(components.data)}: its options must derive from DataOptions")
    return RunConfig(components, train, values["model"], values["loss"], data)


def split_by_section(components: Components, flat: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Plain option names into their sections; OptionError for one that nobody has."""
    names = components.flat_names()
    sections: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for name, value in flat.items():
        if name not in names:
            raise OptionError(
                f"neither training, {_title(components.model)}, {_title(components.loss)} nor "
                f"{_title(components.data)} has an option {quoted(name)}{nearest(name, names)}"
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
            sections[section][name] = load_plain(value)
        except NotPlainError as error:
            raise OptionError(f"--set {quoted(text)}: the value {error}") from None
    return sections


def load_config(path: Path) -> dict[str, dict[str, Any]]:
    """Read a config file. OptionError says what is wrong with the file."""
    try:
        with path.open("rb") as file:  # its size is not asked: it may be a pipe or a device
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise OptionError(f"{path} is too large for a configuration")
        loaded = load_plain(content.decode("utf-8"))
    except OSError as error:
        raise OptionError(f"cannot read {path}: {error.strerror or error}") from None
    except NotPlainError as error:
        where = "" if error.line is None else f", line {error.line}"
        raise OptionError(f"{path} {error}{where}") from None
    except ValueError:  # its bytes are no UTF-8, or its name none that a file can have
        raise OptionError(f"{path} is not YAML in UTF-8") from None
    if loaded is None:
        loaded = {}
    if not isinstance(loaded, dict):
        raise OptionError(f"{path} is no configuration: it needs sections {', '.join(SECTIONS)}")
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


def _merge(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Later layers win; one that says `steps` overrules an earlier one's `epochs`, and so on."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for name, other in (("steps", "epochs"), ("epochs", "steps")):
            if format_value(layer.get(name)).lower() != "none":
                merged.pop(other, None)
        merged.update(layer)
    return merged


def _title(spec: Spec) -> str:
    return f"{WORDS[spec.kind]} {spec.name}"
