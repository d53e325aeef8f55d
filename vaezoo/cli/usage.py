"""What click says of a wrong command line, in one line that also says what to do."""

from __future__ import annotations

import click

from vaezoo.errors import nearest


def explain(error: click.ClickException) -> str:
    """What was wrong, the nearest right word if there is one, and which help to read."""
    ctx = getattr(error, "ctx", None)
    path = ctx.command_path if ctx else "vaezoo"
    return f"{_what_was_wrong(error, ctx)} ({path} --help shows all)"


def _what_was_wrong(error: click.ClickException, ctx: click.Context | None) -> str:
    if isinstance(error, click.NoSuchOption):
        options = [flag for flag in _flags(ctx) if len(flag) > 2]
        return f"there is no option {error.option_name!r}{nearest(error.option_name, options)}"
    if isinstance(error, click.MissingParameter) and error.param is not None:
        return f"{error.param.get_error_hint(ctx)} is missing"
    message = error.format_message().removesuffix(".")
    message = message[0].lower() + message[1:] if message else "this is no command line"
    kind = getattr(getattr(error, "param", None), "type", None)
    if isinstance(kind, click.Choice):
        given = message.partition(": ")[2].split("'")[1:2]  # click keeps it nowhere else
        message += nearest(given[0], kind.choices) if given else ""
    return message


def _flags(ctx: click.Context | None) -> list[str]:
    if ctx is None:
        return []
    return [flag for param in ctx.command.get_params(ctx) for flag in param.opts if flag[0] == "-"]
