"""Arguments and options that several commands share, their types, and their shell completion."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from vaezoo.cli.output import print_result
from vaezoo.errors import OptionError, RunError, UnknownNameError, nearest
from vaezoo.plugins.registry import WORDS, registry
from vaezoo.plugins.specs import METRIC_GROUPS, PLURALS, Kind, Spec

if TYPE_CHECKING:
    from vaezoo.options import OptionInfo

Decorator = Callable[[Any], Any]
Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

FILE = click.Path(path_type=Path)


def list_option(
    names: str, convert: Callable[..., Any], default: str | None, text: str
) -> Decorator:
    """An option that reads values separated by commas, and drops repetitions.

    names: as in "--mode modes". convert: reads one value, as a click type does.
    """

    def split(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[Any, ...]:
        if text is None:
            return ()
        words = [word.strip() for word in text.split(",") if word.strip()]
        if not words:
            raise click.BadParameter("give at least one value", ctx, param)
        return tuple(dict.fromkeys(convert(word, param, ctx) for word in words))

    values = "|".join(convert.choices) if isinstance(convert, click.Choice) else "VALUE"
    return click.option(
        *names.split(), callback=split, metavar=f"{values},...", default=default, help=text
    )


def metric_option(default: str | None, text: str) -> Decorator:
    """`--metric`: names of metrics and of groups of them."""
    return list_option("--metric metrics", _metric_name, default, text)


def _metric_name(word: str, param: click.Parameter, ctx: click.Context) -> str:
    """The name of a metric or of a group of metrics; OptionError for any other word."""
    known = [*(spec.name for spec in registry().specs("metric")), *METRIC_GROUPS, "default", "all"]
    if word not in known:
        raise OptionError(
            f"--metric: there is no metric or group {word!r}{nearest(word, known)} "
            "(vaezoo list --kind metrics shows them)"
        )
    return word


def complete_names(*kinds: Kind) -> Complete:
    """A completion for registered names of these kinds, and for files where a path is typed."""

    def complete(ctx: click.Context, param: click.Parameter, typed: str) -> list[CompletionItem]:
        if "/" in typed or typed.startswith("."):
            return [CompletionItem(typed, type="file")]
        found = {s.name: s.summary for s in registry().specs() if not kinds or s.kind in kinds}
        return [CompletionItem(n, help=text) for n, text in found.items() if n.startswith(typed)]

    return complete


def complete_runs(ctx: click.Context, param: click.Parameter, typed: str) -> list[CompletionItem]:
    """A completion for run folders in `runs`, or for any folder if none of them fits."""
    found = [str(path.parent) for path in sorted(Path("runs").glob("*/config.yaml"))]
    fitting = [CompletionItem(name) for name in found if name.startswith(typed)]
    return fitting or [CompletionItem(typed, type="dir")]


def run_argument(function: Callable[..., Any]) -> Any:
    """`RUN`: one run folder."""
    return click.argument("run", metavar="RUN", type=FILE, shell_complete=complete_runs)(function)


def runs_argument(function: Callable[..., Any]) -> Any:
    """`RUN...`: one or several run folders."""
    return click.argument(
        "runs", metavar="RUN...", nargs=-1, required=True, type=FILE, shell_complete=complete_runs
    )(function)


def importance_samples_option(function: Callable[..., Any]) -> Any:
    """`--importance-samples K`: 0 for no log-likelihood."""
    return click.option(
        "--importance-samples",
        type=click.IntRange(min=0),
        default=0,
        metavar="K",
        help="Samples per image for the log-likelihood, often thousands; 0: no log-likelihood.",
    )(function)


def device_option(function: Callable[..., Any]) -> Any:
    """`--device NAME`."""
    return click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")(function)


def root_option(function: Callable[..., Any]) -> Any:
    """`--root DIR`: for commands that read the data of a run."""
    text = "Where the data of the run lies, if it moved."
    return click.option("--root", type=FILE, metavar="DIR", help=text)(function)


def json_option(function: Callable[..., Any]) -> Any:
    """`--json`: the argument `as_json` of the command."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/json.md).")(
        function
    )


overwrite_option = click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")


def class_option(function: Callable[..., Any]) -> Any:
    """`--class`: the argument `label` of the command."""
    text = "Number or name of a class, for conditional models."
    return click.option("--class", "label", metavar="CLASS", help=text)(function)


def sampler_option(function: Callable[..., Any]) -> Any:
    """`--sampler NAME`: the prior to draw samples from."""
    text = (
        "The prior of the samples: a sampler that `vaezoo fit` has fitted, or none for the model's "
        "own.  [default: that of the run]"
    )
    return name_option("--sampler", "sampler", text)(function)


def sampler_settings(settings: Sequence[str]) -> dict[str, Any]:
    """The values of `--set sampler.OPTION=VALUE`. OptionError for another section."""
    from vaezoo.config import parse_settings  # imports pydantic

    sections = parse_settings(settings)
    values = sections.pop("sampler")
    if other := next((section for section, found in sections.items() if found), None):
        raise OptionError(f"--set {other}...: a finished run takes settings of its sampler only")
    return values


