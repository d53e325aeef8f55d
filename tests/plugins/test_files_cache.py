"""The cache of decoded images: each is decoded once, shared, and complete or absent."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vaezoo.data.decode import Append
from vaezoo.errors import DataError
from vaezoo_files import cache as cache_module
from vaezoo_files.cache import Build, CachedImages, cache_folder, cached_images

SHAPE = (3, 4, 5)
PIXELS = np.random.default_rng(0).integers(0, 256, (70, *SHAPE), dtype=np.uint8)

forks = pytest.mark.skipif(sys.platform == "win32", reason="processes are forked here")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VAEZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


def building(calls: list[int] | None = None, pixels: np.ndarray = PIXELS) -> Build:
    def build(append: Append) -> dict[str, Any]:
        if calls is not None:
            calls.append(1)
        append(pixels[:30])
        append(pixels[30:])
        return {"labels": [1, 2], "note": "ü"}

    return build


def never(append: Append) -> dict[str, Any]:
    raise AssertionError("a valid entry was built again")


def get(build: Build, key: str = "key") -> CachedImages:
    return cached_images(key, SHAPE, 100, build)


def only_entry(cache: Path) -> Path:
    (path,) = cache.glob("*.npy")
    return path


def test_what_was_built_is_mapped_by_the_next(cache: Path) -> None:
    first = get(building())
    again = get(never)
    for stored in (first, again):
        assert stored.images.dtype == torch.uint8
        assert np.array_equal(stored.images.numpy(), PIXELS)
        assert stored.info == {"labels": [1, 2], "note": "ü"}
    assert first.digest == again.digest
    assert list(cache.glob("*.tmp")) == []


def test_the_file_takes_no_more_room_than_its_images(cache: Path) -> None:
    cached_images("key", SHAPE, 100_000, building())
    assert only_entry(cache).stat().st_blocks * 512 < 4 * PIXELS.nbytes + 8192


def test_writing_to_the_images_does_not_change_the_file(cache: Path) -> None:
    get(building()).images.zero_()
    assert np.array_equal(get(never).images.numpy(), PIXELS)


def test_another_key_or_shape_is_another_entry(cache: Path) -> None:
    get(building())
    other = np.zeros((1, *SHAPE), dtype=np.uint8)
    assert len(get(building(pixels=other), "other key").images) == 1
    flat = cached_images("key", (60,), 100, building(pixels=PIXELS.reshape(-1, 60)))
    assert flat.images.shape == (70, 60)
    assert np.array_equal(get(never).images.numpy(), PIXELS)


def test_the_digest_is_of_the_pixels_alone(cache: Path) -> None:
    changed = PIXELS.copy()
    changed[69, 2, 3, 4] ^= 1
    digests = [get(building(), "a"), get(building(), "b"), get(building(pixels=changed), "c")]
    assert digests[0].digest == digests[1].digest != digests[2].digest


def test_no_images_at_all(cache: Path) -> None:
    assert get(lambda append: {}).images.shape == (0, *SHAPE)
    assert get(never).images.shape == (0, *SHAPE)


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def cut_one_byte(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_pixel(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)


def change_the_info(path: Path) -> None:
    about = json.loads(path.with_suffix(".json").read_bytes())
    about["info"]["labels"] = [1, 3]
    path.with_suffix(".json").write_text(json.dumps(about))


def lose_the_info(path: Path) -> None:
    path.with_suffix(".json").unlink()


def put_text(path: Path) -> None:
    path.write_text("no array " * 1000)


def put_another_entry(path: Path) -> None:
    get(building(pixels=PIXELS[:40]), "another key")
    (other,) = [p for p in path.parent.glob("*.npy") if p != path]
    other.replace(path)
    other.with_suffix(".json").replace(path.with_suffix(".json"))


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        cut_one_byte,
        empty,
        flip_a_pixel,
        change_the_info,
        lose_the_info,
        put_text,
        put_another_entry,
    ],
)
def test_damage_is_noticed_and_built_again(cache: Path, damage: Any) -> None:
    get(building())
    damage(only_entry(cache))
    calls: list[int] = []
    assert np.array_equal(get(building(calls)).images.numpy(), PIXELS)
    assert calls == [1]
    assert np.array_equal(get(never).images.numpy(), PIXELS)


def test_a_touched_file_is_compared_and_kept(cache: Path) -> None:
    get(building())
    os.utime(only_entry(cache))
    assert np.array_equal(get(never).images.numpy(), PIXELS)


def test_mapped_images_stay_when_the_entry_is_built_again(cache: Path) -> None:
    old = get(building())
    only_entry(cache).unlink()
    get(building())
    assert np.array_equal(old.images.numpy(), PIXELS)


def test_more_than_the_memory_is_mapped_read_only(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, mode: str) -> np.ndarray:
        if mode == "c":
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return open_memmap(path, mode=mode)

    get(building())
    open_memmap = cache_module.open_memmap
    monkeypatch.setattr(cache_module, "open_memmap", refuse)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(get(never).images.numpy(), PIXELS)


def test_a_failed_build_leaves_nothing(cache: Path) -> None:
    def fail(append: Append) -> dict[str, Any]:
        append(PIXELS)
        raise DataError("too many are broken")

    with pytest.raises(DataError, match="too many are broken"):
        get(fail)
    assert [p for p in cache.iterdir() if p.suffix != ".lock"] == []
    assert len(get(building()).images) == 70


def test_an_os_error_of_the_build_is_not_the_caches(cache: Path) -> None:
    def fail(append: Append) -> dict[str, Any]:
        raise OSError(errno.EIO, "the data's own disk")

    with pytest.raises(OSError, match="own disk"):
        get(fail)


@pytest.mark.parametrize(
    "wrong", [PIXELS.astype(np.float32), PIXELS[:, :2], np.repeat(PIXELS, 2, axis=0)]
)
def test_wrong_images_are_refused(cache: Path, wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="images"):
        get(building(pixels=wrong))


def test_a_cache_that_cannot_be_written_falls_back_to_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VAEZOO_CACHE", str(tmp_path / "file"))
    stored = get(building())
    assert np.array_equal(stored.images.numpy(), PIXELS)
    assert stored.info["labels"] == [1, 2]
    printed = capsys.readouterr().err
    assert printed.startswith("vaezoo: the cache ")
    assert printed.count("\n") == 1
    monkeypatch.setenv("VAEZOO_CACHE", str(tmp_path / "cache"))
    assert get(building()).digest == stored.digest


@pytest.mark.parametrize("moment", ["posix_fallocate", "fsync"])
def test_a_full_disk_leaves_nothing_half_written(
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    moment: str,
) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, moment, full)
    calls: list[int] = []
    assert np.array_equal(get(building(calls)).images.numpy(), PIXELS)
    # a full disk is noticed before anything is decoded, where the system can tell
    assert len(calls) == (1 if moment == "posix_fallocate" else 2)
    assert "No space left on device" in capsys.readouterr().err
    assert [p for p in cache.iterdir() if p.suffix != ".lock"] == []


def test_too_much_for_memory_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.parent.touch()
    monkeypatch.setattr(cache_module, "physical_memory", lambda: 1000)
    with pytest.raises(DataError, match="VAEZOO_CACHE"):
        get(never)


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("VAEZOO_CACHE", "/chosen")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/chosen")
    monkeypatch.delenv("VAEZOO_CACHE")
    assert cache_folder() == Path("/xdg/vaezoo")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / ".cache/vaezoo"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == tmp_path / ".cache/vaezoo"


def _build_slowly(log: Path, results: Any) -> None:
    def build(append: Append) -> dict[str, Any]:
        with log.open("a") as file:
            file.write("built\n")
        time.sleep(0.5)
        return building()(append)

    results.put(bool(np.array_equal(get(build).images.numpy(), PIXELS)))


@forks
def test_two_processes_at_once_build_once(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cache_module, "LOCK_SECONDS", 0.1)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [
        context.Process(target=_build_slowly, args=(tmp_path / "log", results)) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    assert [results.get(timeout=20) for _ in workers] == [True] * 3
    for worker in workers:
        worker.join()
    assert (tmp_path / "log").read_text() == "built\n"
    assert "waiting for another process" in capfd.readouterr().err


def _build_and_hang(key: str, begun: Any) -> None:
    def build(append: Append) -> dict[str, Any]:
        append(PIXELS[:30])
        begun.set()
        time.sleep(60)
        return {}

    get(build, key)


@forks
@pytest.mark.parametrize("key", ["key", "another key"])
def test_a_killed_process_leaves_nothing_that_counts(cache: Path, key: str) -> None:
    context = multiprocessing.get_context("fork")
    begun = context.Event()
    worker = context.Process(target=_build_and_hang, args=(key, begun))
    worker.start()
    assert begun.wait(20)
    assert worker.pid is not None
    if key != "key":  # while it lives, its file is left alone
        get(building(), "a third key")
        assert len(list(cache.glob("*.tmp"))) == 1
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    assert len(list(cache.glob("*.tmp"))) == 1
    calls: list[int] = []
    assert np.array_equal(get(building(calls)).images.numpy(), PIXELS)
    assert calls == [1]
    assert list(cache.glob("*.tmp")) == []
