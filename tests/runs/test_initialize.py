"""Runs that start with the weights of another run: what is copied, what is recorded."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import vaezoo
from commands import refused
from small_jobs import SMALL_JOB
from vaezoo.cli.main import main
from vaezoo.errors import OptionError, RunError
from vaezoo.runs.build import build_model
from vaezoo.runs.initialize import copy_weights
from vaezoo.runs.train import resume_run
from vaezoo.training.loggers import ProgressCallback

JOB = {**SMALL_JOB, "epochs": None, "steps": 3}
STILL: dict[str, Any] = {"network": "mlp", "hidden": (8,), "lr": 1e-46}
"""No batch norm, and a learning rate that is 0 in float32: training leaves the weights alone."""


class Watch(ProgressCallback):
    """Keeps the notes; after the first step, copies a run folder as a killed process leaves it."""

    def __init__(self, out: Path | None = None, copy: Path | None = None) -> None:
        self.lines: list[str] = []
        self.out, self.copy = out, copy

    def on_note(self, text: str) -> None:
        self.lines.append(text)

    def on_step_end(self) -> None:
        if self.out and self.copy and not self.copy.exists():
            shutil.copytree(self.out, self.copy)


def state(run: Path) -> dict[str, Tensor]:
    return load_file(run / "model.safetensors")


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "source"
    vaezoo.train("vanilla", out=out, **{**JOB, **STILL, "lr": 0.01, "ema": 0.9})
    return out


@pytest.fixture(scope="module")
def convolutions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "convolutions"
    vaezoo.train("vanilla", out=out, **JOB)
    return out


def test_without_training_the_model_is_the_source_bit_for_bit(source: Path, tmp_path: Path) -> None:
    callback = Watch()
    options = {**JOB, **STILL, "seed": 7, "init_from": source, "callback": callback}
    run = vaezoo.train("vanilla", out=tmp_path / "r", loss="dip_vae", **options)
    assert equal(state(run.path), state(source))  # averages of --ema, as they are evaluated
    names = sorted(state(source))
    assert f"weights: {len(names)} tensors copied from {source}" in callback.lines
    record = run.metadata["init"]
    content = (source / "model.safetensors").read_bytes()
    assert record["sha256"] == hashlib.sha256(content).hexdigest()
    assert (record["path"], record["parts"]) == (str(source), [])
    assert sorted(record["copied"]) == names
    assert not record["drawn"]
    assert not record["unused"]
    assert not (run.path / "init.safetensors").exists()


def test_another_size_keeps_the_convolutions_and_draws_the_heads(
    convolutions: Path, tmp_path: Path
) -> None:
    options = {**JOB, "image_size": 32, "seed": 3}
    callback = Watch(tmp_path / "r", tmp_path / "killed")
    run = vaezoo.train(
        "vanilla", out=tmp_path / "r", callback=callback, init_from=convolutions, **options
    )
    start, old = load_file(tmp_path / "killed" / "init.safetensors"), state(convolutions)
    torch.manual_seed(3)
    anew = build_model(run.config, run.data_spec).state_dict()
    drawn = run.metadata["init"]["drawn"]
    assert {name.rpartition(".")[0] for name in drawn} == {"encoder.1", "decoder.0"}
    for name, tensor in start.items():
        assert tensor.equal(anew[name] if name in drawn else old[name]), name
    line = next(line for line in callback.lines if "drawn from the seed" in line)
    assert line.startswith("weights: drawn from the seed: encoder.1.weight ([")


def test_only_the_parts_that_are_named(source: Path, tmp_path: Path) -> None:
    model = vaezoo.create_model("vanilla", (1, 16, 16), network="mlp", hidden=(8,), latent_dim=4)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    record = copy_weights(model, source, ["decoder"])
    for name, tensor in model.state_dict().items():
        wanted = state(source) if name.startswith("decoder.") else before
        assert tensor.equal(wanted[name]), name
    assert {*record["drawn"].values()} == {"not of init_parts"}


@pytest.mark.parametrize("name", ["vq_vae", "factor_vae", "ladder_vae", "vamp_prior", "rae"])
def test_all_state_is_copied_but_that_of_a_sampler(name: str, tmp_path: Path) -> None:
    """Codebooks, statistics of batch norm and pseudo-inputs are weights; a sampler is not."""
    first, second = (
        vaezoo.create_model(name, (1, 16, 16), hidden=(8, 8), **{"latent_dim": 4} if d else {})
        for d in [name != "vq_vae"] * 2
    )
    for tensor in first.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape) if tensor.is_floating_point() else tensor + 2)
    save_file(first.state_dict(), tmp_path / "any.safetensors")
    record = copy_weights(second, tmp_path / "any.safetensors")
    for key, tensor in second.state_dict().items():
        assert tensor.equal(first.state_dict()[key]) != key.startswith("sampler."), key
    assert {k for k in first.state_dict() if k.startswith("sampler.")} == {*record["unused"]}
    assert second.prior_is_fitted == (second.sampler is None)


def test_a_layer_is_copied_as_a_whole(tmp_path: Path) -> None:
    """Counts of codes do not stay with another codebook, nor a bias with another weight."""
    sizes = {"hidden": (8, 8), "dead_code_steps": 5}
    first = vaezoo.create_model("vq_vae", (1, 16, 16), codes=8, **sizes)
    second = vaezoo.create_model("vq_vae", (1, 16, 16), codes=16, **sizes)
    weights = first.state_dict()
    weights["bottleneck.quantizer.unused_steps"] = torch.zeros(16, dtype=torch.int64)
    name = next(n for n, t in weights.items() if n.startswith("decoder.") and t.dim() == 1)
    weights[name] = torch.ones(3)
    save_file(weights, tmp_path / "codes.safetensors")
    drawn = copy_weights(second, tmp_path / "codes.safetensors")["drawn"]
    layer = name.rpartition(".")[0]
    expected = [n for n in weights if n.rpartition(".")[0] in (layer, "bottleneck.quantizer")]
    assert len(expected) > 4
    assert {*drawn} == {*expected}


def test_the_source_is_never_read_again(source: Path, tmp_path: Path) -> None:
    """A run that was killed before its first checkpoint goes on to the same bits without it."""
    copy, killed = tmp_path / "source", tmp_path / "killed"
    shutil.copytree(source, copy)
    options = {**JOB, **STILL, "lr": 0.01, "init_from": copy, "seed": 5}
    callback = Watch(tmp_path / "w", killed)
    whole = vaezoo.train("vanilla", out=tmp_path / "w", **options, callback=callback)
    assert not [*killed.glob("checkpoint/step-*")]
    save_file({"encoder": torch.ones(1)}, copy / "model.safetensors")
    again = tmp_path / "again"
    shutil.copytree(killed, again)
    resume_run(killed, vaezoo.load_run(killed).config, ProgressCallback())
    assert equal(state(killed), state(whole.path))
    assert vaezoo.load_run(killed).metadata["init"] == whole.metadata["init"]
    shutil.rmtree(copy)
    vaezoo.train("vanilla", out=again, auto_resume=True, **options)
    assert equal(state(again), state(whole.path))


def test_a_lost_start_is_said_and_not_drawn(source: Path, tmp_path: Path) -> None:
    options = {**JOB, **STILL, "init_from": source}
    callback = Watch(tmp_path / "r", tmp_path / "killed")
    vaezoo.train("vanilla", out=tmp_path / "r", callback=callback, **options)
    (tmp_path / "killed" / "init.safetensors").unlink()
    with pytest.raises(RunError, match=r"no checkpoint and no init.safetensors: train it again"):
        resume_run(
            tmp_path / "killed", vaezoo.load_run(tmp_path / "killed").config, ProgressCallback()
        )


def test_other_weights_are_refused_on_resuming(source: Path, tmp_path: Path) -> None:
    run = vaezoo.train("vanilla", out=tmp_path / "r", init_from=source, **{**JOB, **STILL})
    with pytest.raises(OptionError, match=r"init_from none: the run has .*source, which cannot"):
        vaezoo.train("vanilla", out=run.path, auto_resume=True, **{**JOB, **STILL})


LINE = [
    *("train", "vanilla", "--examples", "120", "--test", "24", "--image-size", "16"),
    *("--network", "mlp", "--hidden", "8", "--latent-dim", "4", "--steps", "1"),
    *("--batch-size", "16", "--device", "cpu"),
]


@pytest.mark.parametrize(
    ("more", "tensors", "args", "said"),
    [
        (False, {"a": torch.ones(2)}, (), "nothing in it fits this model: encoder.0.2.weight is"),
        (False, {}, (), "nothing in it fits"),
        (True, {}, ("--init-parts", "decodr"), "no part 'decodr': it has encoder, decoder"),
        (True, {"decoder.0.bias": torch.full((8,), torch.nan)}, (), "decoder.0.bias has values"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_leaves_nothing(
    tmp_path: Path,
    source: Path,
    capsys: pytest.CaptureFixture[str],
    more: bool,
    tensors: dict[str, Tensor],
    args: tuple[str, ...],
    said: str,
) -> None:
    path = tmp_path / "given.safetensors"
    save_file(state(source) | tensors if more else tensors, path)
    out = tmp_path / "runs" / "r"
    assert said in refused(capsys, *LINE, "--out", out, "--init-from", path, *args)
    assert not out.parent.exists()


def test_no_source_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = (*LINE, "--out", tmp_path / "r")
    assert "is missing" in refused(capsys, *line, "--init-from", tmp_path / "no.safetensors")
    (tmp_path / "empty").mkdir()
    assert "not a run folder" in refused(capsys, *line, "--init-from", tmp_path / "empty")
    (tmp_path / "text").write_text("text")
    assert "is damaged" in refused(capsys, *line, "--init-from", tmp_path / "text")
    assert "--init-parts needs --init-from" in refused(capsys, *line, "--init-parts", "encoder")


def test_an_exported_file_is_a_source(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "exported.safetensors"
    assert main(["export", str(source), "-o", str(path)]) == 0
    run = vaezoo.load_run(source)
    model = build_model(run.config, run.data_spec)
    copy_weights(model, path)
    assert equal(model.state_dict(), state(source))


def test_a_config_file_may_name_the_source(source: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({"train": {"init_from": str(source), "init_parts": ["decoder"]}}))
    assert main([*LINE, "--config", str(recipe), "--out", str(tmp_path / "r")]) == 0
    record = vaezoo.load_run(tmp_path / "r").metadata["init"]
    assert all(name.startswith("decoder.") for name in record["copied"])
    assert record["parts"] == ["decoder"]
