"""A training loop of one's own takes the steps that `vaezoo.train` takes, to the bit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import vaezoo
from small_jobs import SMALL_JOB
from vaezoo import Batch, ManualTrainStep, Splits
from vaezoo.data.loader import BatchLoader
from vaezoo.errors import DataError, OptionError, RunError

DATA = {name: SMALL_JOB[name] for name in ("examples", "test", "image_size")}
SIZES = {name: SMALL_JOB[name] for name in ("hidden", "latent_dim")}
MODELS: dict[str, Any] = {"factor_vae": {"discriminator_hidden": (16, 16)}}
STEPS = 9
STEP = {
    "adam_beta2": 0.99,
    "ema": 0.9,
    "grad_clip": 50.0,
    "schedule": "cosine",
    "lr": 0.003,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def splits() -> Splits:
    return vaezoo.load_data("sprites", **DATA)


def batches(splits: Splits, steps: int = STEPS) -> Iterator[Batch]:
    """The batches of vaezoo.train, in its order."""
    size = SMALL_JOB["batch_size"]
    loader = BatchLoader(
        splits.train, batch_size=size, device=torch.device("cpu"), spec=splits.spec
    )
    for step in range(steps):
        yield next(loader.epoch(step // len(loader), step % len(loader)))


def start(splits: Splits, name: str = "vanilla", **options: Any) -> ManualTrainStep:
    torch.manual_seed(0)
    model = vaezoo.create_model(name, splits, **{**SIZES, **MODELS.get(name, {})})
    return vaezoo.make_train_step(model, steps=STEPS, **{**STEP, **options})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vanilla", {}),
        ("vanilla", {"accumulate": 2, "optimizer": "adamw", "precision": "bf16", "ema": None}),
        ("vanilla", {"on_nonfinite": "skip", "skip_grad_norm": 100.0}),
        ("factor_vae", {}),  # two phases
        ("vae_gan", {"lr_warmup": 3}),  # three
    ],
)
def test_the_numbers_are_those_of_train_bit_for_bit(
    splits: Splits, tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    job = {
        **SMALL_JOB,
        **STEP,
        **MODELS.get(name, {}),
        **options,
        "epochs": None,
        "steps": STEPS,
        "log_every": 1,
    }
    run = vaezoo.train(name, out=tmp_path / "run", **job)
    step = start(splits, name, **options)
    terms = [step(x, y) for x, y in batches(splits)]
    expected = load_file(run.path / "model.safetensors")
    found = step.weights()
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert found[key].equal(tensor), key
    lines = [line for line in run.metrics if line["kind"] == "train"]
    assert len(lines) == STEPS
    for line, values in zip(lines, terms, strict=True):
        if not line["skipped"]:
            assert line["terms"] == {key: float(value) for key, value in values.items()}
    assert step.skipped == sum(line["skipped"] for line in lines)
    assert (step.skipped > 0) == ("skip_grad_norm" in options)


def test_a_state_goes_on_to_the_same_bits(splits: Splits, tmp_path: Path) -> None:
    skipping = {"on_nonfinite": "skip", "skip_grad_norm": 1e-3, "optimizer": "sgd"}
    for options in ({}, skipping):
        whole, half = (start(splits, "factor_vae", **options) for _ in range(2))
        for step, count in ((whole, 5), (half, 3)):
            torch.manual_seed(1)
            for x, y in batches(splits, count):
                step(x, y)
        save_file(
            {name: tensor.contiguous() for name, tensor in half.state_dict().items()},
            tmp_path / "state.safetensors",
        )
        other = start(splits, "factor_vae", **options)
        other.load_state_dict(load_file(tmp_path / "state.safetensors"))
        for x, y in [*batches(splits, 5)][other.taken :]:
            other(x, y)
        a, b = whole.state_dict(), other.state_dict()
        assert a.keys() == b.keys()
        assert other.skipped == (5 if options else 0)
        for name in a:
            assert a[name].equal(b[name]), name


def test_evaluation_has_the_averages_and_leaves_training_alone(splits: Splits) -> None:
    step = start(splits)
    for x, y in batches(splits, 5):
        step(x, y)
    before = {name: tensor.clone() for name, tensor in step.model.state_dict().items()}
    with step.evaluation() as model:
        assert not model.training
        assert not model.encode(next(batches(splits)).x).mean.requires_grad
        for name, tensor in model.state_dict().items():
            assert tensor.equal(step.weights()[name])
            if tensor.dim() > 1:
                assert not tensor.equal(before[name]), name
    assert step.model.training
    for name, tensor in step.model.state_dict().items():
        assert tensor.equal(before[name])


def test_weights_start_a_run(splits: Splits, tmp_path: Path) -> None:
    step = start(splits)
    for x, y in batches(splits, 3):
        step(x, y)
    path = tmp_path / "mine.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in step.weights().items()}, path)
    job = {**SMALL_JOB, "epochs": None, "steps": 1}
    run = vaezoo.train("vanilla", out=tmp_path / "run", init_from=path, **job)
    record = json.loads((run.path / "run.json").read_text())["init"]
    assert {*record["copied"]} == {*step.weights()}


def test_what_does_not_fit_is_one_line(splits: Splits) -> None:
    step = start(splits)
    x = torch.rand(8, 1, 16, 16)
    for given, said in (
        (x[0], r"x is not float, \[batch, 1, 16, 16\]: it is torch.float32, \[1, 16, 16\]"),
        ((255 * x).byte(), "it is torch.uint8"),
        (x[:1], "a batch of 1 is too small"),
    ):
        with pytest.raises(DataError, match=said):
            step(given)
    with pytest.raises(DataError, match=r"a batch of 8 .* has no 3 parts of 2 or more"):
        start(splits, accumulate=3)(x)
    model = vaezoo.create_model("vanilla", (1, 16, 16), **SIZES)
    for options, said in (
        ({"epochs": 3}, "epochs is no option of a step, only of vaezoo.train"),
        ({"learning_rate": 1}, "training has no option 'learning_rate'"),
        ({"lr": -1}, "lr: "),
        ({}, "give num_examples"),
    ):
        with pytest.raises(OptionError, match=said):
            vaezoo.make_train_step(model, steps=3, **options)
    with pytest.raises(OptionError, match="steps: "):
        vaezoo.make_train_step(model, steps=0)
    for x, y in batches(splits):
        step(x, y)
    with pytest.raises(OptionError, match="all 9 steps are taken"):
        step(x, y)
    assert step.taken == STEPS
    state = step.state_dict()
    with pytest.raises(RunError, match="other options"):
        start(splits, ema=None).load_state_dict(state)
    with pytest.raises(RunError, match=r"this state does not fit the model: .* is missing"):
        start(splits, "rae").load_state_dict(state)


def test_a_conditional_model_needs_classes() -> None:
    data = vaezoo.DataSpec(shape=(1, 16, 16), class_names=("a", "b"), num_examples=100)
    model = vaezoo.create_model("cvae", data, **SIZES)
    step = vaezoo.make_train_step(model, steps=2, device="cpu")
    x = torch.rand(4, 1, 16, 16)
    with pytest.raises(DataError, match="this model is conditional: give y"):
        step(x)
    assert step(x, torch.tensor([0, 1, 1, 0]))["loss"].isfinite()
