"""CelebA: found in each layout, cropped, split by its list, decoded once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vaezoo.errors import DataError
from vaezoo_files.celeba import CelebaDataset
from vaezoo_files.options import CelebaOptions

ROLES = [0, 0, 0, 0, 0, 0, 1, 1, 2, 2, 2]


def level(number: int) -> int:
    return 20 * number


def write(
    folder: Path,
    images: str = "img_align_celeba",
    partition: str | None = "list_eval_partition.txt",
    roles: list[int] | None = None,
) -> None:
    """Faces of 178×218: red outside the centre square of 148, grey by their number inside."""
    roles = ROLES if roles is None else roles
    (folder / images).mkdir(parents=True)
    for number in range(1, len(roles) + 1):
        pixels = np.zeros((218, 178, 3), np.uint8)
        pixels[..., 0] = 255
        pixels[35:183, 15:163] = level(number)
        Image.fromarray(pixels).save(folder / images / f"{number:06}.jpg", quality=98)
    if partition:
        comma = partition.endswith(".csv")
        lines = ["image_id,partition"] if comma else []
        mark = "," if comma else " "
        lines += [f"{number:06}.jpg{mark}{role}" for number, role in enumerate(roles, 1)]
        (folder / partition).parent.mkdir(exist_ok=True)
        (folder / partition).write_text("\n".join(lines) + "\n")


def numbers(split: object) -> list[int]:
    """Which faces a split has, by their level of grey."""
    images, labels = split.get_batch(torch.arange(len(split)))  # type: ignore[attr-defined]
    assert labels is None
    # Nothing red is left, but for what JPEG bleeds over the edge.
    inside = images[:, :, 2:-2, 2:-2].float()
    assert (inside.amax(dim=(1, 2, 3)) - inside.amin(dim=(1, 2, 3))).max() <= 6
    return [round(value / 20) for value in inside.mean(dim=(1, 2, 3)).tolist()]


@pytest.mark.parametrize(
    ("below", "images", "partition"),
    [
        ("celeba", "img_align_celeba", "list_eval_partition.txt"),
        (".", "img_align_celeba", "list_eval_partition.txt"),
        (".", "img_align_celeba/img_align_celeba", "list_eval_partition.csv"),
        ("CelebA", "Img/img_align_celeba", "Eval/list_eval_partition.txt"),
    ],
)
def test_official_splits_in_each_layout(
    tmp_path: Path, below: str, images: str, partition: str
) -> None:
    write(tmp_path / below, images, partition)
    splits = CelebaDataset(CelebaOptions(root=tmp_path, image_size=(32, 32))).load()
    assert splits.spec.shape == (3, 32, 32)
    assert splits.spec.class_names == ()
    assert splits.spec.num_examples == 6
    assert numbers(splits.train) == [1, 2, 3, 4, 5, 6]
    assert numbers(splits.validation) == [7, 8]
    assert numbers(splits.test) == [9, 10, 11]


def test_root_may_be_the_folder_of_images(tmp_path: Path) -> None:
    write(tmp_path)
    options = CelebaOptions(root=tmp_path / "img_align_celeba", image_size=(16, 16))
    assert numbers(CelebaDataset(options).load().test) == [9, 10, 11]


def test_validation_held_out_of_training(tmp_path: Path) -> None:
    write(tmp_path)
    options = CelebaOptions(root=tmp_path, image_size=(16, 16), validation=2)
    splits = CelebaDataset(options).load()
    train, validation = numbers(splits.train), numbers(splits.validation)
    assert len(validation) == 2
    assert sorted(train + validation) == [1, 2, 3, 4, 5, 6]
    assert numbers(splits.test) == [9, 10, 11]


def test_without_the_list_by_name(tmp_path: Path) -> None:
    write(tmp_path, partition=None)
    splits = CelebaDataset(CelebaOptions(root=tmp_path, image_size=(16, 16))).load()
    assert numbers(splits.train) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert numbers(splits.validation) == [10]
    assert numbers(splits.test) == [11]
    assert "list_eval_partition.txt is missing" in splits.description


def test_no_image_is_decoded_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    options = CelebaOptions(root=tmp_path, image_size=(16, 16))
    first = CelebaDataset(options).load()

    def refuse(*_: object) -> None:
        raise AssertionError("an image was decoded again")

    monkeypatch.setattr("vaezoo_files.image_files.decode_all", refuse)
    again = CelebaDataset(options).load()
    assert numbers(again.train) == numbers(first.train)
    assert again.fingerprint == first.fingerprint


def test_what_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    def said() -> str:
        with pytest.raises(DataError) as caught:
            CelebaDataset(CelebaOptions(root=tmp_path, image_size=(16, 16))).load()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "celeba was not found" in said()
    for named in ("img_align_celeba.zip", "list_eval_partition.txt", "mmlab.ie.cuhk.edu.hk"):
        assert named in said()
    write(tmp_path)
    path = tmp_path / "img_align_celeba" / "000003.jpg"
    whole = path.read_bytes()
    path.write_bytes(whole[:500])
    assert "1 of 11 images of celeba cannot be read" in said()
    assert "000003.jpg" in said()
    path.unlink()
    assert "lacks 1 of the 11 images" in said()
    path.write_bytes(whole)
    listing = tmp_path / "list_eval_partition.txt"
    listing.write_text("000001.jpg 0\n../../etc/passwd 1\n")
    assert "line 2 is not like" in said()
    listing.write_text("000001.jpg 0\n")
    assert "leaves 1 images to train on and 0 to test" in said()
