"""The command `vaezoo`: finds the module of a subcommand, runs it, and tells errors in one line."""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import click

from vaezoo import __version__
from vaezoo.cli.output import is_first_process_here
from vaezoo.cli.usage import explain
from vaezoo.errors import UnknownNameError, VaezooError, nearest, printable
from vaezoo.io import cannot_write

COMMANDS = {
    "train": ("vaezoo.cli.train", "Train a model and draw what it learned."),
    "evaluate": ("vaezoo.cli.evaluate", "Measure finished runs on held-out data."),
    "sample": ("vaezoo.cli.sample", "Draw new images from a run's prior."),
    "reconstruct": ("vaezoo.cli.reconstruct", "Put images through a run and back."),
    "traverse": ("vaezoo.cli.traverse", "Draw what each latent value of a run changes."),
    "interpolate": ("vaezoo.cli.interpolate", "Draw the way from one image to another."),
    "embed": ("vaezoo.cli.embed", "Draw a map of a run's latents."),
    "report": ("vaezoo.cli.report", "Put runs on one page that a browser opens from disk."),
    "export": ("vaezoo.cli.export", "Write a run's model as ONNX, torch.export or safetensors."),
    "bench": ("vaezoo.cli.bench", "Measure how fast models are on this machine."),
    "check": (
        "vaezoo.cli.check",
        "Check that a model, loss or data set keeps the contract.",
    ),
    "new": ("vaezoo.cli.new", "Write a plugin package that works, to be changed."),
    "list": ("vaezoo.cli.list_command", "List the models, losses, data sets, metrics and writers."),
    "info": ("vaezoo.cli.info_command", "Show everything about one of them."),
    "plugins": ("vaezoo.cli.plugins_command", "Show which plugins were loaded and which failed."),
}
"""Each subcommand's module and summary. Summaries stand here so that help imports no module."""

_SAID_BY_THEN = 10.0
"""Seconds after which the first process has said what is wrong, and has ended with it."""

COMPLETE = "_VAEZOO_COMPLETE"
"""Set by click's completion scripts, with what they ask for."""


class LazyGroup(click.Group):
    """A group that imports the module of a subcommand when that one is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not ctx.resilient_parsing:
            raise UnknownNameError(
                f"there is no command {args[0]!r}{nearest(args[0], COMMANDS)} "
                "(vaezoo --help shows all)"
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.command(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="vaezoo", message="%(prog)s %(version)s")
@click.option(
    "--plugin",
    "plugins",
    metavar="SOURCE",
    multiple=True,
    help="Load a plugin that is not installed: FILE.py or MODULE, or one class of it as "
    "FILE.py:Class. Repeatable. VAEZOO_PLUGINS holds several, with commas.",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Take trouble with a plugin for an error, as VAEZOO_STRICT_PLUGINS=1 does.",
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
    """Run the command line and return its exit code: 0, 2 for a user's error, 130 for Ctrl-C, 143
    for a SIGTERM that training caught.

    Any other exception is a fault of ours and keeps its traceback.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may lack × or ≥
    try:
        code = _run(list(sys.argv[1:] if args is None else args))
        if sys.stdout is not None:
            # Here and not at the interpreter's exit, where an error could not be told any more.
            sys.stdout.flush()
        return code
    except KeyboardInterrupt as error:
        return _fail("interrupted", getattr(error, "exit_code", 130))
    except BrokenPipeError:
        _silence(sys.stdout)  # whoever read us has seen enough
        return 128 + 13  # as if SIGPIPE had ended us
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _silence(sys.stdout)
        return _fail(str(cannot_write(Path(error.filename or "the output"), error)), 2)
    except VaezooError as error:
        # What the processes of a job found together is said once. What one of them ran into has a
        # cause, and nobody else says it.
        if not is_first_process_here() and error.__cause__ is None:
            return _leave_it_to_the_first(error.exit_code)
        return _fail(str(error), error.exit_code)
    except click.ClickException as error:
        if not is_first_process_here():
            return _leave_it_to_the_first(2)
        return _fail(explain(error), 2)


def _run(args: list[str]) -> int:
    instruction = os.environ.get(COMPLETE)
    if instruction:
        from click.shell_completion import shell_complete

        # No trouble with a plugin may disturb the line that is being typed.
        with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(VaezooError):
            return shell_complete(group, {}, "vaezoo", COMPLETE, instruction)
        return 0
    try:
        # Not group.main(): it tells errors its own way, and takes an EOFError for Ctrl-C.
        with group.make_context("vaezoo", args) as ctx:
            group.invoke(ctx)
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.Abort:
        raise KeyboardInterrupt from None
    return 0


def _fail(message: str, code: int) -> int:
    """One line on stderr, whatever the message holds."""
    print("vaezoo: " + printable(" ".join(message.splitlines())), file=sys.stderr)
    return code


def _leave_it_to_the_first(code: int) -> int:
    """torchrun ends all processes with the first that ends: not before the one that speaks has."""
    time.sleep(_SAID_BY_THEN)
    return code


def _silence(stream: TextIO | None) -> None:
    """Send what is still buffered nowhere, or the interpreter would complain at its exit."""
    if stream is not None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
