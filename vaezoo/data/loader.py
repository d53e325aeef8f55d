"""BatchLoader: batches of a split on the device, shuffled for training or in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from vaezoo.data.augment import augment
from vaezoo.data.base import Batch, Split, Standardizer
from vaezoo.data.options import Augmentation, Binarize
from vaezoo.data.spec import DataSpec
from vaezoo.distributed import local_chunk, rank, world_size
from vaezoo.runtime.device import mix_bits

EVALUATION_STREAM = 0
"""The stream of random numbers that binarizes held-out images: the same in every run."""


class BatchLoader:
    """Yields batches of a split, scaled, standardised and binarized on the device.

    An epoch is determined by (seed, number of the epoch): its order, binarization and
    augmentation are the same on every device, after a resume, and at any batch size.

    batch_size: of all ranks together. Each rank gets its part of every batch, in the order that one
    process would have. spec: of the data; its statistics standardise real values.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        device: torch.device,
        spec: DataSpec | None = None,
        binarize: Binarize = "none",
        augment: Sequence[Augmentation] = (),
        seed: int = 0,
    ) -> None:
        self.split = split.to(device)
        self.batch_size = batch_size
        self.device = device
        self.standardizer = None if spec is None else Standardizer(spec).to(device)
        self.binarize = binarize
        self.augment = tuple(augment)
        self.seed = seed

    def __len__(self) -> int:
        """The number of full batches in an epoch; the remaining examples differ in each epoch."""
        return len(self.split) // self.batch_size

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The shuffled full batches of epoch `number` (from 0), from batch `start` on."""
        stream = _stream(self.seed, number + 1)
        generator = torch.Generator().manual_seed(stream)
        order = torch.randperm(len(self.split), generator=generator).to(self.split.device)
        for i in range(start, len(self)):
            index = order[i * self.batch_size : (i + 1) * self.batch_size]
            yield self.batch(local_chunk(index), stream)

    def sequential(self) -> Iterator[Batch]:
        """Every example once, in order; the last batch may be short."""
        return (batch for _, batch, _ in self.sharded(all_to_all=True))

    def sharded(self, all_to_all: bool = False) -> Iterator[tuple[int, Batch, bool]]:
        """Yield the batches of `sequential` to the ranks in turn: (number, batch, is_ours).

        Each batch belongs to one rank. All ranks get the first one too, so that they all know which
        values to add up; with all_to_all they get every batch.
        """
        everything = torch.arange(len(self.split), device=self.split.device)
        for number, index in enumerate(everything.split(self.batch_size)):
            ours = number % world_size() == rank()
            if ours or number == 0 or all_to_all:
                yield number, self.batch(index), ours

    def batch(self, index: Tensor, stream: int = EVALUATION_STREAM) -> Batch:
        """These examples. index: int64 [n]."""
        index = index.to(self.split.device)
        raw, y = self.split.get_batch(index)
        if raw.device != self.device:
            # Copies from pinned memory are asynchronous: the host gathers the next batch while the
            # device works on this one.
            raw, index = _send(raw, self.device), _send(index, self.device)
            y = None if y is None else _send(y, self.device)
        if self.augment and stream != EVALUATION_STREAM:
            raw = augment(raw, index, stream, self.augment)
        if raw.dtype != torch.uint8:
            return Batch(raw if self.standardizer is None else self.standardizer(raw), y)
        if self.binarize == "dynamic":
            return Batch(dynamic_binarize(raw, index, stream), y)
        if self.binarize == "threshold":
            return Batch((raw >= 128).float(), y)
        return Batch(raw.float().div_(255.0), y)


def _send(values: Tensor, device: torch.device) -> Tensor:
    if device.type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def dynamic_binarize(raw: Tensor, index: Tensor, stream: int) -> Tensor:
    """Draw 1 with probability raw / 255 for each value, from (stream, example, position) alone.

    A hash instead of a generator does not depend on the order of the examples, the batch size or
    the device. raw: uint8 [n, *shape]. index: int64 [n]. Returns float32 [n, *shape].
    """
    values = raw[0].numel()
    position = torch.arange(values, device=raw.device)
    key = mix_bits(index + mix_bits(stream))
    draws = mix_bits(position[None, :] ^ key[:, None]).view(raw.shape)
    # draw / 2^32 < raw / 255, in whole numbers
    return (draws * 255 < raw.to(torch.int64) << 32).float()


def _stream(seed: int, epoch: int) -> int:
    """Hash (seed, epoch) to one number, which is never the evaluation stream."""
    return (mix_bits(seed) ^ mix_bits(epoch + 0x9E3779B9)) | (1 << 32)
