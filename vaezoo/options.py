"""Typed options: a class of fields gives validation, help texts, docs and config files."""

from __future__ import annotations

import functools
import inspect
import re
import reprlib
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, ParamSpec, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator, validate_call
from pydantic.fields import FieldInfo

from vaezoo.errors import (
    OptionError,
    VaezooError,
    did_you_mean,
    find_similar,
    on_command_line,
    python_names,
    quoted,
)

MAX_TEXT = 4096
"""Characters of one value: no system has longer paths."""

MAX_VALUES = 1000
"""In one tuple."""

_OTHER_NAMES = {
    "accumulate": "accumulate_grad_batches gradient_accumulation_steps grad_accum accum_steps",
    "augment": "augmentation augmentations flip hflip random_flip transform transforms",
    "batch_size": "b bs batch minibatch_size train_batch_size mini_batch_size",
    "beta": "kl_weight kld_weight kl_coeff kl_beta lambda_kl kld kl",
    "center_crop": "crop",
    "checkpoint_every": "save_every save_interval save_freq ckpt_every",
    "config": "cfg config_file yaml",
    "data": "dataset data_name dataset_name",
    "device": "gpu gpus cuda cpu use_cuda no_cuda accelerator",
    "ema": "ema_decay use_ema weight_averaging",
    "epochs": "e n_epoch",
    "free_bits": "free_nats kl_min",
    "grad_clip": "clip clip_norm max_norm gradient_clip_val max_grad_norm",
    "hidden": "hidden_dims hidden_dim hidden_size channels width layers n_filters",
    "image_size": "img_size img_dim imsize resolution size resize",
    "latent_dim": "z_dim zdim nz z z_size latent latents latent_size n_latent code_size",
    "log": "logger",
    "log_every": "log_interval log_freq print_every log_every_n_steps",
    "lr": "learning_rate step_size",
    "lr_milestones": "milestones lr_step_size",
    "lr_warmup": "warmup_steps warmup_ratio warmup_epochs",
    "metric": "metrics",
    "momentum": "beta1 adam_beta1",
    "n": "num_samples n_samples samples num_images n_images count number",
    "network": "arch architecture backbone encoder encoder_type",
    "optimizer": "optim opt optimiser",
    "out": "output output_dir outdir save_dir save_path log_dir logdir results_dir run_dir name o",
    "patience": "early_stopping early_stop",
    "precision": "amp fp16 half mixed_precision dtype",
    "resume": "checkpoint ckpt ckpt_path load load_from restore continue resume_from_checkpoint",
    "root": "path data_dir data_path data_root dataroot dataset_path dataset_dir folder dir file",
    "schedule": "scheduler lr_scheduler lr_schedule lr_decay anneal",
    "seed": "random_seed random_state manual_seed",
    "steps": "iterations iters max_iters num_iterations n_iters",
    "validation": "val val_split val_size valid_size",
    "weight_decay": "wd l2 l2_reg",
}
"""What other programs call an option; only to suggest it to who types that."""

OptionsT = TypeVar("OptionsT", bound="Options")
ParamsT = ParamSpec("ParamsT")
ReturnT = TypeVar("ReturnT")


