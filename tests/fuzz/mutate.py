"""Changes to a file's content as damage and malice make them."""

from __future__ import annotations

import random
import struct

_NUMBERS = (
    0,
    1,
    2,
    3,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0xFFFFFFFF,
    2**63 - 1,
    2**64 - 1,
)
_WORDS = (
    *(
        b"null",
        b"true",
        b"NaN",
        b"1e999",
        b"-1",
        b"0",
        b"99999999999999999999",
        b"[]",
        b"{}",
        b'""',
    ),
    *(b"[[[[[[[[", b"{{{{", b'"\\u0000"', b'"\\ud800"', b"\xff\xfe", b"\0", b"\n", b"&a ", b"*a"),
    *(b"!!python/object:os.system ", b"<<: ", b"../../", b"/etc/passwd", b"1000000000000", b"~x"),
)


def mutated(content: bytes, chance: random.Random) -> bytes:
    """The content after one to six small changes, drawn by `chance`."""
    result = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        chance.choice(_CHANGES)(result, chance)
    return bytes(result)


def _place(content: bytearray, chance: random.Random) -> int:
    # Headers are at the beginning or at the end.
    limit = len(content) if chance.random() < 0.5 else min(len(content), 256)
    place = chance.randrange(limit + 1)
    return place if chance.random() < 0.8 else len(content) - place


def _byte(content: bytearray, chance: random.Random) -> None:
    if content:
        content[min(_place(content, chance), len(content) - 1)] = chance.randrange(256)


def _bit(content: bytearray, chance: random.Random) -> None:
    if content:
        content[min(_place(content, chance), len(content) - 1)] ^= 1 << chance.randrange(8)


def _number(content: bytearray, chance: random.Random) -> None:
    width = chance.choice("BHIQ")
    number = chance.choice(_NUMBERS) % 2 ** (8 * struct.calcsize(f"<{width}"))
    packed = struct.pack(chance.choice("<>") + width, number)
    place = _place(content, chance)
    content[place : place + len(packed)] = packed


def _word(content: bytearray, chance: random.Random) -> None:
    place, word = _place(content, chance), chance.choice(_WORDS)
    content[place : place + chance.choice((0, len(word), 4, 16))] = word


def _cut(content: bytearray, chance: random.Random) -> None:
    del content[_place(content, chance) :]


def _remove(content: bytearray, chance: random.Random) -> None:
    place = _place(content, chance)
    del content[place : place + chance.choice((1, 2, 4, 16, 200))]


def _repeat(content: bytearray, chance: random.Random) -> None:
    place = _place(content, chance)
    piece = content[place : place + chance.choice((1, 4, 30, 300))]
    content[place:place] = piece * chance.choice((1, 2, 50))


def _move(content: bytearray, chance: random.Random) -> None:
    place, other = _place(content, chance), _place(content, chance)
    size = chance.choice((1, 4, 30))
    content[other : other + size] = content[place : place + size]


_CHANGES = (_byte, _byte, _bit, _number, _number, _word, _cut, _remove, _repeat, _move)
