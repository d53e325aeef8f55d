"""Our optimizers are torch's to the bit; schedules, warm-up and weight decay are what they say."""

from __future__ import annotations

import inspect
import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim import lr_scheduler

import vaezoo
from small_jobs import SMALL_JOB, StopAfter
from toy_steps import TOTAL, take, toy_batches, toy_step
from vaezoo.errors import OptionError, RunStopped, TrainingError
from vaezoo.losses.base import loss_of
from vaezoo.options import parse
from vaezoo.runs.train import resume_run
from vaezoo.training.loggers import ProgressCallback
from vaezoo.training.optimizers import OPTIMIZERS, decayed_parameters, lr_scale
from vaezoo.training.options import TrainOptions

THEIRS: dict[str, Any] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adamax": torch.optim.Adamax,
    "radam": torch.optim.RAdam,
    "sgd": torch.optim.SGD,
}


def test_every_choice_is_tested() -> None:
    assert THEIRS.keys() == OPTIMIZERS.keys()
    assert all(OPTIMIZERS[name].__mro__[1] is THEIRS[name] for name in THEIRS)


def trained(kind: Any, steps: int, **how: Any) -> list[Tensor]:
    """Weights and moments after some steps, with a save and a load between them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1))
    x = torch.randn(16, 5)
    optimizer = kind(model.parameters(), lr=0.01, **how)
    for step in range(steps):
        if step == steps // 2:
            saved = optimizer.state_dict()
            optimizer = kind(model.parameters(), lr=0.5, **how)
            optimizer.load_state_dict(saved)
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        assert all(p.grad is None for p in model.parameters())
    moments = [value for state in optimizer.state.values() for value in state.values()]
    return [*model.parameters(), *moments]


@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize("fused", [True, False])
def test_it_is_torchs(name: str, fused: bool) -> None:
    how: dict[str, Any] = {"momentum": 0.8} if name == "sgd" else {"betas": (0.8, 0.95)}
    if "fused" in inspect.signature(THEIRS[name]).parameters:
        how["fused"] = fused
    ours, theirs = trained(OPTIMIZERS[name], 8, **how), trained(THEIRS[name], 8, **how)
    assert len(ours) == 4 + 4 * len(OPTIMIZERS[name].state_names)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_step_is_not_differentiated() -> None:
    for kind in OPTIMIZERS.values():
        weight = nn.Parameter(torch.ones(3))
        optimizer = kind([weight], lr=0.1)
        weight.square().sum().backward()
        optimizer.step()
        assert weight.is_leaf
        assert weight.grad is not None
        assert not weight.grad.requires_grad


FACTORS = [1 / 3, 2 / 3, 1, 1, 8 / 9, 7 / 9, 6 / 9, 5 / 9, 4 / 9, 3 / 9, 2 / 9, 1 / 9]
"""A warm-up of 3 steps, and a linear schedule over the other 9."""


@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize("own", [None, (0.5, 0.9)])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_steps_are_torchs_with_rates_and_decay_by_hand(
    name: str, own: tuple[float, float] | None, decay: float
) -> None:
    """own: the betas of the phase, which go before those of the run."""
    options = {"momentum": 0.8, "adam_beta2": 0.95, "lr_warmup": 3, "schedule": "linear"}
    ours = toy_step(False, own, optimizer=name, weight_decay=decay, **options)
    reference = toy_step(False)
    net, forward = reference.model.net, reference.phases[0].loss_fn
    betas = own or (0.8, 0.95)
    groups = [
        {"params": [net[0].weight, net[3].weight], "weight_decay": decay},
        {"params": [net[0].bias, net[1].weight, net[1].bias, net[3].bias], "weight_decay": 0.0},
    ]
    how: dict[str, Any] = {"momentum": betas[0]} if name == "sgd" else {"betas": betas}
    theirs = THEIRS[name](groups, lr=0.01, **how)
    for step, x in enumerate(toy_batches()):
        for group in theirs.param_groups:
            group["lr"] = 0.01 * FACTORS[step]
        take(ours, [x], step)
        forward(reference.model, vaezoo.Batch(x, None), None).loss.backward()
        theirs.step()
        theirs.zero_grad()
        for a, b in zip(ours.model.parameters(), reference.model.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=2e-5, atol=1e-7)


class TestSchedule:
    @pytest.mark.parametrize("total", [1, 2, 3, 4, 10, 97])
    @pytest.mark.parametrize(
        ("schedule", "make"),
        [
            ("cosine", lambda o, n: lr_scheduler.CosineAnnealingLR(o, n)),
            ("linear", lambda o, n: lr_scheduler.LinearLR(o, 1.0, 0.0, n)),
            ("one_cycle", lambda o, n: lr_scheduler.OneCycleLR(o, 1.0, n, cycle_momentum=False)),
            (
                "step",
                lambda o, n: lr_scheduler.MultiStepLR(o, [round(n / 2), round(3 * n / 4)], 0.1),
            ),
        ],
    )
    def test_it_is_torchs(self, schedule: str, make: Any, total: int) -> None:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        theirs = make(optimizer, total)
        for step in range(total):
            ours = lr_scale(TrainOptions(schedule=schedule), step, total)
            assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9, abs=1e-12)
            optimizer.step()
            theirs.step() if step + 1 < total else None

    @pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "step"])
    @pytest.mark.parametrize("warmup", [20, 0.2])
    def test_the_warm_up_in_steps_or_as_a_fraction(self, schedule: str, warmup: float) -> None:
        options = TrainOptions(schedule=schedule, lr_warmup=warmup)
        factors = [lr_scale(options, step, 100) for step in range(100)]
        assert factors[:20] == pytest.approx([k / 20 for k in range(1, 21)])
        assert factors[20] == 1.0
        assert all(later <= earlier for earlier, later in pairwise(factors[20:]))
        half = {"linear": 0.5, "cosine": 0.5, "constant": 1.0, "step": 0.1}  # at 60 of 20 to 100
        assert factors[60] == pytest.approx(half[schedule])

    def test_milestones_in_steps_and_as_fractions(self) -> None:
        options = parse(
            TrainOptions,
            {"schedule": "step", "lr_milestones": "0.1,50"},
            "training",
        )
        factors = [lr_scale(options, step, 100) for step in range(100)]
        assert factors == pytest.approx([1.0] * 10 + [0.1] * 40 + [0.01] * 50)

    def test_one_cycle_has_its_own_warm_up(self) -> None:
        with pytest.raises(OptionError, match="one_cycle has its own warm-up: leave"):
            parse(TrainOptions, {"schedule": "one_cycle", "lr_warmup": 5}, "training")

    def test_a_warm_up_longer_than_the_training_is_refused(self) -> None:
        with pytest.raises(OptionError, match="--lr-warmup 12: the training has only 12 steps"):
            toy_step(lr_warmup=TOTAL)


class TestWeightDecay:
    """Weights of layers shrink; biases, norms, codebooks and parameters of a prior do not."""

    def test_which(self) -> None:
        layers = nn.ModuleDict(
            {
                "linear": nn.Linear(2, 3),
                "conv": nn.ConvTranspose2d(2, 3, 2),
                "attention": nn.MultiheadAttention(4, 2),
                "codes": nn.Embedding(4, 2),
                "layer_norm": nn.LayerNorm((2, 3)),
                "batch_norm": nn.BatchNorm2d(3),
                "group_norm": nn.GroupNorm(2, 4),
                "spectral": spectral_norm(nn.Linear(2, 3)),
            }
        )
        layers.register_parameter("pseudo_inputs", nn.Parameter(torch.zeros(3, 4)))
        layers.register_parameter("log_scale", nn.Parameter(torch.zeros(())))
        found = decayed_parameters(layers)
        assert {name for name, p in layers.named_parameters() if p in found} == {
            "linear.weight",
            "conv.weight",
            "attention.in_proj_weight",
            "attention.out_proj.weight",
            "codes.weight",
            "spectral.parametrizations.weight.original",
        }

    @pytest.mark.parametrize("name", ["vanilla", "vamp_prior", "vq_vae"])
    def test_of_the_zoo(self, name: str) -> None:
        model = vaezoo.create_model(name, (1, 16, 16), hidden=(4, 4))
        found = decayed_parameters(model) & {*loss_of(model).phases(model)[0].parameters}
        names = {n for n, p in model.named_parameters() if p in found}
        assert names
        assert all(n.startswith(("encoder", "decoder")) for n in names)
        assert all(n.endswith("weight") for n in names)

    def test_without_a_gradient_nothing_else_moves(self) -> None:
        updates = toy_step(norm=False, optimizer="adamw", weight_decay=0.5)
        before = {n: p.detach().clone() for n, p in updates.model.named_parameters()}
        for parameter in updates.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        updates.set_lr(0)
        updates.optimizers[0].step()
        for name, parameter in updates.model.named_parameters():
            layer = name in ("net.0.weight", "net.3.weight")
            shrunk = before[name] * (1 - 0.01 * 0.5 if layer else 1.0)
            torch.testing.assert_close(parameter.detach(), shrunk)

    def test_the_default_is_torchs(self) -> None:
        decays = {name: TrainOptions(optimizer=name).decay for name in THEIRS}
        assert decays.pop("adamw") == torch.optim.AdamW([torch.ones(1)]).defaults["weight_decay"]
        assert set(decays.values()) == {0.0}
        assert TrainOptions(optimizer="adamw", weight_decay=0.0).decay == 0.0
        assert len(toy_step().optimizers[0].param_groups) == 1


@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize("bad", [(0,), (2, 5), (3, 3, 3)])
def test_a_skipped_step_leaves_no_trace(name: str, bad: tuple[int, ...]) -> None:
    """Too large a gradient, and one that is not finite: to the bit, also at the first step."""
    options = {"optimizer": name, "weight_decay": 0.1, "ema": 0.9}
    good = toy_batches(6)
    for huge, how in ((1e6, {"skip_grad_norm": 1e3}), (math.inf, {"on_nonfinite": "skip"})):
        without = toy_step(norm=False, **options, **how)
        take(without, good)
        updates = toy_step(norm=False, **options, **how)
        for number, x in enumerate(good):
            for _ in range(bad.count(number)):
                take(updates, [x * huge], number)
            take(updates, [x], number)
        assert updates.guard is not None
        assert updates.guard.read()[0] == len(bad)
        for a, b in zip(kept(updates), kept(without), strict=True):
            assert a.equal(b)


def kept(updates: Any) -> list[Tensor]:
    state = updates.optimizers[0].state_dict()["state"]
    moments = [value for entry in state.values() for value in entry.values()]
    return [*updates.model.state_dict().values(), *moments, *updates.ema.averages.values()]


class TestSkippedNorms:
    def test_the_norm_is_that_before_clipping(self) -> None:
        """Clipped to 1e-3, and yet above 1e-2."""
        updates = toy_step(skip_grad_norm=1e-2, grad_clip=1e-3)
        before = [p.detach().clone() for p in updates.model.parameters()]
        take(updates, toy_batches(2))
        assert updates.guard is not None
        assert updates.guard.read()[0] == 2
        assert all(a.equal(b) for a, b in zip(before, updates.model.parameters(), strict=True))

    def test_a_norm_that_is_not_finite_does_not_hide(self) -> None:
        """With --on-nonfinite stop the run must stop."""
        updates = toy_step(skip_grad_norm=1.0)
        take(updates, [toy_batches(1)[0] * math.inf])
        assert updates.guard is not None
        assert updates.guard.read()[0] == 0
        assert not all(p.isfinite().all() for p in updates.model.parameters())

    def test_a_step_below_it_is_the_step(self) -> None:
        plain, guarded = toy_step(), toy_step(skip_grad_norm=1e6)
        for updates in (plain, guarded):
            take(updates, toy_batches(3))
        for a, b in zip(plain.model.parameters(), guarded.model.parameters(), strict=True):
            assert a.equal(b)


class TestAccumulate:
    @pytest.mark.parametrize("parts", [2, 3, 12])
    def test_parts_of_a_batch_are_the_batch(self, parts: int) -> None:
        sgd: dict[str, Any] = {
            "norm": False,
            "optimizer": "sgd",
            "lr": 1e-3,
        }  # Adam would not see a factor
        whole, split = toy_step(**sgd), toy_step(**sgd, accumulate=parts)
        values = [take(updates, toy_batches(4)) for updates in (whole, split)]
        for a, b in zip(*values, strict=True):
            torch.testing.assert_close(a, b)
        for a, b in zip(whole.model.parameters(), split.model.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)

    def test_the_norm_is_that_of_the_whole_batch(self) -> None:
        """A part alone is above the limit, all of them together are not."""
        x = toy_batches(1)[0]
        batch = torch.cat([x[:6], torch.zeros(6, 5)])
        norms = {}
        for parts in (1, 2):
            updates = toy_step(norm=False, accumulate=parts, skip_grad_norm=1e9)
            assert updates.guard is not None
            honest = updates.guard.step

            def keep(
                optimizer: Any, loss: Any, norm: Any, n: int = parts, do: Any = honest
            ) -> None:
                norms[n] = float(norm)
                do(optimizer, loss, norm)

            updates.guard.step = keep  # type: ignore[method-assign]
            take(updates, [batch])
        assert norms[1] == pytest.approx(norms[2], rel=1e-5)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"loss": "beta_tc"}, "^accumulate: the loss needs full batches: the aggregate post"),
            ({"free_bits": 0.1}, "^accumulate: the loss needs full batches: free_bits are of"),
            ({"accumulate": 3}, "^batch_size 16 cannot be shared by 3 parts .*a multiple of 3"),
            ({"accumulate": 16}, "leaves 1 to each of 16 parts .* batch_size 32 or more"),
        ],
    )
    def test_what_cannot_be_is_refused(
        self, tmp_path: Path, options: dict[str, Any], said: str
    ) -> None:
        with pytest.raises(OptionError, match=said) as caught:
            vaezoo.train("vanilla", out=tmp_path / "r", **{**SMALL_JOB, "accumulate": 2, **options})
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "r").exists()

    def test_batch_norm_sees_each_part(self) -> None:
        """Its statistics are updated for each part, as the documentation says."""
        updates = toy_step(accumulate=4)
        take(updates, toy_batches(3))
        state = updates.model.state_dict()
        assert int(state["net.1.num_batches_tracked"]) == int(state["seen"]) == 12


JOB: dict[str, Any] = {
    **{**SMALL_JOB, "epochs": 2, "log_every": 4, "on_nonfinite": "skip", "ema": 0.9},
    **{"accumulate": 2, "weight_decay": 0.1, "lr_warmup": 4, "schedule": "cosine", "momentum": 0.5},
    **{"augment": ("flip", "crop"), "grad_clip": 50.0, "skip_grad_norm": 205.0, "patience": 9},
}


@pytest.mark.parametrize("name", THEIRS)
def test_a_run_with_every_option_resumes_to_the_same_bits(tmp_path: Path, name: str) -> None:
    """Some of its steps are skipped."""
    lr = 1e-4 if name == "sgd" else 1e-3
    whole = vaezoo.train("vanilla", out=tmp_path / "whole", optimizer=name, lr=lr, **JOB)
    skipped = [line["skipped"] for line in whole.metrics if line["kind"] == "train"]
    assert 0 < sum(skipped) < 12
    stop = StopAfter(5)
    with pytest.raises(RunStopped):
        vaezoo.train("vanilla", out=tmp_path / "r", callback=stop, optimizer=name, lr=lr, **JOB)
    resume_run(tmp_path / "r", vaezoo.load_run(tmp_path / "r").config, ProgressCallback())
    folders = [max((tmp_path / run / "checkpoint").iterdir()) for run in ("whole", "r")]
    for file in ("model", "optimizers", "ema", "guard", "best"):
        a, b = (load_file(folder / f"{file}.safetensors") for folder in folders)
        assert a.keys() == b.keys()
        assert all(a[key].equal(b[key]) for key in a), file
    a, b = (
        [json.loads(x) for x in (tmp_path / run / "metrics.jsonl").open()] for run in ("whole", "r")
    )
    for line in (*a, *b):
        line.pop("images_per_second", None)
    assert a == b


def test_too_many_skipped_norms_stop_the_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"norm of their gradient was above 0\.001") as caught:
        vaezoo.train(
            "vanilla", out=tmp_path / "r", skip_grad_norm=1e-3, **{**SMALL_JOB, "epochs": 9}
        )
    assert "\n" not in str(caught.value)


def test_the_summary_counts_skipped_norms(tmp_path: Path) -> None:
    run = vaezoo.train("vanilla", out=tmp_path / "r", skip_grad_norm=205.0, **SMALL_JOB)
    found = [f for f in run.summary["findings"] if f["kind"] == "skipped_steps"]
    counted = sum(line["skipped"] for line in run.metrics if line["kind"] == "train")
    assert found[0]["value"] == counted > 0
    assert found[0]["message"].endswith(" were skipped: the norm of their gradient was above 205")