class Options(BaseModel):
    """Base of all typed options: give each field a type, a default, bounds and a description.

    Fields may be int, float, bool, str, Path, Literal, a tuple of these, or one of them or None.
    Text is understood everywhere, as it comes from a command line: "32,64" for a tuple, "none"
    for None.
    """

    test_defaults: ClassVar[Mapping[str, Any]] = {}
    """Values of some options in vaezoo.testing, besides those of base classes, to be fast."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )

    def for_vectors(self, values: int) -> Self:
        """These options for data of vectors with so many values: defaults may differ there."""
        return self

    @model_validator(mode="before")
    @classmethod
    def _read_text(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        return {name: cls._from_text(name, value) for name, value in values.items()}

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        for name in type(self).model_fields:
            problem = _problem(getattr(self, name))
            if problem:
                raise ValueError(f"{cli_flag(name)} {problem}")
        return self

    @classmethod
    def _from_text(cls, name: str, value: Any) -> Any:
        info = cls.model_fields.get(name)
        if info is None:
            return value
        branches = _branches(info.annotation)
        words = [arg for branch in branches for arg in typing.get_args(branch)]
        if isinstance(value, bool) and "off" in words and "on" in words:
            return "on" if value else "off"  # YAML reads on and off as booleans
        if not isinstance(value, str):
            return value
        if type(None) in branches and value.strip().lower() == "none":
            return None
        if any(typing.get_origin(branch) is tuple for branch in branches):
            parts = value.strip().strip("()[]").split(",")
            return tuple(part.strip() for part in parts if part.strip())
        return value


@dataclass(frozen=True)
class OptionInfo:
    """One option, as `info` and `--help` show it."""

    name: str
    type: str
    default: Any
    required: bool
    bounds: str
    choices: tuple[str, ...]
    help: str

    @property
    def is_flag(self) -> bool:
        return self.type == "true or false"

    def to_dict(self) -> dict[str, Any]:
        default = None if self.required else plain(self.default)
        return {**vars(self), "default": default, "choices": list(self.choices)}


def check_arguments(function: Callable[ParamsT, ReturnT]) -> Callable[ParamsT, ReturnT]:
    """Check the arguments of a public function by its annotations; OptionError in one line.

    Outside of the command line, its errors name arguments of Python, not flags.
    """
    checked = validate_call(config=ConfigDict(arbitrary_types_allowed=True))(function)

    @functools.wraps(function)
    def call(*args: ParamsT.args, **kwargs: ParamsT.kwargs) -> ReturnT:
        try:
            return checked(*args, **kwargs)
        except ValidationError as error:
            if error.title != function.__qualname__:  # not of these arguments
                raise
            raise OptionError(f"{function.__name__}: {_explain_call(function, error)}") from None
        except VaezooError as error:
            if error.args and not on_command_line.get():
                error.args = (python_names(str(error)), *error.args[1:])
            raise

    return call


def describe(cls: type[Options]) -> list[OptionInfo]:
    """The options of a class in the order in which they are written."""
    return [_describe(name, info) for name, info in cls.model_fields.items()]


def parse(cls: type[OptionsT], values: Mapping[str, Any], what: str) -> OptionsT:
    """Build options from values; OptionError says in one line what was wrong with which one."""
    for name in values:
        if name not in cls.model_fields:
            known = list(cls.model_fields)
            listing = f" (it has {', '.join(known)})" if known else " (it has none)"
            helps = {info.name: info.help for info in describe(cls)}
            hint = did_you_mean(find_options(str(name), helps)) or listing
            raise OptionError(f"{what} has no option {quoted(name)}{hint}")
    try:
        # Parse text first, so that validators of the class see values.
        return cls.model_validate({name: cls._from_text(name, v) for name, v in values.items()})
    except ValidationError as error:
        raise OptionError(_explain(cls, error, what)) from None


def find_options(name: str, known: Mapping[str, str]) -> list[str]:
    """At most three known options that a user may mean by a name that there is not.

    They are those that other programs call so, else those whose help has all words of the name,
    else similar ones. known: help texts by name, or by flag as `--batch-size`.
    """
    wanted = _plain_name(name)
    by_name = {_plain_name(option): option for option in known}
    words = {*wanted.split("_")}
    found = [o for plain, o in by_name.items() if wanted in _OTHER_NAMES.get(plain, "").split()]
    if not found and len(words) > 1:
        found = [o for o in known if words <= {*re.findall(r"\w+", known[o].lower())}]
    return found[:3] or [by_name[plain] for plain in find_similar(wanted, by_name, cutoff=0.65)]


def _plain_name(option: str) -> str:
    return option.strip("-").replace("-", "_").lower()


def plain(value: Any) -> Any:
    """A value as YAML and JSON can hold it."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    return value


def to_dict(options: Options) -> dict[str, Any]:
    """The options as plain values, in the order in which they are written."""
    return {name: plain(getattr(options, name)) for name in type(options).model_fields}


