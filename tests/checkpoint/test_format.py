"""Checkpoints: what is read is what was written, or it is not read."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from vaezoo.checkpoint import format as checkpoint
from vaezoo.checkpoint import format as tensor_file
from vaezoo.checkpoint.format import (
    Checkpoint,
    list_checkpoints,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
    verify,
    write_tensors,
)
from vaezoo.errors import RunError

WEIGHTS = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.tensor([1.0, -1.0])}
FILES = ("SHA256SUMS", "model.safetensors", "random.safetensors", "state.json")


def save(folder: Path, step: int, *, keep: int = 2, score: float | None = None) -> Path:
    tensors = {"model": WEIGHTS, "random": {"cpu": torch.tensor([step], dtype=torch.uint8)}}
    save_checkpoint(folder, step, tensors, {"step": step, "score": score}, keep=keep)
    return folder / f"step-{step:09d}"


def steps(folder: Path) -> list[int]:
    return [checkpoint.step_of(path) for path in list_checkpoints(folder)]


def any_fits(found: Checkpoint) -> None:
    return


class TestTensorFile:
    @pytest.mark.parametrize("dtype", sorted(tensor_file._NAMES, key=str), ids=str)
    def test_every_type_comes_back(self, tmp_path: Path, dtype: torch.dtype) -> None:
        values = torch.tensor([[0, 1, 1], [1, 0, 1]]).to(dtype)
        write_tensors(tmp_path / "f", {"a": values, "b": torch.ones((), dtype=torch.bool)})
        read = load_file(tmp_path / "f")
        assert read["a"].dtype == dtype
        assert read["a"].equal(values)
        assert read["b"].item() is True

    @given(
        st.dictionaries(
            st.text(min_size=1, max_size=8),
            st.tuples(st.lists(st.integers(0, 3), max_size=4), st.sampled_from(["f8", "f4", "u1"])),
            max_size=6,
        )
    )
    def test_any_names_and_shapes(
        self, tmp_path_factory: pytest.TempPathFactory, described: dict[str, Any]
    ) -> None:
        types = {"f8": torch.float64, "f4": torch.float32, "u1": torch.uint8}
        tensors = {
            name: torch.randint(0, 100, shape).to(types[kind])
            for name, (shape, kind) in described.items()
        }
        path = tmp_path_factory.mktemp("t") / "f"
        digest = write_tensors(path, tensors)
        read = load_file(path)
        assert read.keys() == tensors.keys()
        assert all(read[name].equal(tensors[name]) for name in tensors)
        assert digest == hashlib.sha256(path.read_bytes()).hexdigest()

    def test_another_layout_in_memory(self, tmp_path: Path) -> None:
        values = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
        write_tensors(tmp_path / "f", {"a": values, "b": values.transpose(0, 1)})
        read = load_file(tmp_path / "f")
        assert read["a"].equal(values)
        assert read["b"].equal(values.transpose(0, 1))

    def test_more_than_a_chunk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tensor_file, "_CHUNK", 64)
        values = torch.randn(100)
        digest = write_tensors(tmp_path / "f", {"a": values})
        assert load_file(tmp_path / "f")["a"].equal(values)
        assert digest == hashlib.sha256((tmp_path / "f").read_bytes()).hexdigest()

    def test_a_type_without_a_name_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(RunError, match=r"a is torch\.complex64"):
            write_tensors(tmp_path / "f", {"a": torch.zeros(1, dtype=torch.complex64)})


class TestSums:
    def test_round_trip(self, tmp_path: Path) -> None:
        found = read_checkpoint(save(tmp_path, 7))
        assert found.step == 7
        assert found.state == {"step": 7, "score": None}
        assert all(found.tensors["model"][name].equal(WEIGHTS[name]) for name in WEIGHTS)
        assert sorted(path.name for path in found.path.iterdir()) == sorted(FILES)

    def test_the_usual_tool_reads_them(self, tmp_path: Path) -> None:
        tool = shutil.which("sha256sum")
        if tool is None:
            pytest.skip("there is no sha256sum here")
        path = save(tmp_path, 7)
        subprocess.run([tool, "-c", "SHA256SUMS"], cwd=path, check=True, capture_output=True)

    @pytest.mark.parametrize("name", FILES)
    def test_any_flipped_bit_is_noticed(self, tmp_path: Path, name: str) -> None:
        path = save(tmp_path, 7) / name
        data = path.read_bytes()
        for place in range(0, len(data), max(1, len(data) // 150)):
            for bit in (0, 5, 7):  # 5 turns a letter into its capital
                damaged = bytearray(data)
                damaged[place] ^= 1 << bit
                path.write_bytes(damaged)
                with pytest.raises(RunError, match=r"is damaged|is missing") as caught:
                    verify(path.parent)
                assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("name", FILES)
    def test_any_length_is_noticed(self, tmp_path: Path, name: str) -> None:
        path = save(tmp_path, 7) / name
        data = path.read_bytes()
        for size in (*range(0, len(data), max(1, len(data) // 50)), len(data) - 1):
            path.write_bytes(data[:size])
            with pytest.raises(RunError, match=r"is damaged|is missing"):
                verify(path.parent)
        path.write_bytes(data + b"\n")
        with pytest.raises(RunError, match="is damaged"):
            verify(path.parent)

    @pytest.mark.parametrize("name", FILES)
    def test_a_missing_file_is_named(self, tmp_path: Path, name: str) -> None:
        path = save(tmp_path, 7)
        (path / name).unlink()
        with pytest.raises(RunError, match=f"{name} is missing"):
            verify(path)

    def test_a_file_more_is_named(self, tmp_path: Path) -> None:
        path = save(tmp_path, 7)
        write_tensors(path / "loss.safetensors", WEIGHTS)
        with pytest.raises(RunError, match=r"loss\.safetensors is damaged"):
            verify(path)


class TestKept:
    def test_the_newest(self, tmp_path: Path) -> None:
        for step in (3, 6, 9, 12):
            save(tmp_path, step, keep=3)
        assert steps(tmp_path) == [6, 9, 12]

    def test_the_best_beside_them(self, tmp_path: Path) -> None:
        for step, score in ((3, -9.0), (6, -5.0), (9, -7.0), (12, None), (15, -8.0)):
            save(tmp_path, step, keep=2, score=score)
        assert steps(tmp_path) == [6, 12, 15]
        save(tmp_path, 18, keep=1, score=-4.0)
        assert steps(tmp_path) == [18]

    def test_what_was_damaged_goes_when_training_went_back_before_it(self, tmp_path: Path) -> None:
        for step in (3, 6, 9):
            save(tmp_path, step, keep=3, score=float(step))
        (tmp_path / "step-000000009" / "model.safetensors").unlink()
        save(tmp_path, 7, keep=2)
        assert steps(tmp_path) == [6, 7]

    def test_the_same_step_again(self, tmp_path: Path) -> None:
        path = save(tmp_path, 3)
        (path / "state.json").write_text("no")
        verify(save(tmp_path, 3))
        assert steps(tmp_path) == [3]

    def test_nothing_else_is_touched(self, tmp_path: Path) -> None:
        (tmp_path / "step-mine").mkdir()
        for step in (3, 6, 9):
            save(tmp_path, step, keep=1)
        assert (tmp_path / "step-mine").is_dir()


class TestLoad:
    def load(self, folder: Path, fits: Callable[[Checkpoint], None] = any_fits) -> Any:
        notes: list[str] = []
        return load_checkpoint(folder, fits, notes.append), notes

    def test_none_at_all(self, tmp_path: Path) -> None:
        assert self.load(tmp_path) == (None, [])

    def test_the_newest(self, tmp_path: Path) -> None:
        save(tmp_path, 3)
        save(tmp_path, 12)
        found, notes = self.load(tmp_path)
        assert (found.step, notes) == (12, [])

    @pytest.mark.parametrize("name", FILES)
    def test_the_one_before_a_damaged_one(self, tmp_path: Path, name: str) -> None:
        for step in (3, 6):
            save(tmp_path, step)
        damaged = tmp_path / "step-000000006" / name
        damaged.write_bytes(damaged.read_bytes()[:-1])
        found, (note,) = self.load(tmp_path)
        assert found.step == 3
        assert "step-000000006" in note
        assert name in note or name == "SHA256SUMS"
        assert "training resumes from the older checkpoint of step 3" in note
        assert "\n" not in note

    def test_the_one_before_one_that_does_not_fit(self, tmp_path: Path) -> None:
        for step in (3, 6):
            save(tmp_path, step)

        def short(found: Checkpoint) -> None:
            if found.step > 3:
                raise RunError("metrics.jsonl is shorter")

        found, notes = self.load(tmp_path, short)
        assert found.step == 3
        assert notes[0].startswith("metrics.jsonl is shorter")

    def test_all_damaged_is_refused(self, tmp_path: Path) -> None:
        for step in (3, 6):
            (save(tmp_path, step) / "state.json").unlink()
        with pytest.raises(RunError, match=r"from any checkpoint in .*step-000000006/state\.json"):
            self.load(tmp_path)

    @pytest.mark.parametrize("place", ["write_tensors", "write_text", "fsync_dir"])
    def test_a_write_that_fails_leaves_the_one_before(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
    ) -> None:
        save(tmp_path, 3)

        def full(*args: Any, **kwargs: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(checkpoint, place, full)
        with pytest.raises(RunError, match="the disk is full"):
            save(tmp_path, 6)
        monkeypatch.undo()
        found, _ = self.load(tmp_path)
        assert found.step == (6 if place == "fsync_dir" else 3)  # it had its name by then
        assert [path.name for path in tmp_path.glob(".*")] == []


def test_everything_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut after the rename must find the files: each was synced before, and the folder."""
    import os

    synced: list[tuple[str, bool]] = []
    honest = os.fsync

    def spy(descriptor: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        synced.append((name, (tmp_path / "step-000000003").exists()))
        honest(descriptor)

    if not Path("/proc/self/fd").exists():
        pytest.skip("only Linux shows the name of a descriptor")
    monkeypatch.setattr(os, "fsync", spy)
    save(tmp_path, 3)
    before = [name for name, named in synced if not named]
    assert {"model.safetensors", "random.safetensors"} <= set(before)
    assert any("state.json" in name for name in before)
    assert any("SHA256SUMS" in name for name in before)
    assert before[-1].startswith(".step-000000003")  # the names in the folder
    assert synced[-1] == (tmp_path.name, True)


def test_state_is_plain_json(tmp_path: Path) -> None:
    path = save(tmp_path, 3, score=1.5)
    assert json.loads((path / "state.json").read_text())["score"] == 1.5
    tensors: dict[str, dict[str, Tensor]] = {}
    with pytest.raises(ValueError, match="JSON"):
        save_checkpoint(tmp_path, 4, tensors, {"score": float("nan")}, keep=2)
    assert [path.name for path in tmp_path.iterdir()] == [path.name]