def seed_option(function: Callable[..., Any]) -> Any:
    """`--seed`, 0 unless given."""
    seeds = click.IntRange(0, 2**63 - 1)
    return click.option("--seed", type=seeds, default=0, help="Seed of the random numbers.")(
        function
    )


def choice_option(names: str, choices: Sequence[str], text: str) -> Decorator:
    """An option whose value is one of the choices; by default, the first."""
    return click.option(*names.split(), type=click.Choice(choices), default=choices[0], help=text)


def name_option(flag: str, kind: Kind, text: str) -> Decorator:
    """An option whose value is a registered name of one kind."""
    return click.option(flag, metavar="NAME", shell_complete=complete_names(kind), help=text)


def part_options(*kinds: Kind) -> Decorator:
    """`--network`, `--loss` and so on: an option for each of these kinds of a model's parts."""
    options = [
        name_option(f"--{kind}", kind, f"The {kind} of the model.  [default: the model's own]")
        for kind in kinds
    ]
    return lambda function: functools.reduce(lambda f, option: option(f), options[::-1], function)


def typed_option(name: str, info: OptionInfo, default: Any = None) -> click.Parameter:
    """A click option that passes its text on: the option class reads and checks it."""
    from vaezoo.options import cli_flag, format_value  # imports pydantic

    notes = []
    if not info.required:
        notes.append(f"default: {format_value(info.default if default is None else default)}")
    if info.bounds:
        notes.append(info.bounds)
    tail = f"  [{'; '.join(notes)}]" if notes else ""
    text = info.help[:1].upper() + info.help[1:] + tail
    if info.is_flag:
        on = cli_flag(name)
        return click.Option([f"{on}/--no-{on[2:]}", name], default=None, help=text)
    metavar = "|".join(info.choices) if info.choices else info.type.split(",")[0].upper()
    return click.Option([cli_flag(name), name], default=None, metavar=metavar, help=text)


def kind_option(kinds: Sequence[str], default: str, text: str) -> Decorator:
    """`--kind`. kinds: the plural of each kind that may be given, besides `all`."""
    choice = click.Choice([*kinds, "all"])
    return click.option("--kind", type=choice, default=default, help=text)


def resolve_name(name: str, kind: str) -> Spec:
    """The spec that a command with `--kind` is about; UnknownNameError if it is not one."""
    if kind != "all":
        return registry().resolve(PLURALS[kind], name)
    specs = registry().find(name)
    if len(specs) > 1:
        kinds = " and ".join(f"a {WORDS[spec.kind]}" for spec in specs)
        raise UnknownNameError(f"{name!r} is {kinds}: choose with --kind, or name one class")
    return specs[0]


def set_option(text: str) -> Decorator:
    """`--set SECTION.OPTION=VALUE`, which can be repeated."""
    metavar = "SECTION.OPTION=VALUE"
    return click.option("--set", "settings", metavar=metavar, multiple=True, help=text)


def out_option(default: str | None, text: str) -> Decorator:
    """`-o FILE`: the one file that a command writes; without a default it must be given."""
    # click takes an explicit `default=None` for a value, and then asks for none.
    need: dict[str, Any] = {"required": True} if default is None else {"default": default}
    out = click.option("-o", "--out", type=FILE, metavar="FILE", help=text, **need)
    return lambda function: out(overwrite_option(function))


def picture_options(default: str) -> Decorator:
    """The options of a command that writes one PNG from a run, and reads the data of the run.

    The command takes the open run, its own options and `out`. It returns what its JSON says
    besides the picture, and the text to print if no JSON is asked for.
    """
    out_options = out_option(default, "The picture to write: a PNG.")

    def decorate(function: Callable[..., tuple[dict[str, Any], str]]) -> Any:
        @functools.wraps(function)
        def write(
            run: Path,
            out: Path,
            overwrite: bool,
            device: str,
            as_json: bool,
            root: Path | None,
            **own: Any,
        ) -> None:
            check_writable(out, overwrite, (".png",))

            from vaezoo.runs.run import load_run

            values, text = function(load_run(run, device, root=root), out=out, **own)
            print_result(as_json, {"picture": str(out), **values}, f"{out}: {text}")

        return out_options(root_option(device_option(json_option(write))))

    return decorate


def check_writable(
    path: Path, overwrite: bool, endings: Sequence[str] = (), *, why: str = ""
) -> None:
    """RunError unless a file of this name can be written, and none is lost by it.

    endings: those that the name may have; any if empty. why: what the message begins with.
    """
    if endings and path.suffix.lower() not in endings:
        raise RunError(f"{path}: {why}give a name that ends in {' or '.join(endings)}")
    if path.is_dir():
        raise RunError(f"{path} is a folder: give the name of a file")
    if os.path.lexists(path) and not overwrite:
        raise RunError(f"{path} exists already: give another name, or --overwrite")
    if not path.parent.is_dir():
        raise RunError(f"there is no folder {path.parent} to write {path.name} in")
    if not os.access(path.parent, os.W_OK):
        raise RunError(f"cannot write in the folder {path.parent}")
