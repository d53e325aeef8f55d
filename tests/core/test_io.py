"""Files are there as a whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from vaezoo.errors import RunError
from vaezoo.io import (
    atomic_write,
    cannot_write,
    full_path,
    read_json,
    write_json,
    write_text,
)


def only(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestWriteAtomically:
    def test_writes_elsewhere_then_renames(self, tmp_path: Path) -> None:
        path, seen = tmp_path / "file", []
        path.write_text("old")

        def write(temporary: Path) -> None:
            temporary.write_text("new")
            seen.append((temporary.parent == tmp_path, temporary != path, path.read_text()))

        atomic_write(path, write)
        assert seen == [(True, True, "old")]
        assert path.read_text() == "new"
        assert only(tmp_path) == ["file"]

    def test_is_on_disk_before_it_has_the_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path, synced = tmp_path / "file", []
        fsync = os.fsync

        def spy(number: int) -> None:
            synced.append(path.exists())
            fsync(number)

        monkeypatch.setattr(os, "fsync", spy)
        write_text(path, "text")
        assert synced[0] is False
        assert path.read_text() == "text"

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
    def test_full_disk_leaves_the_old_one(self, tmp_path: Path, number: int) -> None:
        path = tmp_path / "file"
        path.write_text("old")

        def half(temporary: Path) -> None:
            temporary.write_text("ha")
            raise OSError(number, os.strerror(number))

        with pytest.raises(RunError, match="disk is full") as caught:
            atomic_write(path, half)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert path.read_text() == "old"
        assert only(tmp_path) == ["file"]

    def test_other_errors_pass_and_leave_nothing(self, tmp_path: Path) -> None:
        def broken(temporary: Path) -> None:
            temporary.write_text("ha")
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            atomic_write(tmp_path / "file", broken)
        assert only(tmp_path) == []

    def test_missing_folder_is_told_in_one_line(self, tmp_path: Path) -> None:
        path = tmp_path / "no" / "file"
        with pytest.raises(RunError, match="No such file") as caught:
            write_text(path, "text")
        assert "\n" not in str(caught.value)
        assert only(tmp_path) == []

    def test_a_folder_in_its_place_is_told_and_kept(self, tmp_path: Path) -> None:
        (tmp_path / "file").mkdir()
        with pytest.raises(RunError, match=r"cannot write .*file: Is a directory"):
            write_text(tmp_path / "file", "text")
        assert only(tmp_path) == ["file"]


class TestJson:
    def test_round_trip(self, tmp_path: Path) -> None:
        value = {"name": "größe ×", "list": [1, 2.5, None, True], "inner": {"a": "b"}}
        write_json(tmp_path / "file", value)
        assert read_json(tmp_path / "file") == value
        assert "größe ×" in (tmp_path / "file").read_text(encoding="utf-8")

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_what_json_has_no_word_for_is_not_written(self, tmp_path: Path, value: float) -> None:
        with pytest.raises(ValueError, match="JSON"):
            write_json(tmp_path / "file", {"value": value})
        assert only(tmp_path) == []

    @pytest.mark.parametrize(
        ("content", "match"),
        [
            (b"", "not JSON"),
            (b'{"a": 1', "not JSON"),
            (b"\xff\xfe\x00", "not JSON"),
            (b"[" * 100_000, "not JSON"),
            (b"[1]", "not hold an object"),
            (b"null", "not hold an object"),
        ],
    )
    def test_damaged_is_told_in_one_line(self, tmp_path: Path, content: bytes, match: str) -> None:
        path = tmp_path / "file"
        path.write_bytes(content)
        with pytest.raises(RunError, match=match) as caught:
            read_json(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_missing_and_unreadable_are_told(self, tmp_path: Path) -> None:
        with pytest.raises(RunError, match=r"file is missing$"):
            read_json(tmp_path / "file")
        (tmp_path / "folder").mkdir()
        with pytest.raises(RunError, match="cannot read"):
            read_json(tmp_path / "folder")


def test_cannot_write_says_what_the_system_said(tmp_path: Path) -> None:
    denied = cannot_write(tmp_path, PermissionError(errno.EACCES, "Permission denied"))
    assert str(denied) == f"cannot write {tmp_path}: Permission denied"
    assert str(cannot_write(tmp_path, OSError("odd"))) == f"cannot write {tmp_path}: odd"


def test_the_home_of_nobody_is_a_name_as_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert full_path("~/data") == Path("/home/me/data")
    assert full_path("data") == tmp_path / "data"
    # As any name, and no RuntimeError of pathlib's: this word may come from a config file.
    assert full_path(Path("~nobody-by-this-name/data")) == tmp_path / "~nobody-by-this-name/data"
