"""Augmentations are drawn by the seed, keep the kind of the data, and do what they say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.transforms import functional as vision

from vaezoo.data.augment import (
    augment,
    check_augment,
    random_color,
    random_crop,
    random_hflip,
)
from vaezoo.data.options import Augmentation
from vaezoo.data.spec import DataSpec
from vaezoo.errors import DataError
from vaezoo.runtime.device import mix_bits

ALL: list[Augmentation] = ["flip", "crop", "color"]


def images(count: int = 64, channels: int = 3, side: int = 16) -> Tensor:
    noise = torch.Generator().manual_seed(0)
    return torch.randint(60, 190, (count, channels, side, side), generator=noise).byte()


def keys(count: int) -> Tensor:
    return mix_bits(torch.arange(count) + 77)


def test_what_is_drawn_follows_from_the_stream_and_the_example() -> None:
    x, index = images(), torch.arange(64)
    whole = augment(x, index, 5, ALL)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    assert augment(x[order], order, 5, ALL).equal(whole[order])
    assert augment(x[7:9], index[7:9], 5, ALL).equal(whole[7:9])
    changed = (augment(x, index, 6, ALL) != whole).flatten(1).any(1)
    assert changed.all()
    assert augment(x, index, 5, []).equal(x)


@pytest.mark.parametrize("shape", [(2, 24), (1, 16, 8), (1, 8, 16, 16)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_shift_is_a_window_of_the_mirrored_example(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    """Found by search among all windows of the padded example; all shifts occur."""
    noise = torch.Generator().manual_seed(0)
    x = torch.randint(0, 255, (400, *shape), generator=noise).to(dtype)
    shifted = random_crop(x, keys(400))
    assert shifted.dtype == dtype
    pads = [size // 8 for size in shape[1:]]
    found = []
    for before, after in zip(x, shifted, strict=True):
        padded = before
        for axis, pad in enumerate(pads, 1):
            head = padded.narrow(axis, 1, pad).flip(axis)
            tail = padded.narrow(axis, padded.shape[axis] - 1 - pad, pad).flip(axis)
            padded = torch.cat([head, padded, tail], axis)
        windows = padded
        for axis, size in enumerate(shape[1:], 1):
            windows = windows.unfold(axis, size, 1)
        same = (windows == after.view(shape[0], *[1] * len(pads), *shape[1:])).flatten(
            1 + len(pads)
        )
        hits = same.all(-1).all(0).nonzero().tolist()
        assert len(hits) == 1
        found.append(tuple(hits[0]))
    for axis, pad in enumerate(pads):
        assert {place[axis] for place in found} == set(range(2 * pad + 1))


def test_about_half_are_mirrored() -> None:
    x = images()
    mirrored = random_hflip(x, keys(64))
    same = (mirrored == x).flatten(1).all(1)
    assert (mirrored == x.flip(-1)).flatten(1).all(1).logical_xor(same).all()
    assert 16 < int(same.sum()) < 48


def test_color_is_torchvisions() -> None:
    """With the drawn factors, in the order brightness, contrast, saturation, up to rounding."""
    x = images(32)
    ours = random_color(x, keys(32)).float()
    factors = torch.stack([mix_bits(keys(32) + n) / 2**32 * 0.4 + 0.8 for n in (1, 2, 3)], 1)
    assert (factors - 1).abs().max() < 0.2
    for image, jittered, (bright, contrast, saturation) in zip(x, ours, factors, strict=True):
        expected = vision.adjust_brightness(image / 255, float(bright))
        expected = vision.adjust_contrast(expected, float(contrast))
        expected = vision.adjust_saturation(expected, float(saturation))
        assert (jittered - 255 * expected).abs().max() < 1.5


def test_color_keeps_the_levels() -> None:
    for channels in (1, 3, 5):
        x = images(16, channels)
        x[0], x[1] = 0, 255
        jittered = random_color(x, keys(16))
        assert jittered.dtype == torch.uint8
        assert jittered[0].eq(0).all()
        assert jittered[1].float().std() == 0
        assert not jittered[2:].equal(x[2:])


@pytest.mark.parametrize(
    ("name", "spec", "said"),
    [
        ("flip", DataSpec(shape=(5,)), "not vectors"),
        ("crop", DataSpec(shape=(5,)), "not vectors"),
        ("color", DataSpec(shape=(1, 8, 8), domain="binary"), "256 levels, not binary"),
        ("color", DataSpec(shape=(1, 8, 8), domain="real"), "256 levels, not real"),
    ],
)
def test_data_without_what_is_changed_is_refused(
    name: Augmentation, spec: DataSpec, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        check_augment([name], spec)
    check_augment(ALL, DataSpec(shape=(3, 8, 8)))
    check_augment(["flip", "crop"], DataSpec(shape=(2, 64), domain="real"))
