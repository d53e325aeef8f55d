"""The row of a benchmark against a hand count, and what one timed step does."""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from vaezoo.bench import worker
from vaezoo.bench.job import Case, Job, Mode
from vaezoo.bench.machine import Timing, time_step
from vaezoo.bench.worker import Workload, measure
from vaezoo.config import resolve_components, split_by_section
from vaezoo.errors import BrokenPluginError, VaezooError
from vaezoo.training.train_step import TrainStep

CPU = torch.device("cpu")
GEMM, COPY = 1e15, 1e16
"""FLOP/s and bytes/s of a machine that no step can use up."""


def workload(
    model: str, mode: Mode, network: str | None = None, **options: Any
) -> tuple[Job, Case]:
    names = {"model": model, "network": network}
    case = Case(mode=mode, batch_size=4, precision="fp32", compile="off")
    job = Job(
        model=model,
        names={"network": network},
        options=split_by_section(resolve_components(names, {}), options),
        shape=(1, 16, 16),
        device="cpu",
        cases=(case,),
        windows=5,
        seconds=0.001,
        end_to_end=False,
        largest=False,
        gemm={"fp32": GEMM},
        copy=COPY,
    )
    return job, case


def products(module: nn.Module) -> list[int]:
    """2·in·out of each linear layer: a multiplication and an addition for each weight."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    return [2 * layer.in_features * layer.out_features for layer in layers]


def peak_memory() -> int:
    """Bytes of this process in memory at most: Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@pytest.mark.parametrize("mode", ["train", "encode", "decode", "sample"])
def test_a_row_has_the_flops_of_an_mlp_and_its_shares_of_the_machine(mode: Mode) -> None:
    """Forward 2·Σ in·out; backward twice that, but nothing is sent back to the images."""
    job, case = workload("vanilla", mode, network="mlp", hidden=[32, 16], latent_dim=3)
    before = peak_memory()
    row = measure(job, case)
    assert row["status"] == "ok", row["reason"]
    assert before <= row["peak_memory_bytes"] <= peak_memory()
    model = Workload(job, case, CPU).model
    encoder, decoder = products(model.encoder), products(model.decoder)
    assert encoder[0] == 2 * 256 * 32
    assert len(encoder) + len(decoder) == len(products(model)) > 4
    expected = {
        "encode": sum(encoder),
        "decode": sum(decoder),
        "sample": sum(decoder),
        "train": 3 * sum(encoder + decoder) - encoder[0],
    }
    assert row["flops_per_image"] == expected[mode]
    rate = row["images_per_second"]
    assert row["gemm_share"] == pytest.approx(row["flops_per_image"] * rate / GEMM)
    assert row["copy_share"] == pytest.approx(row["bytes_per_image"] * rate / COPY)
    least = max(row["flops_per_image"] / GEMM, row["fused_bytes_per_image"] / COPY)
    assert row["roof_share"] == pytest.approx(least * rate)
    assert 0 < row["fused_bytes_per_image"] < row["bytes_per_image"]
    # Each layer has its product; in training there are two more, or one, and the optimizer.
    assert len(encoder) <= row["operations"] < 200
    assert row["parameters"] == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("model", ["vanilla", "factor_vae"])
