"""HTML from Python: what a run folder says is text, and never becomes markup."""

from __future__ import annotations

from html import escape

_EMPTY = frozenset({"br", "img", "input", "meta"})


class Markup(str):
    """Text that is HTML already. Only `tag`, `join` and `trusted` make it."""

    __slots__ = ()


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """`tag("a", "text", href="#x")`. Children that are no Markup are text, and escaped.

    Attributes: `class_` is class, `data_run` is data-run; None and False are left out, True stands
    alone.
    """
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        word = key.rstrip("_").replace("_", "-")
        words.append(word if value is True else f'{word}="{escape(str(value), quote=True)}"')
    start = f"<{' '.join(words)}>"
    return Markup(start if name in _EMPTY else f"{start}{join(*children)}</{name}>")


def join(*children: object) -> Markup:
    """Children one after the other; None is nothing, a list is its items."""
    parts: list[str] = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, Markup):
            parts.append(child)
        elif isinstance(child, list | tuple):
            parts.append(join(*child))
        else:
            parts.append(escape(str(child), quote=False))
    return Markup("".join(parts))


def trusted(text: str) -> Markup:
    """Our own styles and scripts. Never anything that came from a run."""
    return Markup(text)
