"""A run folder: whole from the first, and one process's."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from vaezoo.checkpoint import folder as runfolder
from vaezoo.checkpoint.folder import RunFolder
from vaezoo.errors import RunError


def create(out: Path | None) -> RunFolder:
    return RunFolder.create(out, "model-data", "a: 1\n", {"b": 2})


class TestCreate:
    def test_holds_its_configuration(self, tmp_path: Path) -> None:
        folder = create(tmp_path / "deep" / "run")
        assert folder.config.read_text() == "a: 1\n"
        assert json.loads(folder.metadata.read_text()) == {"b": 2}
        assert [path.name for path in (tmp_path / "deep").iterdir()] == ["run"]

    def test_has_no_name_before_it_holds_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A process killed in between leaves no folder that cannot be resumed."""
        seen: list[bool] = []
        honest = RunFolder.write_start

        def watched(folder: RunFolder, *args: Any) -> None:
            honest(folder, *args)
            seen.append((tmp_path / "run").exists())

        monkeypatch.setattr(RunFolder, "write_start", watched)
        create(tmp_path / "run")
        assert seen == [False]

    def test_takes_the_next_free_name(self, in_tmp: Path) -> None:
        assert [create(None).path.name for _ in range(3)] == [
            "model-data-001",
            "model-data-002",
            "model-data-003",
        ]
        create(None).remove()
        assert create(None).path == Path("runs/model-data-004")

    def test_writes_over_nothing(self, tmp_path: Path) -> None:
        create(tmp_path / "run").metrics.write_text("precious")
        with pytest.raises(RunError, match="exists already"):
            create(tmp_path / "run")
        assert (tmp_path / "run" / "metrics.jsonl").read_text() == "precious"

    def test_an_empty_folder_is_used_and_left_empty_again(self, tmp_path: Path) -> None:
        (tmp_path / "run").mkdir()
        number = (tmp_path / "run").stat().st_ino
        folder = create(tmp_path / "run")
        assert folder.config.read_text() == "a: 1\n"
        with pytest.raises(RunError, match="exists already"):
            create(tmp_path / "run")
        folder.remove()
        assert (tmp_path / "run").stat().st_ino == number  # it may be a mount point
        assert list((tmp_path / "run").iterdir()) == []

    def test_of_two_that_see_an_empty_folder_one_gets_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "run").mkdir()
        create(tmp_path / "run").config.write_text("precious")
        monkeypatch.setattr(runfolder, "_is_empty", lambda path: True)
        with pytest.raises(RunError, match="cannot write"):
            create(tmp_path / "run")
        assert (tmp_path / "run" / "config.yaml").read_text() == "precious"

    def test_who_comes_second_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between the look and the rename another process may make the folder."""
        honest = runfolder.check_absent
        monkeypatch.setattr(runfolder, "check_absent", lambda path: None)
        create(tmp_path / "run").metrics.write_text("precious")
        with pytest.raises(RunError, match="cannot write"):
            create(tmp_path / "run")
        monkeypatch.setattr(runfolder, "check_absent", honest)
        assert (tmp_path / "run" / "metrics.jsonl").read_text() == "precious"
        assert [path.name for path in tmp_path.iterdir()] == ["run"]


def _hold(path: Path, ready: Any) -> None:
    with RunFolder(path).lock():
        ready.set()
        signal.pause()


class TestHeld:
    def test_a_second_is_refused_and_told_who(self, tmp_path: Path) -> None:
        folder = create(tmp_path / "run")
        with folder.lock():
            with pytest.raises(RunError) as caught, RunFolder(folder.path).lock():
                pass
            said = str(caught.value)
            assert f"is being trained by process {os.getpid()} on" in said
            assert "\n" not in said
        with RunFolder(folder.path).lock():
            pass

    def test_dies_with_its_process(self, tmp_path: Path) -> None:
        folder = create(tmp_path / "run")
        context = multiprocessing.get_context("fork")
        ready = context.Event()
        process = context.Process(target=_hold, args=(folder.path, ready))
        process.start()
        assert ready.wait(30)
        with pytest.raises(RunError, match=f"process {process.pid} on"), folder.lock():
            pass
        process.kill()
        process.join()
        with folder.lock():
            pass

    def test_takes_away_what_a_killed_process_left(self, tmp_path: Path) -> None:
        folder = create(tmp_path / "run")
        half = folder.checkpoints / ".step-000000003.99.tmp"
        half.mkdir(parents=True)
        (half / "model.safetensors").write_text("half")
        (folder.path / ".model.safetensors.99.tmp").write_text("half")
        with folder.lock():
            assert not half.exists()
        assert list(folder.path.glob(".*.tmp")) == []


class TestMetrics:
    def test_a_line_that_is_being_written_is_left_out(self, tmp_path: Path) -> None:
        folder = create(tmp_path / "run")
        line = {"kind": "train", "step": 1, "terms": {"rate": 2.0}}
        folder.append_metrics(line)
        with folder.metrics.open("a") as file:
            file.write('{"step": 2')
        assert folder.read_metrics() == [line]

    def test_begun_when_there_is_something_to_keep(self, tmp_path: Path) -> None:
        folder = create(tmp_path / "run")
        with folder.lock():
            assert not folder.has_progress
            folder.append_metrics({"step": 1})
            assert folder.has_progress
