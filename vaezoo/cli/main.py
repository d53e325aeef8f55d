"""The command `vaezoo`: runs a subcommand, and prints an error as one line."""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import os
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import click

from vaezoo import __version__
from vaezoo.errors import (
    UnknownNameError,
    VaezooError,
    VaezooWarning,
    did_you_mean,
    nearest,
    on_command_line,
    printable,
)
from vaezoo.io import cannot_write
from vaezoo.runtime import is_local_rank0

COMMANDS = {
    "train": "Train a model and draw what it learned.",
    "evaluate": "Measure finished runs on held-out data.",
    "fit": "Fit a sampler to the latents of a finished run.",
    "bench": "Measure the speed of models on this machine.",
    "check": "Check that a model, loss or data set keeps the contract.",
    "list": "List the models, losses, data sets, metrics and loggers.",
    "info": "Show everything about one of them.",
    "plugins": "Show which plugins were loaded and which failed.",
}
"""Each subcommand with its summary: help imports none of their modules."""

_SHARED = dict.fromkeys(("list", "plugins"), "registered")
"""The subcommands that share a module; each other one has a module of its own name."""

_RANK0_SECONDS = 10.0
"""Time in which rank 0 prints an error and ends."""

COMPLETE = "_VAEZOO_COMPLETE"
"""The environment variable in which click's completion scripts say what they ask for."""


def all_commands() -> dict[str, str]:
    """Each subcommand with its summary, those of plugins too.

    VaezooError if a plugin brings one of the name of another.
    """
    from vaezoo.plugins.registry import registry

    more = registry().specs("command")
    taken = [spec for spec in more if spec.name in COMMANDS]
    if taken:
        plugin = registry().plugin(taken[0]).name
        raise VaezooError(f"plugin {plugin!r} brings the command {taken[0].name}, which exists")
    return COMMANDS | {spec.name: spec.summary for spec in more}


