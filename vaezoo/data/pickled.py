"""What a pickle says, read without doing it: nothing is imported, called or built."""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import Any


class NotPlain(ValueError):
    """A pickle that is damaged, or says more than plain values and arrays need."""


@dataclass(frozen=True)
class Name:
    """Something that the pickle would have imported: "module name"."""

    text: str


@dataclass
class Call:
    """Something that the pickle would have called, and the state it would have given the result."""

    function: Any
    arguments: Any
    state: Any = None


_MOST_OPCODES = 500_000
"""A batch of CIFAR-10 has less than a hundred thousand; each can become a hundred bytes."""

_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, type] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
# Opcodes whose argument is the value. A string of Python 2 is given as text in Latin-1.
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}


def describe_pickle(content: bytes) -> Any:
    """The value that a pickle describes, with Name and Call where code would have run.

    NotPlain when the pickle is damaged or uses an opcode that such data has no need of.
    """
    try:
        return _describe(content)
    except NotPlain:
        raise
    # Whatever a damaged stream leads to: short reads, an empty stack, an unhashable key.
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, MemoryError) as error:
        raise NotPlain(str(error)[:200] or "it is damaged") from None


def _describe(content: bytes) -> Any:
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    argument: Any
    for number, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if number == _MOST_OPCODES:
            raise NotPlain("it is longer than arrays and labels need")
        name = opcode.name
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "TUPLE":
            stack.append(tuple(since_mark()))
        elif name in _TUPLES:
            stack[-_TUPLES[name] :] = [tuple(stack[-_TUPLES[name] :])]
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else since_mark()
            stack[-1].extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else since_mark()
            if not all(isinstance(key, (str, bytes, int)) for key in items[::2]):
                # A tuple of tuples of tuples can take for ever to hash.
                raise NotPlain("it has keys that are neither words nor numbers")
            stack[-1].update(zip(items[::2], items[1::2], strict=True))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "GLOBAL":
            stack.append(Name(argument))
        elif name == "STACK_GLOBAL":
            if not (isinstance(stack[-2], str) and isinstance(stack[-1], str)):
                raise NotPlain("it would import something without a name")
            stack[-2:] = [Name(f"{stack[-2]} {stack[-1]}")]
        elif name == "REDUCE":
            stack[-2:] = [Call(stack[-2], stack[-1])]
        elif name == "BUILD":
            state = stack.pop()
            stack[-1].state = state
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise NotPlain(f"it uses the opcode {name}, which arrays and labels do not need")
    raise NotPlain("it does not end")
