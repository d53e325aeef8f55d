"""What ends a run: each in one line that says where, why, and how to go on."""

from __future__ import annotations

import math
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import vaezoo
from small_jobs import SMALL_JOB, StopAfter
from vaezoo.checkpoint.format import list_checkpoints, step_of
from vaezoo.data.base import Batch
from vaezoo.data.loader import BatchLoader
from vaezoo.errors import OptionError, RunError, RunStopped, TrainingError, VaezooError
from vaezoo.models.base import BaseVAE
from vaezoo.runs.train import resume_run
from vaezoo.training import checkpoints as saver
from vaezoo.training import trainer as loop
from vaezoo.training.crash import is_out_of_memory, oom_advice, summarize_exception
from vaezoo.training.loggers import ProgressCallback
from vaezoo.training.options import TrainOptions
from vaezoo.training.signals import SignalHandler, StopAtOnce, StopRequested
from vaezoo.training.train_step import TrainStep
from vaezoo_vanilla.loss import ELBOLoss

MonkeyPatch = pytest.MonkeyPatch

# 6 steps an epoch, 18 in all; windows end at 4, 6, 10, 12, 16, 18
TINY = {**SMALL_JOB, "epochs": 3, "log_every": 4}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    vaezoo.train("vanilla", out=out, **TINY)
    return out


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "r"


def resume(path: Path) -> Path:
    resume_run(path, vaezoo.load_run(path).config, ProgressCallback())
    return path


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

    def raising(self, monkeypatch: MonkeyPatch, step: int, error: Exception) -> None:
        honest = ELBOLoss.forward
        calls = 0

        def forward(loss: ELBOLoss, *args: Any) -> Any:
            nonlocal calls
            calls += loss.training
            if calls == step:
                raise error
            return honest(loss, *args)

        monkeypatch.setattr(ELBOLoss, "forward", forward)

    def test_error_within_a_step(self, whole: Path, out: Path, monkeypatch: MonkeyPatch) -> None:
        self.raising(monkeypatch, 9, ValueError("first line\nsecond line"))
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
        assert same(whole, resume(out))
        assert not (out / "traceback.txt").exists()

    def test_error_between_steps(self, whole: Path, out: Path, monkeypatch: MonkeyPatch) -> None:
        """Validation comes after a whole step, which is saved."""

        def broken(*args: Any, **kwargs: Any) -> Any:
            raise KeyError("term")

        monkeypatch.setattr(loop, "evaluate_loss", broken)
        with pytest.raises(TrainingError, match=r"after step 6: KeyError: 'term' .*from step 6\)"):
            vaezoo.train("vanilla", out=out, **TINY)
        assert kept(out) == [6]
        monkeypatch.undo()
        assert same(whole, resume(out))

    def test_error_in_a_callback(self, whole: Path, out: Path) -> None:
        class Raises(ProgressCallback):
            def on_log(self, metrics: Any) -> None:
                if metrics.step == 10:
                    raise OSError("no such terminal")

        with pytest.raises(TrainingError, match="after step 10: OSError: no such terminal"):
            vaezoo.train("vanilla", out=out, callback=Raises(), **TINY)
        assert same(whole, resume(out))

    def test_error_in_fit_sampler(self, whole: Path, out: Path, monkeypatch: MonkeyPatch) -> None:
        def broken(model: BaseVAE, batches: Any) -> None:
            raise RuntimeError("no convergence")

        monkeypatch.setattr(BaseVAE, "fit_sampler", broken)
        with pytest.raises(TrainingError, match="after step 18: RuntimeError: no convergence"):
            vaezoo.train("vanilla", out=out, **TINY)
        monkeypatch.undo()
        assert same(whole, resume(out))

    def test_error_of_vaezoo(self, whole: Path, out: Path, monkeypatch: MonkeyPatch) -> None:
        self.raising(monkeypatch, 9, OptionError("--beta is odd"))
        with pytest.raises(OptionError, match=r"^beta is odd; to go on: vaezoo train --resume"):
            vaezoo.train("vanilla", out=out, **TINY)
        monkeypatch.undo()
        assert same(whole, resume(out))

    def test_error_in_first_step(self, out: Path, monkeypatch: MonkeyPatch) -> None:
        self.raising(monkeypatch, 1, ValueError("wrong from the first"))
        with pytest.raises(ValueError, match="wrong from the first"):
            vaezoo.train("vanilla", out=out, **TINY)
        assert list(out.parent.iterdir()) == []