class LazyGroup(click.Group):
    """A group that imports the module of a subcommand only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(all_commands())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            from vaezoo.plugins.registry import registry

            summary = all_commands().get(cmd_name)
            if summary is None:
                return None
            found = registry().get("command", cmd_name).load()
            if not isinstance(found, click.Command):
                raise VaezooError(f"command {cmd_name}: its target is no click.Command")
            found.short_help = summary
            return found
        shared = _SHARED.get(cmd_name)
        module = importlib.import_module(f"vaezoo.cli.{shared or cmd_name}")
        command: click.Command = getattr(module, f"{cmd_name}_command" if shared else "command")
        command.short_help = COMMANDS[cmd_name]
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not ctx.resilient_parsing and args[0] not in COMMANDS:
            known = all_commands()
            if args[0] not in known:
                raise UnknownNameError(
                    f"there is no command {args[0]!r}{nearest(args[0], known)} "
                    "(vaezoo --help shows all)"
                )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([*all_commands().items()])


_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True}


@click.command(cls=LazyGroup, invoke_without_command=True, context_settings=_SETTINGS)
@click.version_option(__version__, prog_name="vaezoo", message="%(prog)s %(version)s")
@click.option(
    "--plugin",
    "plugins",
    metavar="SOURCE",
    multiple=True,
    help="Load a plugin that is not installed: FILE.py or MODULE, or one class of it as "
    "FILE.py:Class. Repeatable. VAEZOO_PLUGINS holds several, separated by commas.",
)
@click.option(
    "--strict",
    is_flag=True,
    help="A plugin's problem is an error, as with VAEZOO_STRICT_PLUGINS=1.",
)
@click.pass_context
def group(ctx: click.Context, plugins: tuple[str, ...], strict: bool) -> None:
    """A plugin-based zoo of variational autoencoders for PyTorch.

    Begin with `vaezoo list`, then `vaezoo train MODEL`.
    """
    if plugins or strict:
        from vaezoo.plugins.loader import raise_problems
        from vaezoo.plugins.registry import registry

        for source in plugins:
            registry().add(source)
        if strict:
            raise_problems(registry().records)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0: success. 2: an error of the user's. 130: Ctrl-C. 143: a SIGTERM that training handled. Any
    other exception is a bug in vaezoo and keeps its traceback.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may lack × or ≥
    warnings.formatwarning = _format_as_line
    token = on_command_line.set(True)
    try:
        code = _run(list(sys.argv[1:] if args is None else args))
        if sys.stdout is not None:
            sys.stdout.flush()  # an error at the interpreter's exit would have a traceback
        return code
    except KeyboardInterrupt as error:
        return _fail("interrupted", getattr(error, "exit_code", 130))
    except BrokenPipeError:
        _discard(sys.stdout)
        return 128 + 13  # the exit code of a process that SIGPIPE ended
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # where pathlib asks whether there is such a file
            return _fail(f"{error.filename}: no file can have so long a name", 2)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _discard(sys.stdout)
        return _fail(str(cannot_write(Path(error.filename or "the output"), error)), 2)
    except (VaezooError, click.ClickException) as error:
        if isinstance(error, VaezooError):
            message, code = str(error), error.exit_code
        else:
            message, code = _usage_message(error), 2
        # An error that all processes of a job raise is printed once. One with a cause is of this
        # process alone, and no other prints it.
        if not is_local_rank0() and error.__cause__ is None:
            time.sleep(_RANK0_SECONDS)  # torchrun ends all processes with the first
            return code
        return _fail(message, code)
    finally:
        on_command_line.reset(token)


def _run(args: list[str]) -> int:
    if instruction := os.environ.get(COMPLETE):
        from click.shell_completion import shell_complete

        # No problem with a plugin may print into the line that is being typed.
        with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(VaezooError):
            return shell_complete(group, {}, "vaezoo", COMPLETE, instruction)
        return 0
    try:
        # Not group.main(): it prints errors in several lines, and takes an EOFError for Ctrl-C.
        with group.make_context("vaezoo", args) as ctx:
            group.invoke(ctx)
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.Abort:
        raise KeyboardInterrupt from None
    return 0


_format_warning = warnings.formatwarning


def _format_as_line(
    message: Warning | str, category: type[Warning], *where: Any, **more: Any
) -> str:
    """Vaezoo's own warnings as one line, and others as Python formats them."""
    if issubclass(category, VaezooWarning):
        return f"vaezoo: {message}\n"
    return _format_warning(message, category, *where, **more)


def _usage_message(error: click.ClickException) -> str:
    """The message of an error of click, with the options that may be meant."""
    ctx = getattr(error, "ctx", None)
    what, path = error.format_message(), ctx.command_path if ctx else "vaezoo"
    if ctx and isinstance(error, click.NoSuchOption):
        from vaezoo.options import find_options  # imports pydantic

        flag = error.option_name
        what, helps = f"there is no option {flag!r}", dict[str, str]()
        for param in ctx.command.get_params(ctx):
            if isinstance(param, click.Option):
                helps |= dict.fromkeys((*param.opts, *param.secondary_opts), param.help or "")
            elif flag.strip("-") in (param.name, (param.name or "").rstrip("s")):
                what += f": give {param.make_metavar(ctx)} without it"
        what += did_you_mean(find_options(flag, helps)) if ": give" not in what else ""
    what = what.replace("valid integer range", "valid integer")
    return f"{what.replace('valid float range', 'valid number')} ({path} --help shows all)"


def _fail(message: str, code: int) -> int:
    """Print a message as one line on stderr, whatever it contains."""
    print("vaezoo: " + printable(" ".join(message.splitlines())), file=sys.stderr)
    return code


def _discard(stream: TextIO | None) -> None:
    """Send what is still buffered to /dev/null, or the interpreter would complain at its exit."""
    if stream is not None:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, stream.fileno())
        os.close(devnull)
