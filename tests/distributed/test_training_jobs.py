"""Training jobs of two and of three processes: the same training as with one, in one run folder."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import vaezoo
from fork_server import ForkServer
from vaezoo.cli.main import main
from vaezoo.errors import OptionError
from vaezoo.plugins.registry import registry
from vaezoo.plugins.sources import import_file
from vaezoo.runs.build import build_model, meta_device
from vaezoo.training.loggers import ProgressCallback
from vaezoo_vanilla.loss import ELBOLoss

SCRIPT = Path(__file__).with_name("training_job.py")
ROOT = SCRIPT.parents[2]
JOB = import_file(str(SCRIPT))
STEPS, EPOCH = 21, 7


class Done(NamedTuple):
    """A finished job of `count` processes: its folder, and the result of each process."""

    folder: Path
    count: int
    results: list[dict[str, Any]]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process that the others are compared with."""
    out = tmp_path_factory.mktemp("alone") / "run"
    JOB.train("autoencoder", out)
    return out


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, torch_server: ForkServer) -> Done:
    folder = tmp_path_factory.mktemp("two")
    JOB.stop("autoencoder", folder / "stopped_by_one")
    for name, options in JOB.LARGE.items():
        JOB.stop(name, folder / f"{name}_by_one", steps_before=2, **options)
    return run(torch_server, folder, 2)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory, torch_server: ForkServer) -> Done:
    return run(torch_server, tmp_path_factory.mktemp("three"), 3)


@pytest.fixture(params=["two", "three"])
def done(request: pytest.FixtureRequest) -> Done:
    found: Done = request.getfixturevalue(request.param)
    return found


