"""What ends a run: each in one line that says where, why, and how to go on."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import vaezoo
from vaezoo.checkpoint.format import list_checkpoints, step_of
from vaezoo.errors import OptionError, RunError, RunStopped, TrainingError, VaezooError
from vaezoo.losses.elbo import ELBOLoss
from vaezoo.models.base import BaseVAE
from vaezoo.runs.train import resume_run
from vaezoo.training import checkpoints as saver
from vaezoo.training import trainer as loop
from vaezoo.training.callback import ProgressCallback
from vaezoo.training.crash import is_out_of_memory, oom_advice, summarize_exception
from vaezoo.training.options import TrainOptions
from vaezoo.training.signals import SignalHandler, StopAtOnce, StopRequested
from vaezoo.training.train_step import TrainStep

TINY: dict[str, Any] = {
    **{"data": "sprites", "examples": 120, "test": 24, "image_size": 16, "hidden": (8, 8)},
    **{"batch_size": 16, "epochs": 3, "log_every": 4, "device": "cpu"},
}  # 6 steps an epoch, 18 in all; windows end at 4, 6, 10, 12, 16, 18


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    vaezoo.train("vanilla", out=out, **TINY)
    return out


def resume(path: Path) -> None:
    resume_run(path, vaezoo.load_run(path).config, ProgressCallback())


def same(a: Path, b: Path) -> bool:
    first, second = load_file(a / "model.safetensors"), load_file(b / "model.safetensors")
    lines = [
        [{k: v for k, v in line.items() if k != "images_per_second"} for line in run.metrics]
        for run in (vaezoo.load_run(a), vaezoo.load_run(b))
    ]
    weights = first.keys() == second.keys() and all(first[k].equal(second[k]) for k in first)
    return weights and lines[0] == lines[1]


def kept(path: Path) -> list[int]:
    return [step_of(found) for found in list_checkpoints(path / "checkpoint")]


class At(ProgressCallback):
    """Does something at a step."""

    def __init__(self, step: int, do: Any) -> None:
        self.left, self.do = step, do

    def on_step_end(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.do()


class TestPlugins:
    """A plugin that raises in the middle."""

    def raising(self, monkeypatch: pytest.MonkeyPatch, step: int, error: Exception) -> None:
        honest = ELBOLoss.forward
        calls = 0

        def forward(loss: ELBOLoss, *args: Any) -> Any:
            nonlocal calls
            calls += loss.training
            if calls == step:
                raise error
            return honest(loss, *args)

        monkeypatch.setattr(ELBOLoss, "forward", forward)

    def test_within_a_step(
        self, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.raising(monkeypatch, 9, ValueError("first line\nsecond line"))
        out = tmp_path / "r"
        with pytest.raises(TrainingError) as caught:
            vaezoo.train("vanilla", out=out, checkpoint_every=3, **TINY)
        said = str(caught.value)
        assert "training failed in step 9: ValueError: first line (" in said
        assert f"{__file__}, line" in said
        assert f"to go on: vaezoo train --resume {out} (from step 6)" in said
        assert "\n" not in said
        assert "second line" in (out / "traceback.txt").read_text()
        assert "Traceback" in (out / "traceback.txt").read_text()
        assert isinstance(caught.value.__cause__, ValueError)
        monkeypatch.undo()
        resume(out)
        assert same(whole, out)
        assert not (out / "traceback.txt").exists()

    def test_between_steps_nothing_is_lost(
        self, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Validation comes after a whole step, which is saved."""

        def broken(*args: Any, **kwargs: Any) -> Any:
            raise KeyError("term")

        monkeypatch.setattr(loop, "evaluate_loss", broken)
        with pytest.raises(TrainingError, match=r"after step 6: KeyError: 'term' .*from step 6\)"):
            vaezoo.train("vanilla", out=tmp_path / "r", **TINY)
        assert kept(tmp_path / "r") == [6]
        monkeypatch.undo()
        resume(tmp_path / "r")
        assert same(whole, tmp_path / "r")

    def test_a_reporter_that_raises(
        self, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Raises(ProgressCallback):
            def on_log(self, metrics: Any) -> None:
                if metrics.step == 10:
                    raise OSError("no such terminal")

        with pytest.raises(TrainingError, match="after step 10: OSError: no such terminal"):
            vaezoo.train("vanilla", out=tmp_path / "r", callback=Raises(), **TINY)
        resume(tmp_path / "r")
        assert same(whole, tmp_path / "r")

    def test_in_fit_prior(
        self, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(model: BaseVAE, batches: Any) -> None:
            raise RuntimeError("no convergence")

        monkeypatch.setattr(BaseVAE, "fit_prior", broken)
        with pytest.raises(TrainingError, match="after step 18: RuntimeError: no convergence"):
            vaezoo.train("vanilla", out=tmp_path / "r", **TINY)
        monkeypatch.undo()
        resume(tmp_path / "r")
        assert same(whole, tmp_path / "r")

    def test_an_error_in_one_line_of_its_own_says_how_to_go_on(
        self, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.raising(monkeypatch, 9, OptionError("--beta is odd"))
        with pytest.raises(OptionError, match=r"--beta is odd; to go on: vaezoo train --resume"):
            vaezoo.train("vanilla", out=tmp_path / "r", **TINY)
        monkeypatch.undo()
        resume(tmp_path / "r")
        assert same(whole, tmp_path / "r")

    def test_before_anything_was_computed_it_passes_as_it_is(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.raising(monkeypatch, 1, ValueError("wrong from the first"))
        with pytest.raises(ValueError, match="wrong from the first"):
            vaezoo.train("vanilla", out=tmp_path / "r", **TINY)
        assert list(tmp_path.iterdir()) == []


class TestMemory:
    def test_says_what_to_lower(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*args: Any) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

        monkeypatch.setattr(TrainStep, "_run", full)
        with pytest.raises(TrainingError) as caught:
            vaezoo.train("vanilla", out=tmp_path / "r", precision="fp32", **TINY)
        said = str(caught.value)
        assert "in step 1: cpu is out of memory: give a smaller --batch-size than 16" in said
        assert "--precision bf16" in said
        assert "\n" not in said
        assert list(tmp_path.iterdir()) == []

    def test_what_torch_raises_on_the_cpu(self) -> None:
        with pytest.raises(RuntimeError) as caught:
            torch.empty(1 << 60)
        assert is_out_of_memory(caught.value)
        assert is_out_of_memory(MemoryError())
        assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))

    def test_names_no_way_that_is_taken(self) -> None:
        words = oom_advice(TrainOptions(batch_size=1), "bf16")
        assert "batch" not in words
        assert "bf16" not in words
        assert "smaller model" in words


def test_one_line_names_the_plugins_frame() -> None:
    with pytest.raises(ValueError, match="x") as caught:
        torch.nn.Sequential(Fails())(torch.ones(1))
    line = summarize_exception(caught.value)
    assert line.startswith(f"ValueError: x ({__file__}, line ")
    assert summarize_exception(KeyError()) == "KeyError"


class Fails(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ValueError("x")


class TestSaving:
    def test_by_steps(self, tmp_path: Path) -> None:
        vaezoo.train("vanilla", out=tmp_path / "r", checkpoint_every=4, keep_checkpoints=3, **TINY)
        # The last three, and the best of those that held-out data has judged: of steps 12 and 18.
        assert set(kept(tmp_path / "r")) - {12} == {16, 18} | ({8} & set(kept(tmp_path / "r")))
        assert kept(tmp_path / "r")[-2:] == [16, 18]

    def test_by_time(self, tmp_path: Path) -> None:
        vaezoo.train("vanilla", out=tmp_path / "r", checkpoint_seconds=1e-9, **TINY)
        assert kept(tmp_path / "r")[-1] == 18
        assert len(kept(tmp_path / "r")) >= 2

    def test_not_at_all_until_the_end(self, tmp_path: Path) -> None:
        vaezoo.train("vanilla", out=tmp_path / "r", checkpoint_seconds=None, **TINY)
        assert kept(tmp_path / "r") == [18]

    def test_broken_weights_are_never_saved(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A checkpoint in the middle of a window looks at the window first."""
        honest = TrainStep.__call__

        def broken(updates: TrainStep, batch: Any, context: Any, step: int) -> torch.Tensor:
            values = honest(updates, batch, context, step)
            if step == 6:  # the 7th; its window ends at 10
                values.fill_(math.nan)
                with torch.no_grad():
                    next(updates.model.parameters()).fill_(math.nan)
            return values

        monkeypatch.setattr(TrainStep, "__call__", broken)
        with pytest.raises(TrainingError) as caught:
            vaezoo.train("vanilla", out=tmp_path / "r", checkpoint_every=2, **TINY)
        said = str(caught.value)
        assert "became nan at step 7" in said
        assert f"last good checkpoint is {tmp_path / 'r' / 'checkpoint' / 'step-000000006'}" in said
        assert kept(tmp_path / "r")[-1] == 6

    def test_a_disk_that_fills_behind_training_stops_it(
        self, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        honest, calls = saver.save_checkpoint, 0

        def full(folder: Path, step: int, *args: Any, **kwargs: Any) -> None:
            nonlocal calls
            calls += 1
            if calls > 1:
                raise RunError(f"the disk is full: {folder} could not be written")
            honest(folder, step, *args, **kwargs)

        monkeypatch.setattr(saver, "save_checkpoint", full)
        with pytest.raises(RunError, match=r"^the disk is full: .*; to go on: vaezoo train --res"):
            vaezoo.train("vanilla", out=tmp_path / "r", checkpoint_every=4, **TINY)
        assert calls == 2
        assert kept(tmp_path / "r") == [4]
        monkeypatch.undo()
        resume(tmp_path / "r")
        assert same(whole, tmp_path / "r")

    def test_a_run_that_broke_may_go_on_with_another_rate(self, tmp_path: Path) -> None:
        from vaezoo.cli.main import main

        out, job = tmp_path / "r", {**TINY, "lr": 1e-3, "schedule": "constant"}
        with pytest.raises(RunStopped):
            vaezoo.train("vanilla", out=out, callback=At(8, lambda: os.kill(os.getpid(), 2)), **job)
        assert main(["train", "--resume", str(out), "--lr", "0.0001", "--grad-clip", "1"]) == 0
        run = vaezoo.load_run(out)
        assert run.config.train.lr == 0.0001
        assert {line["lr"] for line in run.metrics if line["kind"] == "train"} == {1e-3, 1e-4}


class TestStops:
    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_saves_and_tells_how_to_go_on(
        self, whole: Path, tmp_path: Path, number: int, code: int
    ) -> None:
        out = tmp_path / "r"
        with pytest.raises(RunStopped, match="stopped after step 8; to go on") as caught:
            vaezoo.train(
                "vanilla", out=out, callback=At(8, lambda: os.kill(os.getpid(), number)), **TINY
            )
        assert caught.value.exit_code == code
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        resume(out)
        assert same(whole, out)

    def test_validation_is_broken_off_and_done_again(
        self, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        honest = loop.evaluate_loss
        through: list[bool] = []

        def slow(*args: Any, **kwargs: Any) -> Any:
            os.kill(os.getpid(), signal.SIGTERM)
            through.append(True)
            return honest(*args, **kwargs)

        monkeypatch.setattr(loop, "evaluate_loss", slow)
        with pytest.raises(RunStopped, match="after step 6"):
            vaezoo.train("vanilla", out=tmp_path / "r", **TINY)
        assert through == []
        monkeypatch.undo()
        resume(tmp_path / "r")
        assert same(whole, tmp_path / "r")

    def test_what_follows_training_is_left_at_once(
        self, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def slow(model: BaseVAE, batches: Any) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("it went on")

        monkeypatch.setattr(BaseVAE, "fit_prior", slow)
        with pytest.raises(RunStopped, match="after step 18"):
            vaezoo.train("vanilla", out=tmp_path / "r", **TINY)
        monkeypatch.undo()
        resume(tmp_path / "r")
        assert same(whole, tmp_path / "r")

    def test_a_second_stops_at_once(self, tmp_path: Path) -> None:
        def twice() -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)

        with pytest.raises(StopAtOnce) as caught:
            vaezoo.train("vanilla", out=tmp_path / "r", callback=At(8, twice), **TINY)
        assert caught.value.exit_code == 143
        resume(tmp_path / "r")

    def test_one_that_came_before_is_heard(self) -> None:
        stops = SignalHandler()
        with stops.caught():
            os.kill(os.getpid(), signal.SIGINT)
            assert stops.asked == signal.SIGINT
            with pytest.raises(StopRequested), stops.interruptible():
                pytest.fail("it went on")


class TestLines:
    def test_a_finished_run_that_lost_its_end_is_finished_again(
        self, whole: Path, tmp_path: Path
    ) -> None:
        """The summary comes last: without it the pictures may be missing too."""
        import shutil

        out = tmp_path / "r"
        shutil.copytree(whole, out)
        for name in ("summary.json", "samples.png", "model.safetensors"):
            (out / name).unlink()
        resume(out)
        assert same(whole, out)
        assert (out / "samples.png").read_bytes() == (whole / "samples.png").read_bytes()
        with pytest.raises(OptionError, match="has finished its 18 steps"):
            resume(out)

    def test_lost_lines_are_made_again_by_the_checkpoint_before(
        self, whole: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "r"
        with pytest.raises(RunStopped):
            vaezoo.train(
                "vanilla",
                out=out,
                callback=At(17, lambda: os.kill(os.getpid(), 2)),
                checkpoint_every=5,
                **TINY,
            )
        data = (out / "metrics.jsonl").read_bytes()
        lines = data.splitlines(keepends=True)
        (out / "metrics.jsonl").write_bytes(b"".join(lines[:-1]))
        notes: list[str] = []

        class Notes(ProgressCallback):
            def on_note(self, text: str) -> None:
                notes.append(text)

        resume_run(out, vaezoo.load_run(out).config, Notes())
        assert any("metrics.jsonl is shorter" in note and "step 15" in note for note in notes)
        assert same(whole, out)

    def test_a_folder_without_a_checkpoint_begins_again(
        self, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Killed(BaseException):
            pass

        def kill() -> None:
            raise Killed

        out = tmp_path / "r"
        with pytest.raises(Killed):
            vaezoo.train("vanilla", out=out, callback=At(11, kill), **TINY)
        assert kept(out) == []
        resume(out)
        assert same(whole, out)

    def test_a_run_that_is_trained_is_not_resumed(self, tmp_path: Path) -> None:
        said: list[str] = []
        out = tmp_path / "r"

        def second() -> None:
            with pytest.raises(VaezooError) as caught:
                resume(out)
            said.append(str(caught.value))

        vaezoo.train("vanilla", out=out, callback=At(8, second), **TINY)
        assert f"is being trained by process {os.getpid()}" in said[0]