class TestMemory:
    def test_out_of_memory(self, out: Path, monkeypatch: MonkeyPatch) -> None:
        def full(*args: Any) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

        monkeypatch.setattr(TrainStep, "_run", full)
        with pytest.raises(TrainingError) as caught:
            vaezoo.train("vanilla", out=out, precision="fp32", **TINY)
        said = str(caught.value)
        assert "in step 1: cpu is out of memory: give a smaller batch_size than 16" in said
        assert "precision bf16" in said
        assert "\n" not in said
        assert list(out.parent.iterdir()) == []

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
    def test_by_steps(self, out: Path) -> None:
        vaezoo.train("vanilla", out=out, checkpoint_every=4, keep_checkpoints=3, **TINY)
        # The last three, and the best of those that held-out data has judged: of steps 12 and 18.
        assert set(kept(out)) - {12} == {16, 18} | ({8} & set(kept(out)))
        assert kept(out)[-2:] == [16, 18]

    def test_by_time(self, out: Path) -> None:
        vaezoo.train("vanilla", out=out, checkpoint_seconds=1e-9, **TINY)
        assert kept(out)[-1] == 18
        assert len(kept(out)) >= 2

    def test_not_at_all_until_the_end(self, out: Path) -> None:
        vaezoo.train("vanilla", out=out, checkpoint_seconds=None, **TINY)
        assert kept(out) == [18]

    def test_broken_weights_are_not_saved(self, out: Path, monkeypatch: MonkeyPatch) -> None:
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
            vaezoo.train("vanilla", out=out, checkpoint_every=2, **TINY)
        said = str(caught.value)
        assert "became nan at step 7" in said
        assert re.search(rf"vaezoo train --resume {out} --lr [0-9.]+ \(from step 6, the last", said)
        assert kept(out)[-1] == 6

    def test_weights_of_a_large_loss_are_not_kept(
        self, out: Path, monkeypatch: MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Weights are finite and useless from step 7 on, and the loss is NaN at step 11."""
        from vaezoo.cli.main import main

        honest = TrainStep.__call__

        def worse(updates: TrainStep, batch: Any, context: Any, step: int) -> torch.Tensor:
            values = honest(updates, batch, context, step)
            if step == 6:
                with torch.no_grad():
                    for parameter in updates.model.parameters():
                        parameter.mul_(1e6)
            return values * math.nan if step == 10 else values

        monkeypatch.setattr(TrainStep, "__call__", worse)
        with pytest.raises(TrainingError) as caught:
            vaezoo.train("vanilla", out=out, checkpoint_every=3, keep_checkpoints=2, **TINY)
        monkeypatch.undo()
        assert "from step 6, the last checkpoint whose validation loss is" in str(caught.value)
        assert kept(out)[-1] == 6
        weights = load_file(out / "model.safetensors")
        saved = load_file(out / "checkpoint" / "step-000000006" / "model.safetensors")
        assert weights.keys() == saved.keys()
        assert all(weights[name].equal(saved[name]) for name in weights)
        advice = str(caught.value).partition("to go on: vaezoo ")[2].partition(" (")[0]
        assert main(advice.split()) == 0
        assert vaezoo.load_run(out).summary["steps"] == 18
        capsys.readouterr()

    def test_a_run_of_which_nothing_stays_is_not_to_be_resumed(self, out: Path) -> None:
        with pytest.raises(TrainingError, match=r" with lr 0\.001 \(noth.* no run is kept\)$"):
            vaezoo.train("vanilla", out=out, lr=1e20, **TINY)
        assert not out.exists()

    def test_a_model_that_begins_with_nan_is_no_matter_of_the_rate(
        self, out: Path, monkeypatch: MonkeyPatch
    ) -> None:
        honest = ELBOLoss.forward

        def wrong(*args: Any) -> Any:
            output = honest(*args)
            return type(output)(output.loss * math.nan, output.terms)

        monkeypatch.setattr(ELBOLoss, "forward", wrong)
        with pytest.raises(TrainingError, match="of the untrained model is not finite either"):
            vaezoo.train("vanilla", out=out, **TINY)

    def test_full_disk_stops_a_run(self, whole: Path, out: Path, monkeypatch: MonkeyPatch) -> None:
        honest, calls = saver.save_checkpoint, 0

        def full(folder: Path, step: int, *args: Any, **kwargs: Any) -> None:
            nonlocal calls
            calls += 1
            if calls > 1:
                raise RunError(f"the disk is full: {folder} could not be written")
            honest(folder, step, *args, **kwargs)

        monkeypatch.setattr(saver, "save_checkpoint", full)
        with pytest.raises(RunError, match=r"^the disk is full: .*; to go on: vaezoo train --res"):
            vaezoo.train("vanilla", out=out, checkpoint_every=4, **TINY)
        assert calls == 2
        assert kept(out) == [4]
        monkeypatch.undo()
        assert same(whole, resume(out))

    def test_a_run_that_broke_may_go_on_with_another_rate(self, out: Path) -> None:
        from vaezoo.cli.main import main

        job = {**TINY, "lr": 1e-3, "schedule": "constant"}
        with pytest.raises(RunStopped):
            vaezoo.train("vanilla", out=out, callback=StopAfter(8), **job)
        assert main(["train", "--resume", str(out), "--lr", "0.0001", "--grad-clip", "1"]) == 0
        run = vaezoo.load_run(out)
        assert run.config.train.lr == 0.0001
        assert {line["lr"] for line in run.metrics if line["kind"] == "train"} == {1e-3, 1e-4}


class TestStops:
    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_stop_saves_a_checkpoint(
        self, whole: Path, out: Path, number: signal.Signals, code: int
    ) -> None:
        with pytest.raises(RunStopped, match="stopped after step 8; to go on") as caught:
            vaezoo.train("vanilla", out=out, callback=StopAfter(8, number), **TINY)
        assert caught.value.exit_code == code
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        assert same(whole, resume(out))

    def test_stop_in_validation(self, whole: Path, out: Path, monkeypatch: MonkeyPatch) -> None:
        honest = loop.evaluate_loss
        through: list[bool] = []

        def slow(*args: Any, **kwargs: Any) -> Any:
            os.kill(os.getpid(), signal.SIGTERM)
            through.append(True)
            return honest(*args, **kwargs)

        monkeypatch.setattr(loop, "evaluate_loss", slow)
        with pytest.raises(RunStopped, match="after step 6"):
            vaezoo.train("vanilla", out=out, **TINY)
        assert through == []
        monkeypatch.undo()
        assert same(whole, resume(out))

    def test_stop_after_training(self, whole: Path, out: Path, monkeypatch: MonkeyPatch) -> None:
        def slow(model: BaseVAE, batches: Any) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("it went on")

        monkeypatch.setattr(BaseVAE, "fit_sampler", slow)
        with pytest.raises(RunStopped, match="after step 18"):
            vaezoo.train("vanilla", out=out, **TINY)
        monkeypatch.undo()
        assert same(whole, resume(out))

    @pytest.mark.timeout(60)
    def test_stop_while_a_batch_is_loaded(
        self, whole: Path, out: Path, monkeypatch: MonkeyPatch
    ) -> None:
        """The loader waits for ever at the 8th batch."""
        honest = BatchLoader.epoch

        def waits(batches: BatchLoader, number: int, start: int = 0) -> Iterator[Batch]:
            for place, batch in enumerate(honest(batches, number, start)):
                if (number, place) == (1, 1):
                    os.kill(os.getpid(), signal.SIGTERM)
                    while True:
                        time.sleep(0.01)
                yield batch

        monkeypatch.setattr(BatchLoader, "epoch", waits)
        with pytest.raises(RunStopped, match="stopped after step 7"):
            vaezoo.train("vanilla", out=out, **TINY)
        monkeypatch.undo()
        assert same(whole, resume(out))

    @pytest.mark.timeout(60)
    def test_an_epoch_without_a_batch(self, out: Path, monkeypatch: MonkeyPatch) -> None:
        honest = BatchLoader.epoch
        monkeypatch.setattr(
            BatchLoader,
            "epoch",
            lambda batches, number, start=0: iter(()) if number else honest(batches, 0, start),
        )
        with pytest.raises(TrainingError, match="no batch from number 1 of epoch 2 on, and 6 were"):
            vaezoo.train("vanilla", out=out, **TINY)

    def test_a_second_stops_at_once(self, out: Path) -> None:
        def twice() -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)

        with pytest.raises(StopAtOnce) as caught:
            vaezoo.train("vanilla", out=out, callback=At(8, twice), **TINY)
        assert caught.value.exit_code == 143
        resume(out)

    def test_one_that_came_before_is_heard(self) -> None:
        stops = SignalHandler()
        with stops.caught():
            os.kill(os.getpid(), signal.SIGINT)
            assert stops.asked == signal.SIGINT
            with pytest.raises(StopRequested), stops.interruptible():
                pytest.fail("it went on")


class TestLines:
    def test_finished_run_without_its_summary(self, whole: Path, out: Path) -> None:
        """The summary comes last: without it the pictures may be missing too."""
        import shutil

        shutil.copytree(whole, out)
        for name in ("summary.json", "samples.png", "model.safetensors"):
            (out / name).unlink()
        assert same(whole, resume(out))
        assert (out / "samples.png").read_bytes() == (whole / "samples.png").read_bytes()
        with pytest.raises(OptionError, match="has finished its 18 steps"):
            resume(out)

    def test_lost_lines_need_an_older_checkpoint(self, whole: Path, out: Path, notes: Any) -> None:
        with pytest.raises(RunStopped):
            vaezoo.train("vanilla", out=out, callback=StopAfter(17), checkpoint_every=5, **TINY)
        lines = (out / "metrics.jsonl").read_bytes().splitlines(keepends=True)
        (out / "metrics.jsonl").write_bytes(b"".join(lines[:-1]))
        resume_run(out, vaezoo.load_run(out).config, notes)
        assert any("metrics.jsonl is shorter" in note and "step 15" in note for note in notes.lines)
        assert same(whole, out)

    def test_without_a_checkpoint(self, whole: Path, out: Path, monkeypatch: MonkeyPatch) -> None:
        class Killed(BaseException):
            pass

        def kill() -> None:
            raise Killed

        with pytest.raises(Killed):
            vaezoo.train("vanilla", out=out, callback=At(11, kill), **TINY)
        assert kept(out) == []
        assert same(whole, resume(out))

    def test_a_run_that_is_trained_is_not_resumed(self, out: Path) -> None:
        said: list[str] = []

        def second() -> None:
            config = vaezoo.load_run(out).config
            longer = config.replace("train", epochs=9)
            with pytest.raises(VaezooError) as caught:
                resume_run(out, longer, ProgressCallback())
            assert (out / "config.yaml").read_text() == config.to_yaml()
            said.append(str(caught.value))

        vaezoo.train("vanilla", out=out, callback=At(8, second), **TINY)
        assert f"is being trained by process {os.getpid()}" in said[0]
