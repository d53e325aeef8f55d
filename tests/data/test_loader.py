"""BatchLoader: an epoch follows from its number, on any device and at any batch size."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vaezoo.data.augment import augment
from vaezoo.data.base import TensorSplit
from vaezoo.data.loader import BatchLoader, _stream, dynamic_binarize
from vaezoo.data.options import Augmentation, Binarize

CPU = torch.device("cpu")


def split(count: int = 40) -> TensorSplit:
    """Images that tell their number: all values of image i are i, but the left column is 200."""
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, 1, 3, 4)
    images[..., 0] = 200
    return TensorSplit(images, torch.arange(count))


def batches(
    size: int = 8, *, binarize: Binarize = "none", augment: tuple[Augmentation, ...] = ()
) -> BatchLoader:
    return BatchLoader(
        split(), batch_size=size, device=CPU, binarize=binarize, augment=augment, seed=3
    )


def gathered(source: BatchLoader, epoch: int) -> dict[int, Tensor]:
    found: dict[int, Tensor] = {}
    for batch in source.epoch(epoch):
        assert batch.y is not None
        found.update(zip(batch.y.tolist(), batch.x, strict=True))
    return found


@given(size=st.integers(1, 40), epoch=st.integers(0, 1000))
def test_an_epoch_has_every_example_once_in_full_batches(size: int, epoch: int) -> None:
    source = batches(size)
    found = gathered(source, epoch)
    assert len(found) == len(source) * size == 40 // size * size
    for number, image in found.items():
        assert torch.equal(image[0, :, 1], torch.full((3,), number / 255))


def test_epochs_differ_and_an_epoch_does_not() -> None:
    source = batches()
    orders = [torch.cat([b.y for b in source.epoch(n) if b.y is not None]) for n in (0, 1, 0)]
    assert not torch.equal(orders[0], orders[1])
    assert torch.equal(orders[0], orders[2])
    later = torch.cat([b.y for b in source.epoch(0, start=2) if b.y is not None])
    assert torch.equal(later, orders[0][16:])


def test_seeds_give_other_orders() -> None:
    firsts = []
    for seed in (3, 3, 4):
        source = BatchLoader(split(), batch_size=8, device=CPU, seed=seed)
        firsts.append(next(source.epoch(0)).y)
    assert torch.equal(firsts[0], firsts[1])
    assert not torch.equal(firsts[0], firsts[2])


def test_evaluation_is_in_order_with_the_short_batch_and_never_mirrored() -> None:
    source = batches(16, augment=("flip", "crop", "color"))
    given_out = list(source.sequential())
    assert [len(batch.x) for batch in given_out] == [16, 16, 8]
    assert torch.equal(torch.cat([b.y for b in given_out if b.y is not None]), torch.arange(40))
    assert all((batch.x[..., 0] == 200 / 255).all() for batch in given_out)


@pytest.mark.parametrize("everyone", [False, True])
def test_ranks_get_the_batches_in_turn_and_all_of_them_the_first(
    monkeypatch: pytest.MonkeyPatch, everyone: bool
) -> None:
    monkeypatch.setattr("vaezoo.data.loader.world_size", lambda: 3)
    given_out = []
    for rank in range(3):
        monkeypatch.setattr("vaezoo.data.loader.rank", lambda rank=rank: rank)
        source = batches(8)
        sharded = source.sharded(all_to_all=True) if everyone else source.sharded()
        given_out.append([(number, ours) for number, _, ours in sharded])
    for rank, found in enumerate(given_out):
        numbers = range(5) if everyone else sorted({0, *range(rank, 5, 3)})
        assert found == [(number, number % 3 == rank) for number in numbers]


def test_mirroring_is_by_half_anew_each_epoch_and_at_any_batch_size() -> None:
    flips = [
        {
            n: bool(x[0, 0, 3] == 200 / 255)
            for n, x in gathered(batches(size, augment=("flip",)), e).items()
        }
        for size, e in ((8, 0), (5, 0), (8, 1))
    ]
    assert flips[0] == flips[1]
    assert flips[0] != flips[2]
    assert 8 < sum(flips[0].values()) < 32
    assert all(x[0, 0, 3] != 200 / 255 for x in gathered(batches(8), 0).values())


def test_each_epoch_and_each_seed_mirrors_other_images() -> None:
    index, images = torch.arange(64), split(64).images
    left = []
    for seed in range(4):
        for epoch in range(64):
            mirrored = augment(images, index, _stream(seed, epoch), ["flip"])[..., 0] == 200
            left.append(tuple(mirrored[:, 0, 0].tolist()))
    assert len(set(left)) == len(left)
    kept = torch.tensor(left).float()
    assert ((kept.mean(0) - 0.5).abs() < 0.2).all()  # no image is always mirrored


def test_an_epoch_is_never_the_stream_of_evaluation() -> None:
    assert all(_stream(seed, epoch) != 0 for seed in range(50) for epoch in range(50))


def test_binarization_is_drawn_with_the_value_as_probability() -> None:
    raw = torch.tensor([0, 51, 128, 255], dtype=torch.uint8).repeat(20_000, 1)
    drawn = dynamic_binarize(raw, torch.arange(20_000), stream=5)
    assert drawn.unique().tolist() == [0.0, 1.0]
    torch.testing.assert_close(
        drawn.mean(0), torch.tensor([0.0, 0.2, 128 / 255, 1.0]), rtol=0, atol=0.012
    )
    # Neighbours are drawn apart: the correlation of two columns is that of independent draws.
    assert abs(torch.corrcoef(drawn[:, 1:3].T)[0, 1]) < 0.03


def test_evaluation_sees_the_same_draw_each_time_and_training_does_not() -> None:
    source = batches(8, binarize="dynamic")
    first, again = (torch.cat([b.x for b in source.sequential()]) for _ in range(2))
    assert torch.equal(first, again)
    epochs = [gathered(source, number) for number in (0, 1)]
    assert any(not torch.equal(epochs[0][n], epochs[1][n]) for n in epochs[0])