def run(server: ForkServer, folder: Path, count: int) -> Done:
    folders = [ROOT, ROOT / "plugins", ROOT / "tests" / "helpers", os.environ.get("PYTHONPATH", "")]
    path = os.pathsep.join(map(str, folders))
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    running = [
        server.start([sys.executable, SCRIPT, folder, str(rank), str(count)], env=env)
        for rank in range(count)
    ]
    try:  # one that ends takes the others with it: the time is for a machine that is busy
        said = [process.communicate(timeout=1800)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * count, "\n".join(said)
    read = [json.loads((folder / f"results-{r}.json").read_text()) for r in range(count)]
    return Done(folder, count, read)


def lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    text = (folder / "metrics.jsonl").read_text()
    return [line for line in map(json.loads, text.splitlines()) if line["kind"] == kind]


def same_bits(a: Path, b: Path) -> bool:
    first, second = (load_file(folder / "model.safetensors") for folder in (a, b))
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


def assert_same_training(a: Path, b: Path) -> None:
    """The same terms at the same steps, except for rounding errors and what follows from them."""
    for kind in ("train", "validation"):
        assert [x["step"] for x in lines(a, kind)] == [x["step"] for x in lines(b, kind)]
        for x, y in zip(lines(a, kind), lines(b, kind), strict=True):
            assert x["terms"] == pytest.approx(y["terms"], rel=1e-2, abs=0.5)


def apart(a: Path, b: Path) -> float:
    """The distance between two final models, relative to the distance from the initial weights.

    Over matrices only: before batch norm the gradient of a bias is a rounding error, which Adam
    enlarges.
    """
    config = vaezoo.load_run(b).config
    torch.manual_seed(config.train.seed)
    spec = vaezoo.load_run(b).data_spec
    start = build_model(config, spec).state_dict()
    first, second = (load_file(folder / "model.safetensors") for folder in (a, b))
    names = [name for name, tensor in start.items() if tensor.dim() > 1]

    def between(x: dict[str, Tensor], y: dict[str, Tensor]) -> float:
        return float(sum((x[name] - y[name]).double().square().sum() for name in names)) ** 0.5

    assert between(second, start) > 0.1
    return between(first, second) / between(second, start)


def assert_same_numbers(a: dict[str, Any], b: dict[str, Any], rel: float) -> None:
    """The same metrics with the same texts, and numbers that differ by rounding at most."""
    assert a.keys() == b.keys()
    for name, number in b.items():
        for word, said in number.items():
            near = pytest.approx(said, rel=rel) if isinstance(said, float) else said
            assert a[name][word] == near, (name, word)


def test_several_processes_train_the_same_model_as_one(done: Done, alone: Path) -> None:
    assert_same_training(done.folder / "same", alone)
    summary = json.loads((done.folder / "same" / "summary.json").read_text())
    assert (summary["steps"], summary["processes"]) == (STEPS, done.count)
    # 0.0014 as it is; 0.38 where the processes keep their gradients to themselves.
    assert apart(done.folder / "same", alone) < 0.02


def test_real_values_are_standardised_as_by_one_process(done: Done, tmp_path: Path) -> None:
    """By the statistics of the same training examples, which rank 0 gives to the others."""
    JOB.write_table(tmp_path / "table.npz")
    JOB.train_on_table(tmp_path / "table.npz", tmp_path / "one")
    runs = [vaezoo.load_run(path) for path in (tmp_path / "one", done.folder / "on_table")]
    assert runs[0].data_spec == runs[1].data_spec
    for name in ("mse", "reconstruction_r2"):
        assert runs[1].summary[name] == pytest.approx(runs[0].summary[name], rel=0.01)
    assert runs[0].summary["mse"] > 100  # in the units of the data


def test_batch_norm_uses_the_whole_batch(done: Done, tmp_path: Path) -> None:
    JOB.train("autoencoder", tmp_path / "one", **JOB.NORMED)
    # 0.04 and 0.16 as it is, 0.4 and more where each process goes by its own examples.
    assert apart(done.folder / "normed", tmp_path / "one") < 0.25


def skipped(folder: Path) -> list[int]:
    return [line["skipped"] for line in lines(folder, "train")]


def test_training_options_mean_the_same_as_for_one(done: Done, tmp_path: Path) -> None:
    """Optimizer, warm-up, averages, skipped norms, batches in parts and augmentation."""
    JOB.train("autoencoder", tmp_path / "one", **JOB.OPTIONS)
    assert_same_training(done.folder / "options", tmp_path / "one")
    assert apart(done.folder / "options", tmp_path / "one") < 0.05
    assert skipped(done.folder / "options") == skipped(tmp_path / "one")
    assert 0 < sum(skipped(tmp_path / "one")) < STEPS


def test_training_options_resume_to_the_same_bits(two: Done) -> None:
    assert same_bits(two.folder / "options", two.folder / "options_stopped")
    assert skipped(two.folder / "options") == skipped(two.folder / "options_stopped")


def test_training_options_with_shard_are_those_without(two: Done) -> None:
    """With a stop and a resume; --on-nonfinite skip is on too."""
    full, sharded = (two.folder / f"options_wide_{shard}" for shard in (False, True))
    assert_same_training(sharded, full)
    assert apart(sharded, full) < 0.05
    assert skipped(sharded) == skipped(full)
    assert sum(skipped(full)) > 0


def test_one_process_writes_the_folder(two: Done) -> None:
    folder = two.folder / "whole"
    steps = [line["step"] for line in lines(folder, "train")]
    assert steps == [3, 6, 7, 10, 13, 14, 17, 20, 21]
    assert [line["step"] for line in lines(folder, "validation")] == [EPOCH, 2 * EPOCH, STEPS]
    assert {"summary.json", "samples.png", "curves.png"} <= {path.name for path in folder.iterdir()}


def test_a_stop_of_one_process_stops_all_and_a_resume_gives_the_same_bits(two: Done) -> None:
    # Asked for at step 8, agreed on at the next log line.
    for result in two.results:
        assert result["stopped"].startswith("RunStopped: stopped after step 10; to go on")
    assert same_bits(two.folder / "whole", two.folder / "stopped")
    for kind in ("train", "validation"):
        both = [lines(two.folder / name, kind) for name in ("whole", "stopped")]
        assert [x["terms"] for x in both[0]] == [x["terms"] for x in both[1]]


def test_several_processes_resume_a_checkpoint_of_one(two: Done, alone: Path) -> None:
    assert_same_training(two.folder / "stopped_by_one", alone)


def test_one_process_resumes_a_checkpoint_of_several(two: Done, alone: Path) -> None:
    JOB.resume(two.folder / "for_one")
    assert_same_training(two.folder / "for_one", alone)


def test_shared_evaluation_is_exact(done: Done) -> None:
    for result in done.results:
        found = result["evaluated"]
        for shared, whole in zip(found[::2], found[1::2], strict=True):
            assert shared == pytest.approx(whole, rel=1e-5)
        assert found[::2] == done.results[0]["evaluated"][::2]


def test_several_processes_evaluate_a_model_as_one_does(done: Done) -> None:
    for result in done.results:
        for name, (together, one) in result["measured"].items():
            assert together["notes"] == one["notes"], name
            assert together["latents"] == [pytest.approx(row) for row in one["latents"]], name
            assert_same_numbers(together["metrics"], one["metrics"], rel=1e-9)
            assert one["metrics"]["mse"]["value"] > 0


def test_each_example_is_measured_once(done: Done) -> None:
    for result in done.results:
        for name, (together, _) in result["measured"].items():
            assert together["metrics"]["times"]["value"] == 0, name
            assert together["metrics"]["timesbyone"]["value"] == 0, name


def test_all_processes_know_why_a_metric_is_unavailable(done: Done) -> None:
    for result in done.results:
        together = result["measured"]["vanilla, 4 at once"][0]["notes"]
        assert together["nothing"] == "the second batch has none"
        assert together["broken"] == "it failed: ZeroDivisionError: in the third batch"


def test_the_summary_of_a_job_is_what_one_process_finds(done: Done) -> None:
    run = vaezoo.load_run(done.folder / "same", "cpu")
    found = run.evaluate(seed=run.config.train.seed).to_dict()["metrics"]
    assert found["mse"]["value"] > 0
    assert_same_numbers(run.summary["metrics"], found, rel=1e-6)


def test_an_error_in_one_process_ends_all_with_the_same_message(done: Done) -> None:
    said = {result["broken"] for result in done.results}
    assert len(said) == 1
    assert "rate became inf at step 5; to go on: vaezoo train --resume" in said.pop()


def test_the_average_of_the_gradients_is_clipped(done: Done) -> None:
    """Its norm is the limit; the average of clipped gradients would have a smaller one."""
    assert [result["clipped"] for result in done.results] == [
        pytest.approx([0.5, 0.5], rel=1e-5) for _ in done.results
    ]


def test_patience_ends_all_processes_at_the_same_step(two: Done) -> None:
    validated = lines(two.folder / "patient", "validation")
    assert len(validated) <= 9
    assert vaezoo.load_run(two.folder / "patient").summary["steps"] == validated[-1]["step"]


def test_a_prior_is_fitted_once(two: Done) -> None:
    model = vaezoo.load_run(two.folder / "fitted").model
    assert model.get_submodule("sampler").get_buffer("means").any()


def test_rank_0_reads_the_weights_that_all_start_with(two: Done) -> None:
    """At a learning rate that is 0 in float32; the other process has no such file."""
    assert same_bits(two.folder / "copied", two.folder / "whole")
    record = json.loads((two.folder / "copied" / "run.json").read_text())["init"]
    assert record["path"] == str(two.folder / "weights-0" / "model.safetensors")


def test_objects_and_tensors_reach_the_other_processes(done: Done) -> None:
    for rank, result in enumerate(done.results):
        assert result["objects"] == {
            "largest": [done.count - 1, 7],
            "received": {"rank": 0, "nothing": None, "tensor": [0, 1, 2]},
            "gathered": [] if rank else [{"rank": r} for r in range(done.count)],
        }


def test_gradients_of_gradients_are_those_of_one_process(done: Done) -> None:
    for result in done.results:
        assert result["second_order"] < 1e-9


def test_a_batch_size_that_cannot_be_shared_is_refused(two: Done) -> None:
    for result in two.results:
        assert result["does not divide"] == (
            "OptionError: batch_size 7 cannot be shared by 2 processes: give a multiple of 2"
        )
        assert result["too small"] == (
            "OptionError: batch_size 2 leaves 1 to each of 2 processes, too few for this model: "
            "give batch_size 4 or more"
        )
    assert not (two.folder / "refused").exists()


def parameters(name: str) -> int:
    """Parameters of a model and its loss, with default options, for 64x64 colour images."""
    data = vaezoo.DataSpec(shape=(3, 64, 64), class_names=("a", "b"))
    with meta_device():
        model = vaezoo.create_model(name, data=data)
    assert model.loss is not None
    return sum(p.numel() for module in (model, model.loss) for p in module.parameters())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process that a sharded one is compared with."""
    out = tmp_path_factory.mktemp("whole") / "run"
    JOB.train("autoencoder", out, **JOB.WIDE)
    return out


class TestSharded:
    def test_only_large_layers_are_sharded(self, two: Done) -> None:
        assert two.results[0]["sharded_layers"] == [
            "encoder.0.2.weight",
            "encoder.0.2.bias",
            "decoder.2.weight",
            "decoder.2.bias",
        ]

    def test_it_trains_as_one_process_does_with_a_stop_and_a_resume(
        self, two: Done, whole: Path
    ) -> None:
        assert two.results[0]["sharded"].startswith("RunStopped")
        assert_same_training(two.folder / "sharded", whole)
        assert apart(two.folder / "sharded", whole) < 0.05

    def test_its_weights_are_ordinary_files(self, two: Done, whole: Path) -> None:
        first, second = (
            load_file(x / "model.safetensors") for x in (two.folder / "sharded", whole)
        )
        assert {k: v.shape for k, v in first.items()} == {k: v.shape for k, v in second.items()}
        assert vaezoo.load_run(two.folder / "sharded").sample(2).isfinite().all()

    def test_one_process_resumes_its_checkpoint(self, two: Done, whole: Path) -> None:
        folder = two.folder / "for_one_whole"
        config = vaezoo.load_run(folder).config
        with pytest.raises(OptionError, match="shard needs several processes"):
            JOB.resume_run(folder, config, ProgressCallback())
        JOB.resume_run(folder, config.replace("train", shard=False), ProgressCallback())
        assert_same_training(folder, whole)
        assert apart(folder, whole) < 0.05

    def test_the_largest_model_is_one_of_them(self) -> None:
        models = [
            s for s in registry().specs("model") if registry().plugin(s).distribution == "vaezoo"
        ]
        sizes = {spec.name: parameters(spec.name) for spec in models}
        assert max(sizes, key=lambda name: sizes[name]) == next(iter(JOB.LARGE))

    @pytest.mark.parametrize("name", JOB.LARGE)
    def test_a_large_model_trains_as_without_shard(self, two: Done, name: str) -> None:
        """In all its phases, with a stop and a resume."""
        sharded, at_once = two.folder / f"{name}_sharded", two.folder / name
        assert [x["step"] for x in lines(sharded, "train")] == [1, 2, 3, 4, 5]
        for x, y in zip(lines(sharded, "train"), lines(at_once, "train"), strict=True):
            # What is added up in another order may fall to the other side of LeakyReLU's corner:
            # one pixel of the last level did so at step 3, and moved the next rate by 4e-4.
            assert x["terms"].pop("rate") == pytest.approx(y["terms"].pop("rate"), abs=1e-3)
            assert x["terms"] == pytest.approx(y["terms"], rel=1e-4, abs=1e-4)
        assert apart(sharded, at_once) < 0.01

    @pytest.mark.parametrize("name", JOB.LARGE)
    def test_a_large_model_is_resumed_by_one_process_and_the_reverse(
        self, two: Done, name: str
    ) -> None:
        folder = two.folder / f"{name}_for_one"
        config = vaezoo.load_run(folder).config
        JOB.resume_run(folder, config.replace("train", shard=False), ProgressCallback())
        for run in (folder, two.folder / f"{name}_by_one"):
            assert [x["step"] for x in lines(run, "train")] == [1, 2, 3, 4, 5]
            assert vaezoo.load_run(run).sample(2).isfinite().all()

    def test_a_loss_that_needs_full_layers_is_refused(self, two: Done) -> None:
        assert two.results[0]["slope"] == (
            "OptionError: shard: its layers must stay full: "
            "the gradient penalty differentiates their gradients"
        )


class TestRestarted:
    """With torchrun's environment variables, in a job of one process."""

    def test_a_run_with_the_same_configuration_is_resumed(
        self, tmp_path: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "run"
        assert JOB.stop("autoencoder", out).startswith("RunStopped")
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
        JOB.train("autoencoder", out)
        assert same_bits(out, alone)

    def test_a_finished_run_stays_unchanged(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "run"
        JOB.train("autoencoder", out)
        before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
        JOB.train("autoencoder", out)
        assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before

    def test_another_run_stays_unchanged(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "run"
        JOB.stop("autoencoder", out)
        before = (out / "metrics.jsonl").read_text()
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
        assert "exists already" in JOB.said(lambda: JOB.train("autoencoder", out, lr=0.1))
        assert (out / "metrics.jsonl").read_text() == before

    def test_restarts_need_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "2")
        with pytest.raises(OptionError, match=r"torchrun.*max.restarts: give (--)?out"):
            vaezoo.train("vanilla", **JOB.JOB)


def test_a_loss_for_one_process_gives_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ELBOLoss, "single_process_reason", "it counts on its fingers")
    JOB.train("vanilla", tmp_path / "alone", epochs=1)
    monkeypatch.setattr("vaezoo.runs.train.world_size", lambda: 2)
    with pytest.raises(OptionError, match="by one process only: it counts on its fingers"):
        vaezoo.train("vanilla", out=tmp_path / "shared", **JOB.JOB)


def test_only_local_rank_0_prints_errors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vaezoo.cli.main._RANK0_SECONDS", 0.0)
    for rank, said in (("0", 1), ("1", 0)):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert main(["train", "vanilla", "--batch-size", "none"]) == 2
        assert main(["train", "--no-such-option"]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 2 * said