def test_one_timed_step_of_training_changes_every_parameter(
    monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    """Of the loss too: what is timed is a full step, with its backward pass and its update."""
    workloads: list[Workload] = []
    same: list[str] = []

    class Kept(Workload):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            workloads.append(self)

    def time_one(step: Callable[[], object], device: torch.device, **options: Any) -> Timing:
        measured = workloads[0]  # the second one counts FLOPs
        loss = measured.model.loss
        assert loss is not None
        named = [*measured.model.named_parameters(), *loss.named_parameters("loss")]
        before = [p.detach().clone() for _, p in named]
        step()
        pairs = zip(named, before, strict=True)
        same.extend(n for (n, p), old in pairs if p.requires_grad and p.detach().equal(old))
        return time_step(step, device, **options)

    monkeypatch.setattr(worker, "Workload", Kept)
    monkeypatch.setattr(worker, "time_step", time_one)
    row = measure(*workload(model, "train", hidden=[4, 4]))
    assert row["status"] == "ok", row["reason"]
    assert same == []


def test_rows_with_the_data_take_new_8_bit_images_for_each_step() -> None:
    job, case = workload("vanilla", "train", hidden=[4, 4])
    timed = Workload(replace(job, end_to_end=True), case, CPU)
    assert timed.batches is not None
    steps = [next(timed.batches) for _ in range(40)]
    assert {tuple(batch.x.shape) for batch in steps} == {(4, 1, 16, 16)}
    levels = torch.cat([batch.x for batch in steps]) * 255
    assert torch.allclose(levels, levels.round(), atol=1e-4)
    assert (levels.min(), levels.max()) == (0, 255)
    assert len({batch.x.numpy().tobytes() for batch in steps}) == 40
    assert len(torch.cat([batch.y for batch in steps]).unique()) == 10
    assert Workload(job, case, CPU).batches is None


def test_an_epoch_of_such_images_has_two_batches_or_more_at_any_size() -> None:
    job, case = workload("vanilla", "train", hidden=[4, 4])
    timed = Workload(replace(job, end_to_end=True), replace(case, batch_size=3000), CPU)
    assert timed.batches is not None
    images = torch.cat([next(timed.batches).x for _ in range(2)])
    assert len({image.numpy().tobytes() for image in images}) == 6000


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ValueError("a shape\nand more"), "failed", "ValueError: a shape"),
        (KeyError(), "failed", "KeyError: "),
        (BrokenPluginError("its class"), "failed", "its class"),
        (VaezooError("not this data"), "refused", "not this data"),
        (MemoryError(), "out of memory", "a smaller batch may fit"),
        (torch.OutOfMemoryError(), "out of memory", "a smaller batch may fit"),
    ],
)
def test_what_a_step_raises_is_the_reason_of_its_row(
    monkeypatch: pytest.MonkeyPatch, error: Exception, status: str, reason: str
) -> None:
    def step(workload: Workload) -> None:
        raise error

    monkeypatch.setattr(Workload, "step", step)
    row = measure(*workload("vanilla", "encode", hidden=[4, 4]))
    assert (row["status"], row["reason"]) == (status, reason)
    assert row["images_per_second"] is None


@pytest.mark.parametrize(
    ("error", "largest"),
    [(MemoryError(), 32), (torch.OutOfMemoryError(), 32), (RuntimeError("can't allocate"), 32)],
)
def test_the_largest_batch_that_fits_is_a_doubling(
    monkeypatch: pytest.MonkeyPatch, error: Exception, largest: int
) -> None:
    class Limited:
        def __init__(self, job: Job, case: Case, device: torch.device) -> None:
            self.size = case.batch_size

        def step(self) -> None:
            if self.size > 40:
                raise error

    monkeypatch.setattr(worker, "Workload", Limited)
    job, case = workload("vanilla", "train")
    found = worker._find_largest_batch(job, case, CPU)
    assert found == replace(case, batch_size=largest)
    with pytest.raises(torch.OutOfMemoryError, match="smallest"):
        worker._find_largest_batch(job, replace(case, batch_size=64), CPU)


def test_an_error_that_is_no_lack_of_memory_ends_the_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Broken:
        def __init__(self, job: Job, case: Case, device: torch.device) -> None:
            raise RuntimeError("a shape")

    monkeypatch.setattr(worker, "Workload", Broken)
    with pytest.raises(RuntimeError, match="a shape"):
        worker._find_largest_batch(*workload("vanilla", "train"), CPU)


@pytest.mark.parametrize("mode", ["encode", "decode", "sample"])
def test_other_modes_change_nothing(mode: Mode) -> None:
    step = Workload(*workload("vanilla", mode, hidden=[4, 4]), CPU)
    before = {name: value.clone() for name, value in step.model.state_dict().items()}
    step.step()
    assert all(value.equal(before[name]) for name, value in step.model.state_dict().items())


def test_a_row_says_whether_its_steps_are_replays(monkeypatch: pytest.MonkeyPatch) -> None:
    job, case = workload("vanilla", "train", network="mlp", hidden=[8], latent_dim=2)
    assert measure(job, case)["graph"] is False
    monkeypatch.setattr(TrainStep, "is_captured", property(lambda step: True))
    assert measure(job, case)["graph"] is True
    assert measure(*workload("vanilla", "encode", network="mlp", hidden=[8]))["graph"] is False
