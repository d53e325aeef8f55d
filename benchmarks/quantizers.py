"""Speed and memory of the quantizers beside those of vector-quantize-pytorch.

    python benchmarks/quantizers.py [--seconds 60] [--batch-size 1] [--only vq,fsq,...]

A step is a forward pass in training mode and a backward pass, with the losses of the quantizer, for
features of 32×32 positions and 16,384 codes. Both sides take steps in turn, in one process and with
one thread, so that what else the machine does falls on both: pairs of steps for the given seconds,
at least 7 and at most 401. The ratio is the median over pairs. Memory is that of the weights and
buffers and the most that a step allocates at once, counted by torch's profiler; it does not vary.

The table goes to results/quantizers-DEVICE.md, the numbers to .json.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
import vector_quantize_pytorch as peer
from harness import RESULTS, short_name
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from vaezoo.runtime.device import device_name, resolve_device
from vaezoo_discrete.fsq import ScalarQuantizer
from vaezoo_discrete.vq import VectorQuantizer
from vaezoo_quantizers.binary import BinaryQuantizer
from vaezoo_quantizers.product import ProductQuantizer
from vaezoo_quantizers.residual import ResidualQuantizer
from vaezoo_quantizers.scales import MultiScaleQuantizer
from vaezoo_quantizers.simvq import LinearCodebookQuantizer

LEAST, MOST = 7, 401
"""Pairs of steps."""
GRID, CODES, WIDTH, BOOKS = 32, 16_384, 64, 4
BITS, LEVELS = 14, (8, 8, 8, 8, 4)
"""Their channels are as many as they need, not WIDTH: either side would project to them alike."""
SCALES = [(side, side) for side in (1, 2, 4, 8, 16, 32)]


@dataclass
class Row:
    """A quantizer of ours and of theirs with the same options, and the channels of the features."""

    ours: Callable[[], nn.Module]
    theirs: Callable[[], nn.Module]
    channels: int = WIDTH
    weights: Mapping[str, float] | None = None
    """Of the losses of ours that theirs has too."""


def vq(**options: Any) -> VectorQuantizer:
    return VectorQuantizer(CODES, options.pop("width", WIDTH), **{"decay": 0.8} | options)


def their_vq(**options: Any) -> nn.Module:
    known = {"rotation_trick": False, "accept_image_fmap": True, "decay": 0.8}
    return peer.VectorQuantize(WIDTH, CODES, **known | options)


COMMITMENT = {"commitment": 1.0}
ENTROPIES = {"commitment": 1.0, "entropy": 0.1, "batch_entropy": -0.1}
ROWS = {
    "vq": Row(lambda: vq(dead_code_steps=None), their_vq, weights=COMMITMENT),
    "vq, dead codes replaced": Row(
        lambda: vq(dead_code_steps=2),
        lambda: their_vq(threshold_ema_dead_code=2),
        weights=COMMITMENT,
    ),
    "vq, rotation trick": Row(
        lambda: vq(dead_code_steps=None, estimator="rotation"),
        lambda: their_vq(rotation_trick=True),
        weights=COMMITMENT,
    ),
    "vq, cosine": Row(
        lambda: vq(dead_code_steps=None, cosine=True),
        lambda: their_vq(use_cosine_sim=True),
        weights=COMMITMENT,
    ),
    "vq, codebook by gradient": Row(
        lambda: vq(dead_code_steps=None, ema=False),
        lambda: their_vq(learnable_codebook=True, ema_update=False),
        weights={"commitment": 1.0, "codebook": 1.0},
    ),
    f"rvq, {BOOKS} codebooks": Row(
        lambda: ResidualQuantizer([vq(dead_code_steps=None) for _ in range(BOOKS)]),
        lambda: OnSequence(
            peer.ResidualVQ(
                dim=WIDTH,
                num_quantizers=BOOKS,
                codebook_size=CODES,
                decay=0.8,
                rotation_trick=False,
            )
        ),
        weights=COMMITMENT,
    ),
    f"pq, {BOOKS} codebooks": Row(
        lambda: ProductQuantizer(
            [vq(width=WIDTH // BOOKS, dead_code_steps=None) for _ in range(BOOKS)]
        ),
        lambda: their_vq(heads=BOOKS, codebook_dim=WIDTH // BOOKS, separate_codebook_per_head=True),
        weights=COMMITMENT,
    ),
    "simvq": Row(
        lambda: LinearCodebookQuantizer(CODES, WIDTH),
        lambda: peer.SimVQ(WIDTH, CODES, channel_first=True, rotation_trick=False),
        weights={"codebook": 1.0, "commitment": 0.25},
    ),
    "simvq, rotation trick": Row(
        lambda: LinearCodebookQuantizer(CODES, WIDTH, estimator="rotation"),
        lambda: peer.SimVQ(WIDTH, CODES, channel_first=True, rotation_trick=True),
        weights={"codebook": 1.0, "commitment": 0.25},
    ),
    "multi_scale, 1 to 32": Row(
        lambda: MultiScaleQuantizer(vq(dead_code_steps=None, ndim=1), SCALES, convolutions=4),
        lambda: peer.HierarchicalVQ(
            dim=WIDTH,
            codebook_size=CODES,
            scales=SCALES,
            decay=0.8,
            kmeans_init=False,
            threshold_ema_dead_code=0,
            share_quant_resi=4,
            accept_image_fmap=True,
        ),
        weights=COMMITMENT,
    ),
    f"fsq, {len(LEVELS)} channels": Row(
        lambda: ScalarQuantizer(LEVELS), lambda: peer.FSQ(list(LEVELS)), channels=len(LEVELS)
    ),
    f"lfq, {BITS} channels": Row(
        lambda: BinaryQuantizer(BITS),
        lambda: peer.LFQ(dim=BITS, commitment_loss_weight=1.0),
        channels=BITS,
        weights=ENTROPIES,
    ),
    f"bsq, {BITS} channels": Row(
        lambda: BinaryQuantizer(BITS, spherical=True),
        lambda: peer.LFQ(dim=BITS, spherical=True, commitment_loss_weight=1.0),
        channels=BITS,
        weights=ENTROPIES,
    ),
}


class OnSequence(nn.Module):
    """Their ResidualVQ for images: version 1.32 fails with accept_image_fmap."""

    def __init__(self, quantizer: nn.Module) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        quantized, *others = self.quantizer(features.flatten(2).mT)
        return quantized.mT.unflatten(2, features.shape[2:]), *others


class Contestant:
    """A quantizer with features and a gradient for what it gives; `step` is timed."""

    def __init__(self, quantizer: nn.Module, row: Row, batch: int, device: torch.device) -> None:
        self.quantizer, self.weights = quantizer.to(device).train(), row.weights or {}
        shape = (batch, row.channels, GRID, GRID)
        generator = torch.Generator().manual_seed(0)
        features, gradient = (torch.randn(shape, generator=generator) for _ in range(2))
        self.features = features.to(device).requires_grad_()
        self.gradient = gradient.to(device)
        self.is_cuda = device.type == "cuda"

    def step(self) -> None:
        self.quantizer.zero_grad(set_to_none=True)
        self.features.grad = None
        found = self.quantizer(self.features)
        # Of ours the losses are named; theirs gives one number, or one a codebook, or none (FSQ).
        if isinstance(losses := found[2] if len(found) > 2 else {}, Mapping):
            losses = sum(weight * losses[name].sum() for name, weight in self.weights.items())
        total = (found[0] * self.gradient).sum()
        (total + losses.sum() if isinstance(losses, Tensor) else total).backward()

    def seconds(self) -> float:
        begun = time.perf_counter()
        self.step()
        if self.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    def bytes(self) -> int:
        """Of the module, and the most that a step allocates at once."""
        self.quantizer.zero_grad(set_to_none=True)
        self.features.grad = None
        gc.collect()
        held = [*self.quantizer.parameters(), *self.quantizer.buffers()]
        at_rest = sum(tensor.numel() * tensor.element_size() for tensor in held)
        if self.is_cuda:
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            self.step()
            return at_rest + torch.cuda.max_memory_allocated() - before
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            self.step()
        allocated = most = 0
        events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
        for event in sorted(events, key=lambda event: event.start_ns()):
            allocated += event.nbytes()
            most = max(most, allocated)
        return at_rest + most


def measure(row: Row, seconds: float, batch: int, device: torch.device) -> dict[str, Any]:
    torch.manual_seed(0)
    sides = [Contestant(make(), row, batch, device) for make in (row.ours, row.theirs)]
    for side in sides:
        side.seconds()
    times: list[list[float]] = [[], []]
    begun = time.perf_counter()
    while len(times[0]) < LEAST or (time.perf_counter() - begun < seconds and len(times[0]) < MOST):
        # Each side is the first one in half of the pairs.
        for i in (0, 1) if len(times[0]) % 2 else (1, 0):
            times[i].append(sides[i].seconds())
    ours, theirs = times
    ratios = sorted(b / a for a, b in zip(ours, theirs, strict=True))
    memory = [side.bytes() for side in sides]
    return {
        "pairs": len(ratios),
        "ours_ms": 1e3 * statistics.median(ours),
        "theirs_ms": 1e3 * statistics.median(theirs),
        "ours_fastest_ms": 1e3 * min(ours),
        "theirs_fastest_ms": 1e3 * min(theirs),
        "ratio": statistics.median(ratios),
        "ratio_quartiles": [ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]],
        "ours_bytes": memory[0],
        "theirs_bytes": memory[1],
    }


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    head = (
        "| quantizer | vaezoo, ms | theirs, ms | theirs / vaezoo | half of the pairs | pairs "
        "| vaezoo, MiB | theirs, MiB |"
    )
    lines = [head, "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for name, row in found.items():
        low, high = row["ratio_quartiles"]
        lines.append(
            f"| {name} | {row['ours_ms']:.2f} | {row['theirs_ms']:.2f} | {row['ratio']:.2f} × "
            f"| {low:.2f} to {high:.2f} | {row['pairs']} "
            f"| {row['ours_bytes'] / 2**20:.1f} | {row['theirs_bytes'] / 2**20:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="for each row")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--only", help="rows whose name starts with one of these; nothing is kept")
    given = parser.parse_args()
    torch.set_num_threads(1)
    device = resolve_device("auto")
    chosen = tuple(given.only.split(",")) if given.only else ("",)
    busy = os.getloadavg()[0]
    found = {}
    for name, row in ROWS.items():
        if name.startswith(chosen):
            found[name] = measure(row, given.seconds, given.batch_size, device)
            print(name, found[name], flush=True)
    print(table(found))
    if given.only:
        return
    about = {
        "device": device_name(device),
        "threads": 1,
        "torch": torch.__version__,
        "vector_quantize_pytorch": version("vector-quantize-pytorch"),
        "platform": platform.platform(),
        "load_before": round(busy, 2),
        "batch_size": given.batch_size,
        "positions": GRID**2,
        "codes": CODES,
        "width": WIDTH,
    }
    stem = RESULTS / f"quantizers-{short_name(device_name(device))}"
    stem.with_suffix(".json").write_text(json.dumps({**about, "rows": found}, indent=1) + "\n")
    stem.with_suffix(".md").write_text(table(found))


if __name__ == "__main__":
    main()
