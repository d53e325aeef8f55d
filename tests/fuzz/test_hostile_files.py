"""Damaged files of every kind: a value or an error in one line, in bounded memory and time.

The same targets as tests/fuzz/fuzz.py, which goes on for longer and is guided by coverage.
"""

from __future__ import annotations

import io
import json
import os
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vaezoo.data.decode import UnreadableImageError, decode_image
from vaezoo.data.options import DecodeOptions
from vaezoo.errors import DataError, RunError
from vaezoo.io import parse_json, read_json, read_regular
from vaezoo.plugins.sources import import_file
from vaezoo_files import npz as arrays
from vaezoo_files.npz import NpzDataset
from vaezoo_files.options import NpzOptions

FUZZ = Path(__file__).parent
fuzz, mutate, targets = (
    import_file(str(FUZZ / f"{name}.py")) for name in ("fuzz", "mutate", "targets")
)
EACH = 15
"""Damaged files that one example of hypothesis stands for."""


@pytest.fixture(autouse=True)
def bounds() -> Iterator[None]:
    with fuzz.limited(60), targets.limited_memory(1 << 30):
        yield


@pytest.mark.parametrize("name", targets.TARGETS)
def test_sound_files_are_read(tmp_path: Path, name: str) -> None:
    target = targets.TARGETS[name]
    for content in target.seeds():
        assert targets.read(target, tmp_path, content) == ""


@pytest.mark.parametrize("name", targets.TARGETS)
@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32))
def test_damaged_files_are_read_or_refused(tmp_path: Path, name: str, seed: int) -> None:
    target, chance = targets.TARGETS[name], random.Random(seed)
    for _ in range(EACH):
        content = chance.choice(target.seeds())
        if target.packing and chance.random() < 0.5:
            inside = mutate.mutated(target.packing.unpack(content), chance)
            content = target.packing.pack(inside)
        else:
            content = mutate.mutated(content, chance)
        targets.read(target, tmp_path, content)


