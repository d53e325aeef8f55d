"""YAML as recipes need it: plain values in small numbers, and nothing that grows when it is read.

YAML has more than that: tags that name types, aliases that let a kilobyte stand for gigabytes,
dates that look like names of folders. A recipe may come from anyone, so none of it is read.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

LARGEST = 1 << 16
"""Bytes of a whole text."""

LONGEST_TEXT = 4096
"""Characters of one value: no system has longer paths."""

LONGEST_NAME = 100
"""Characters of a key."""

MOST_VALUES = 1000
"""In one list or mapping."""

DEEPEST = 8
"""Lists and mappings in one another, with what is in the innermost."""

_LARGEST_NUMBER = 2**63 - 1


class NotPlainError(ValueError):
    """A text that is no YAML, or more than plain values: what it is or has, as in "is not YAML".

    line: where, from 1, if that is known.
    """

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


def load_plain(text: str) -> Any:
    """None, true or false, numbers, text, and lists and mappings of these. Dates are text.

    NotPlainError for everything else: tags, aliases, numbers past 64 bits, text that no file name
    could be, and whatever is too large or nested too deeply.
    """
    if len(text) > LARGEST:
        raise NotPlainError(f"is longer than {LARGEST:,} characters")
    try:
        value = yaml.load(text, _Loader)
    except NotPlainError:
        raise
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise NotPlainError("is not YAML", None if mark is None else mark.line + 1) from None
    except (ValueError, OverflowError):  # numbers of more digits than Python reads
        raise NotPlainError("holds a number that is too large") from None
    except RecursionError:
        raise NotPlainError("is nested too deeply") from None
    _check(value)
    return value


class _Loader(yaml.SafeLoader):
    """Refuses aliases, and every tag but those that plain values have by themselves."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            alias = self.peek_event()
            raise NotPlainError(
                f"has the alias *{alias.anchor[:40]}, and aliases are not read",
                alias.start_mark.line + 1,
            )
        if self.depth == DEEPEST:
            raise NotPlainError("is nested too deeply", self.peek_event().start_mark.line + 1)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def refuse_tag(self, node: yaml.Node) -> Any:
        raise NotPlainError(
            f"has the tag {node.tag[:80]}, and tags are not read", node.start_mark.line + 1
        )


_PLAIN = ("null", "bool", "int", "float", "str", "seq", "map")
_Loader.yaml_constructors = {
    tag: construct
    for tag, construct in yaml.SafeLoader.yaml_constructors.items()
    if tag in [f"tag:yaml.org,2002:{name}" for name in _PLAIN]
}
_Loader.add_constructor(None, _Loader.refuse_tag)
# YAML 1.1 without its numbers to the base 60: 1:9:2 is a slice here, and text.
_NUMBERS = {
    "int": re.compile(r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)$"),
    "float": re.compile(
        r"([-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+][0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
    ),
}
_Loader.yaml_implicit_resolvers = {
    letter: [
        (tag, _NUMBERS.get(name, pattern))
        for tag, pattern in resolvers
        if (name := tag.rpartition(":")[2]) in _PLAIN
    ]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _check(value: Any) -> None:
    if isinstance(value, str):
        if len(value) > LONGEST_TEXT:
            raise NotPlainError(f"holds text of more than {LONGEST_TEXT:,} characters")
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise NotPlainError("holds characters that are no text")
    elif isinstance(value, int):
        if abs(value) > _LARGEST_NUMBER:
            raise NotPlainError("holds a number that is too large")
    elif isinstance(value, (list, dict)):
        if len(value) > MOST_VALUES:
            raise NotPlainError(f"holds more than {MOST_VALUES:,} values in one place")
        for item in value:
            _check(item)
            if isinstance(value, dict):
                if isinstance(item, str) and len(item) > LONGEST_NAME:
                    raise NotPlainError(f"has a name of more than {LONGEST_NAME} characters")
                _check(value[item])