def format_value(value: Any) -> str:
    """A value as a user would type it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (tuple, list)):
        return ",".join(format_value(item) for item in value)
    return "none" if value is None else str(value)


def _problem(value: Any) -> str:
    """Why a value of the right type is refused nevertheless: "" if it is not."""
    if isinstance(value, tuple):
        if len(value) > MAX_VALUES:
            return f"has more than {MAX_VALUES:,} values in one place"
        return next(filter(None, map(_problem, value)), "")
    if isinstance(value, int) and abs(value) >= 2**63:
        return "is too large a number"
    if isinstance(value, (str, Path)):
        if len(str(value)) > MAX_TEXT:
            return f"is longer than {MAX_TEXT:,} characters"
        # Surrogates stand for bytes in names of files from \udc80 to \udcff only.
        if re.search("[\0\ud800-\udc7f\udd00-\udfff]", str(value)):
            return "holds characters that are no text"
    return ""


def _branches(annotation: Any) -> tuple[Any, ...]:
    """The types that a value may have, without what is noted beside them."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return tuple(branch for arg in args for branch in _branches(arg))
    if origin is typing.Annotated:
        return _branches(args[0])
    return (annotation,)


def _type_name(annotation: Any) -> str:
    names = {int: "integer", float: "number", bool: "true or false", str: "text", Path: "path"}
    names[type(None)] = "none"
    if annotation in names:
        return names[annotation]
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type_name(args[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type_name(arg) for arg in args))
    if origin is Literal:
        return "choice"
    if origin is tuple:
        inner = _type_name(args[0])
        return f"{inner}s, with commas between" if args[-1] is Ellipsis else f"{len(args)} {inner}s"
    return getattr(annotation, "__name__", str(annotation))


def _bounds(info: FieldInfo) -> str:
    found = _limits(info.metadata)
    for branch in _branches(info.annotation):
        if typing.get_origin(branch) is tuple:
            inner = getattr(typing.get_args(branch)[0], "__metadata__", ())
            rules = [rule for item in inner for rule in getattr(item, "metadata", [item])]
            found += [f"each {limit}" for limit in _limits(rules)]
    return ", ".join(found)


def _limits(rules: Iterable[Any]) -> list[str]:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = [(sign, getattr(rule, name, None)) for rule in rules for name, sign in signs.items()]
    return [
        f"{sign} {limit if isinstance(limit, int) else format(limit, 'g')}"
        for sign, limit in found
        if limit is not None
    ]


def _describe(name: str, info: FieldInfo) -> OptionInfo:
    literals = (b for b in _branches(info.annotation) if typing.get_origin(b) is Literal)
    return OptionInfo(
        name=name,
        type=_type_name(info.annotation),
        default=None if info.is_required() else info.get_default(call_default_factory=True),
        required=info.is_required(),
        bounds=_bounds(info),
        choices=tuple(format_value(v) for literal in literals for v in typing.get_args(literal)),
        help=info.description or "",
    )


def _explain(cls: type[Options], error: ValidationError, what: str) -> str:
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return f"{what}: {message}"
    name = str(first["loc"][0])
    if first["type"] == "missing":
        return f"{what} needs {cli_flag(name)}: {cls.model_fields[name].description}"
    message = message[0].lower() + message[1:].removesuffix(" for <class 'pathlib.Path'>")
    given = first["input"]
    said = "" if isinstance(given, Mapping) else f", not {_quote(given)}"
    return f"{what}: {cli_flag(name)}: {message.removeprefix('input ')}{said}"


def _explain_call(function: Callable[..., Any], error: ValidationError) -> str:
    """What is wrong with an argument: its bounds, its choices or its type."""
    errors, parameters = error.errors(include_url=False), inspect.signature(function).parameters
    first, name = errors[0], errors[0]["loc"][0]
    if isinstance(name, int) and name < len(parameters):
        name = [*parameters][name]
    message, given = first["msg"].removeprefix("Value error, "), first["input"]
    if "argument" in first["type"]:  # missing, or one too many
        return f"{name}: {message.lower()}"
    if len(errors) > 1 and name in parameters:
        message = f"should be {parameters[str(name)].annotation}"
    said = _quote(given) if isinstance(given, str) else f"of type {type(given).__name__}"
    said = str(given) if isinstance(given, (int, float)) else said
    message = message[0].lower() + message[1:]
    return f"{name}: {message.removeprefix('input ')}, not {said}"


def _quote(value: Any) -> str:
    """What was given, cut short where it is long, and safe where it is nested without end."""
    nested = isinstance(value, (list, tuple)) and any(
        isinstance(item, (list, tuple, Mapping)) for item in value
    )
    return reprlib.repr(value) if nested else textwrap.shorten(repr(format_value(value)), 80)


def cli_flag(name: str) -> str:
    """An option's name as it is written on the command line."""
    return "--" + name.replace("_", "-")