def refuse(read: Callable[[Path], object], path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises((DataError, RunError)) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def read_npz(path: Path) -> object:
    return NpzDataset(NpzOptions(root=path)).load()


def npy_head(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode("latin-1")


def archive(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr(name, content)
    return file.getvalue()


class TestHeadersThatLie:
    @pytest.mark.parametrize(
        ("head", "said"),
        [
            ("{'descr':'|u1','fortran_order':False,'shape':(1000000,1000000)}\n", "cannot read"),
            ("{'descr':'|u1','fortran_order':False,'shape':(-1, 4)}\n", "cannot read"),
            ("{'descr':'|V0','fortran_order':False,'shape':(9999999999999, 9)}\n", "numbers"),
            ("{'descr':'|O','fortran_order':False,'shape':(4, 4)}\n", "never loaded"),
            ("{'descr':[('a','|O')],'fortran_order':False,'shape':(4,4)}\n", "never loaded"),
            ("{'descr':'|u1','fortran_order':False,'shape':(4, " + "(" * 900 + "\n", "cannot read"),
            ("__import__('os').system('false')\n", "cannot read"),
        ],
    )
    def test_npz(self, tmp_path: Path, head: str, said: str) -> None:
        content = archive("x.npy", npy_head(head) + bytes(100))
        assert said in refuse(read_npz, tmp_path / "a.npz", content)

    def test_png(self, tmp_path: Path) -> None:
        def chunk(kind: bytes, body: bytes) -> bytes:
            summed = struct.pack(">I", zlib.crc32(kind + body))
            return struct.pack(">I", len(body)) + kind + body + summed

        head = chunk(b"IHDR", struct.pack(">IIBBBBB", 2**20, 2**20, 8, 2, 0, 0, 0))
        content = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(99)))

        def read(path: Path) -> object:
            return decode_image(path, (3, 8, 8), DecodeOptions())

        assert "max_megapixels" in refuse(read, tmp_path / "a.png", content)


class TestBombs:
    def test_npz(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(arrays, "available_memory", lambda: 100 << 20)
        head = "{'descr':'|u1','fortran_order':False,'shape':(60, 1000, 1000)}\n"
        content = archive("x.npy", npy_head(head) + bytes(60_000_000))
        assert len(content) < 1_000_000
        assert "does not fit in memory" in refuse(read_npz, tmp_path / "a.npz", content)

    def test_npz_that_holds_more_than_it_says(self, tmp_path: Path) -> None:
        """The directory says 200 bytes, the member unpacks to 60 MB."""
        head = npy_head("{'descr':'|u1','fortran_order':False,'shape':(60, 1000, 1000)}\n")
        content = archive("x.npy", head + bytes(60_000_000))
        size = struct.pack("<I", len(head) + 60_000_000)
        content = content.replace(size, struct.pack("<I", 200))
        refuse(read_npz, tmp_path / "a.npz", content)

    @pytest.mark.parametrize(
        "name", ["x", "../../x.npy", "/tmp/x.npy", "x\n\x1b[2J.npy", "y" * 999]
    )
    def test_names_in_a_zip(self, tmp_path: Path, name: str) -> None:
        said = refuse(read_npz, tmp_path / "a.npz", archive(name, b"no array" * 9))
        assert said.isprintable()
        assert len(said) < 500
        assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]

    def test_png_text(self, tmp_path: Path) -> None:
        def chunk(kind: bytes, body: bytes) -> bytes:
            summed = struct.pack(">I", zlib.crc32(kind + body))
            return struct.pack(">I", len(body)) + kind + body + summed

        bomb = zlib.compress(bytes(300 << 20), 1)
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 0, 0, 0, 0))
        pixels = chunk(b"IDAT", zlib.compress(bytes(90)))
        for kind, before in ((b"zTXt", b"a\0\0"), (b"iCCP", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0")):
            content = b"\x89PNG\r\n\x1a\n" + head + chunk(kind, before + bomb) + pixels
            (tmp_path / "a.png").write_bytes(content)
            with targets.limited_memory(200 << 20), pytest.raises(UnreadableImageError):
                decode_image(tmp_path / "a.png", (1, 8, 8), DecodeOptions())

    def test_a_jpeg_that_goes_over_its_pixels_again_and_again(self, tmp_path: Path) -> None:
        content = targets._picture("JPEG", progressive=True)
        scan = content[content.rfind(b"\xff\xda") : -2]
        (tmp_path / "a.jpg").write_bytes(content[:-2] + scan * 1001 + b"\xff\xd9")
        with pytest.raises(UnreadableImageError, match="more scans over its pixels"):
            decode_image(tmp_path / "a.jpg", (1, 8, 8), DecodeOptions())

    def test_a_sparse_file_is_not_read(self, tmp_path: Path) -> None:
        with (tmp_path / "a.webp").open("wb") as file:
            file.write(b"RIFF\xff\xff\xff\xffWEBPVP8L")
            file.truncate(1 << 34)
        with pytest.raises(UnreadableImageError, match="larger than an image"):
            decode_image(tmp_path / "a.webp", (1, 8, 8), DecodeOptions())
        with (tmp_path / "run.json").open("wb") as file:
            file.truncate(1 << 34)
        with pytest.raises(RunError, match="larger than"):
            read_json(tmp_path / "run.json")


class TestReading:
    def test_what_is_no_file(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "loop").symlink_to("loop")
        (tmp_path / "zero").symlink_to("/dev/zero")
        for name in ("pipe", "loop", "zero", ".", "a\0b", "x" * 300):
            with pytest.raises(OSError, match=r"regular|symbolic|directory|name|too long"):
                read_regular(tmp_path / name, 10)

    def test_no_more_than_asked(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"12345")
        assert read_regular(tmp_path / "a", 5) == b"12345"
        with pytest.raises(OSError, match="larger than 4 bytes"):
            read_regular(tmp_path / "a", 4)

    @settings(max_examples=100, deadline=None)
    @given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
    def test_json_comes_back(self, value: object) -> None:
        assert parse_json(json.dumps(value).encode()) == value

    @pytest.mark.parametrize(
        "content", [b"NaN", b"[Infinity]", b"[" * 10**5, b"\xff", b"", b"9" * 5000, b"{'a': 1}"]
    )
    def test_what_is_no_json(self, content: bytes) -> None:
        with pytest.raises(ValueError):  # noqa: PT011
            parse_json(content)
