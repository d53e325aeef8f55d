"""Training end to end on a tiny job: the run folder, resuming, reproducibility, breaking losses."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import vaezoo
from small_jobs import SMALL_JOB, StopAfter
from vaezoo.errors import OptionError, RunError, RunStopped, TrainingError
from vaezoo.runs.train import resume_run
from vaezoo.runtime.device import Runtime
from vaezoo.training.loggers import ProgressCallback, TrainMetrics
from vaezoo.training.options import TrainOptions
from vaezoo.training.train_step import TrainStep, should_compile
from vaezoo.training.trainer import Trainer
from vaezoo_vanilla.loss import ELBOLoss

TINY = {**SMALL_JOB, "epochs": 3, "log_every": 4}  # 18 steps


def resume(path: Path) -> Path:
    resume_run(path, vaezoo.load_run(path).config, ProgressCallback())
    return path


def same_weights(a: Path, b: Path) -> bool:
    first, second = load_file(a / "model.safetensors"), load_file(b / "model.safetensors")
    return first.keys() == second.keys() and all(first[k].equal(second[k]) for k in first)


def metrics(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    vaezoo.train("vanilla", out=out, beta=2.0, **TINY)
    return out


def test_run_folder_is_complete(finished: Path) -> None:
    names = {p.name for p in finished.iterdir()}
    assert names == {
        "config.yaml",
        "run.json",
        "metrics.jsonl",
        "summary.json",
        "samples.png",
        "reconstructions.png",
        "curves.png",
        "model.safetensors",
        "checkpoint",
    }
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["steps"] == 18
    assert summary["elbo"] == pytest.approx(-summary["distortion"] - summary["rate"], rel=1e-5)
    assert summary["versions"]["torch"] == torch.__version__
    assert summary["images_per_second"] > 0
    assert summary["wall_seconds"] > 0
    assert summary["reconstruction_r2"] < 1


def test_metrics_have_a_line_a_window_and_an_epoch(finished: Path) -> None:
    lines = metrics(finished)
    # Windows of 4 end at 4, 8, ...; an epoch of 6 closes its own.
    train = [line["step"] for line in lines if line["kind"] == "train"]
    assert train == [4, 6, 10, 12, 16, 18]
    assert [line["step"] for line in lines if line["kind"] == "validation"] == [6, 12, 18]
    for line in lines:
        terms = line["terms"]
        weighed = terms["distortion"] + 2 * terms["rate"]
        assert terms["loss"] == pytest.approx(weighed, rel=1e-5)


def test_same_seed_same_numbers_other_seed_others(finished: Path, tmp_path: Path) -> None:
    again = vaezoo.train("vanilla", out=tmp_path / "again", beta=2.0, **TINY)
    assert same_weights(finished, again.path)
    assert metrics(finished) == metrics(again.path)
    other = vaezoo.train("vanilla", out=tmp_path / "other", beta=2.0, **TINY, seed=1)
    assert not same_weights(finished, other.path)


def test_callers_generator_is_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    vaezoo.train("vanilla", out=tmp_path / "r", **{**TINY, "epochs": 1})
    assert torch.rand(3).equal(expected)


@pytest.mark.parametrize("steps", [1, 6, 7, 9, 17])
def test_resumed_run_is_bit_equal(finished: Path, tmp_path: Path, steps: int) -> None:
    out = tmp_path / "stopped"
    with pytest.raises(RunStopped, match=f"after step {steps}; to go on: vaezoo train --resume"):
        vaezoo.train("vanilla", out=out, beta=2.0, callback=StopAfter(steps), **TINY)
    assert not (out / "summary.json").exists()
    resume(out)
    assert same_weights(finished, out)
    assert metrics(finished) == metrics(out)
    ours = json.loads((out / "summary.json").read_text())
    theirs = json.loads((finished / "summary.json").read_text())
    assert ours["elbo"] == theirs["elbo"]


class Scores:
    """Makes the held-out ELBO of each epoch what a test says, and keeps the weights it had."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> None:
        self.scores, self.weights = iter(scores), list[dict[str, torch.Tensor]]()
        monkeypatch.setattr("vaezoo.training.trainer.evaluate_loss", self._evaluate_loss)
        # The findings about the training would take scores too.
        monkeypatch.setattr("vaezoo.runs.train._training_findings", lambda *_: [])

    def _evaluate_loss(self, model: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        self.weights.append({k: v.clone() for k, v in model.state_dict().items()})
        return {"loss": 0.0, "elbo": next(self.scores)}


def test_patience_stops_early_and_keeps_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = Scores(monkeypatch, [-9.0, -5.0, math.nan, -6.0, -1.0])
    run = vaezoo.train("vanilla", out=tmp_path / "r", **{**TINY, "epochs": 9}, patience=2)
    assert run.summary["steps"] == 4 * 6
    kept = load_file(run.path / "model.safetensors")
    assert all(kept[name].equal(scores.weights[1][name]) for name in kept)
    assert not all(kept[name].equal(scores.weights[3][name]) for name in kept)


def test_more_patience_goes_on_where_it_ran_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = Scores(monkeypatch, [-5.0, -9.0, -9.0, -1.0, -9.0, -9.0, -9.0])
    run = vaezoo.train("vanilla", out=tmp_path / "r", **{**TINY, "epochs": 9}, patience=2)
    with pytest.raises(OptionError, match="ran out of patience after 18 steps"):
        resume(run.path)
    config = run.config.replace("train", patience=3, lr=1e-4)
    resume_run(run.path, config, ProgressCallback())
    assert metrics(run.path)[-1]["step"] == 7 * 6
    kept = load_file(run.path / "model.safetensors")
    assert all(kept[name].equal(scores.weights[3][name]) for name in kept)


def test_without_patience_any_more_the_last_weights_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = Scores(monkeypatch, [-5.0, -9.0, -9.0])
    run = vaezoo.train("vanilla", out=tmp_path / "r", **{**TINY, "epochs": 3}, patience=1)
    assert run.summary["steps"] == 2 * 6
    resume_run(run.path, run.config.replace("train", patience=None), ProgressCallback())
    kept = load_file(run.path / "model.safetensors")
    assert all(kept[name].equal(scores.weights[2][name]) for name in kept)


def test_patience_goes_on_after_a_stop(tmp_path: Path) -> None:
    job = {**TINY, "epochs": 8, "lr": 0.05, "patience": 2}
    whole = vaezoo.train("vanilla", out=tmp_path / "whole", **job).path
    with pytest.raises(RunStopped):
        vaezoo.train("vanilla", out=tmp_path / "again", callback=StopAfter(13), **job)
    resume(tmp_path / "again")
    assert same_weights(whole, tmp_path / "again")
    assert metrics(whole) == metrics(tmp_path / "again")


def test_resume_drops_lines_after_the_checkpoint(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    with pytest.raises(RunStopped):
        vaezoo.train("vanilla", out=out, beta=2.0, callback=StopAfter(9), **TINY)
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 12, "half a li')  # written, then the power went
    resume(out)
    assert metrics(finished) == metrics(out)


def test_finished_run_is_not_resumed_unless_longer(finished: Path, tmp_path: Path) -> None:
    run = vaezoo.train("vanilla", out=tmp_path / "short", **{**TINY, "epochs": 1})
    with pytest.raises(OptionError, match="has finished its 6 steps"):
        resume(run.path)


def test_changed_data_refuses_to_resume(tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    with pytest.raises(RunStopped):
        vaezoo.train("vanilla", out=out, callback=StopAfter(3), **TINY)
    record = json.loads((out / "run.json").read_text())
    record["data"]["fingerprint"] = "another"
    (out / "run.json").write_text(json.dumps(record))
    with pytest.raises(RunError, match="data has changed"):
        resume(out)


class BreakAt(ProgressCallback):
    """Makes the rate infinite or not a number after some steps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: int, value: float) -> None:
        honest = TrainStep.__call__

        def broken(updates: TrainStep, batch: Any, context: Any, number: int) -> torch.Tensor:
            values = honest(updates, batch, context, number)
            if number + 1 >= step:
                values[updates.names.index("rate")] = value
                values[updates.names.index("loss")] = value
                with torch.no_grad():
                    for parameter in updates.model.parameters():
                        parameter.fill_(math.nan)
            return values

        monkeypatch.setattr(TrainStep, "__call__", broken)


@pytest.mark.parametrize(("step", "value", "good"), [(11, math.nan, 10), (2, math.inf, 0)])
def test_broken_loss_names_step_and_term_and_keeps_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, value: float, good: int
) -> None:
    """The weights of the last checkpoint; without one nothing is kept."""
    out, job = tmp_path / "broken", {**TINY, "checkpoint_every": 5}
    with pytest.raises(TrainingError) as caught:
        vaezoo.train("vanilla", out=out, callback=BreakAt(monkeypatch, step, value), **job)
    message = str(caught.value)
    assert f"rate became {value} at step {step}" in message
    assert "\n" not in message
    if good:
        assert f"(from step {good}, the last checkpoint" in message
        kept = load_file(out / "model.safetensors")
        assert all(tensor.isfinite().all() for tensor in kept.values())
    else:
        assert "; train again with lr" in message
        assert not out.exists()


def test_real_divergence_is_told(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"at step|after step"):
        vaezoo.train("vanilla", out=tmp_path / "r", **{**TINY, "lr": 1e30})


def test_folder_is_removed_when_the_first_line_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Any, line: Mapping[str, Any]) -> None:
        raise RunError("the disk is full")

    monkeypatch.setattr("vaezoo.checkpoint.folder.RunFolder.append_metrics", full)
    with pytest.raises(RunError, match="disk is full"):
        vaezoo.train("vanilla", out=tmp_path / "new" / "r", **TINY)
    assert list(tmp_path.iterdir()) == []


def test_batch_larger_than_data_and_existing_folder(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"^batch_size 97 is larger than the 96"):
        vaezoo.train("vanilla", out=tmp_path / "r", **{**TINY, "batch_size": 97})
    with pytest.raises(OptionError, match="give batch_size 2 or more"):
        vaezoo.train("vanilla", out=tmp_path / "r", **{**TINY, "batch_size": 1})
    assert not (tmp_path / "r").exists()
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(RunError, match="exists already"):
        vaezoo.train("vanilla", out=tmp_path / "mine", **TINY)
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_too_few_examples_are_named_at_any_batch_size(tmp_path: Path, batch_size: int) -> None:
    """No advice about the batch size that cannot help."""
    few = {**TINY, "examples": 2, "test": 1, "batch_size": batch_size}
    with pytest.raises(OptionError, match="1 training example is too few: this model needs 2"):
        vaezoo.train("vanilla", out=tmp_path / "r", **few)


def test_training_begins_with_what_was_found(tmp_path: Path) -> None:
    """In two lines: what it is and how it was split, and what was left out; run.json has them."""
    for number in range(40):
        Image.new("L", (8, 8), number).save(tmp_path / f"{number}.png")
    (tmp_path / "0.png").write_bytes(b"")
    said: list[str] = []
    callback = ProgressCallback()
    callback.on_note = said.append  # type: ignore[method-assign]
    options = {"root": tmp_path, "image_size": 8, "network": "mlp", "hidden": (8,), "latent_dim": 2}
    few = {"batch_size": 16, "steps": 1, "device": "cpu", "out": tmp_path / "run"}
    run = vaezoo.train("vanilla", data="folder", callback=callback, **options, **few)
    found = "39 images: 29 to train on, 10 to test, at random by seed 0"
    left_out = "skipped 1 of 40 images (--max-skipped 0 refuses such ones): 0.png: it is empty"
    # From Python, what is said names arguments; the file is for both.
    assert said[:2] == [
        f"data: {found}",
        f"data: {left_out.replace('--max-skipped', 'max_skipped')}",
    ]
    assert run.metadata["data"]["description"] == found
    assert run.metadata["data"]["notes"] == [left_out]


def test_reporter_hears_of_everything(tmp_path: Path) -> None:
    heard: list[Any] = []

    class Listener(ProgressCallback):
        def on_train_start(self, title: str, total_steps: int, done: int) -> None:
            heard.append(("start", total_steps, done))

        def on_log(self, metrics: TrainMetrics) -> None:
            heard.append(("window", metrics.step, metrics.epoch))

        def on_validation_end(self, epoch: int, record: Mapping[str, Any]) -> None:
            heard.append(("validation", epoch, record["step"]))

        def on_train_end(self) -> None:
            heard.append("stop")

    vaezoo.train("vanilla", out=tmp_path / "r", callback=Listener(), **{**TINY, "epochs": 1})
    assert heard == [
        ("start", 6, 0),
        ("window", 4, 1),
        ("window", 6, 1),
        ("validation", 1, 6),
        "stop",
    ]


def test_trains_in_a_thread(tmp_path: Path) -> None:
    """Notebooks and servers train outside of the main thread, where signals cannot be caught."""
    worker = threading.Thread(
        target=vaezoo.train,
        args=("vanilla",),
        kwargs={"out": tmp_path / "r", **{**TINY, "epochs": 1}},
    )
    worker.start()
    worker.join()
    assert (tmp_path / "r" / "summary.json").exists()


def test_validation_split_is_watched_and_test_is_kept_apart(tmp_path: Path) -> None:
    run = vaezoo.train("vanilla", out=tmp_path / "r", **{**TINY, "epochs": 1}, validation=16)
    assert run.metadata["data"]["splits"] == {"train": 80, "validation": 16, "test": 24}


def test_no_host_synchronisation_within_a_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host_reads: list[str]
) -> None:
    at_step = [0]

    class Steps(ProgressCallback):
        def on_step_end(self) -> None:
            at_step.append(len(host_reads))

    honest_loss = ELBOLoss.forward
    inside: list[int] = []

    def watched(loss: ELBOLoss, *args: Any) -> Any:
        before = len(host_reads)
        output = honest_loss(loss, *args)
        inside.append(len(host_reads) - before)
        return output

    monkeypatch.setattr(ELBOLoss, "forward", watched)
    options = {**TINY, "epochs": 1, "log_every": 6}
    vaezoo.train("vanilla", out=tmp_path / "r", callback=Steps(), **options)
    assert sum(inside[:6]) == 0
    assert at_step[1] == at_step[5]  # none in steps 2 to 5, at 6 a line is written
    assert len(at_step) == 7


def test_compiling_follows_from_the_configuration() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    auto = TrainOptions()
    assert not should_compile(auto, cpu, 10**7)
    assert should_compile(auto, gpu, 10**6)
    assert not should_compile(auto, gpu, 10**3)
    assert should_compile(TrainOptions(compile="on"), cpu, 1)
    assert not should_compile(TrainOptions(compile="off"), gpu, 10**7)


def test_a_graph_needs_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"^graph on: cpu has no CUDA graphs"):
        vaezoo.train("vanilla", out=tmp_path / "r", graph="on", **TINY)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(("rates", "noted"), [([700, 720, 150, 60], 1), ([60, 700, 200], 0)])
def test_a_fall_of_the_speed_is_noted_once(
    tmp_path: Path, notes: Any, rates: list[float], noted: int
) -> None:
    trainer = Trainer.__new__(Trainer)
    trainer.callback, trainer.runtime = notes, Runtime(torch.device("cpu"), "fp32")
    trainer._best_rate, trainer._noted_speed = 0.0, False
    for rate in [*rates, rates[-1]]:
        trainer._check_speed(rate, 3.0)
    assert len(notes.lines) == noted
    assert all("from 720 to 60 images/s" in line for line in notes.lines)
