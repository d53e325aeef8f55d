"""Any tree of images becomes disjoint, repeatable splits; a broken file only costs a line."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vaezoo.data import decode
from vaezoo.data.base import Split, Splits
from vaezoo.errors import DataError
from vaezoo_files import image_files
from vaezoo_files.folder import FolderDataset
from vaezoo_files.image_files import find_images
from vaezoo_files.options import FolderOptions
from vaezoo_files.placements import assign_placements


def make(root: Path, names: Iterable[str], colour: bool = True) -> Path:
    """Image files whose red (or grey) level is their number in sorted order, from 0."""
    for number, name in enumerate(sorted(names)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        mode, level = ("RGB", (number, 0, 255)) if colour else ("L", number)
        Image.new(mode, (2, 2), level).save(root / name, format="PNG")
    return root


def load(root: Path | None, **options: Any) -> Splits:
    return FolderDataset(FolderOptions(root=root, image_size=(2, 2), **options)).load()


def numbers(split: Split) -> list[int]:
    """Which images of `make` a split holds, in its order."""
    images, _ = split.get_batch(torch.arange(len(split)))
    return images[:, 0, 0, 0].tolist()


def labels(split: Split) -> list[int] | None:
    found = split.get_batch(torch.arange(len(split)))[1]
    return None if found is None else found.tolist()


def refusal(root: Path | None, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        load(root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_class_folders_with_the_tutorials_sorted_split(tmp_path: Path) -> None:
    names = [f"{name}/{i}.jpg" for name in ("homer", "bart", "lisa") for i in range(4)]
    splits = load(make(tmp_path, names), split="sorted")
    paths = sorted(names)
    at = int(0.75 * len(paths))
    assert numbers(splits.train) == list(range(at))
    assert numbers(splits.test) == list(range(at, len(paths)))
    assert splits.spec.class_names == ("bart", "homer", "lisa")
    assert labels(splits.train) == [0] * 4 + [1] * 4 + [2]
    assert labels(splits.test) == [2] * 3
    assert (splits.spec.shape, splits.spec.domain, splits.spec.num_examples) == (
        (3, 2, 2),
        "unit",
        9,
    )
    assert splits.validation is splits.test or numbers(splits.validation) == numbers(splits.test)
    assert "12 images in 3 classes: 9 to train on, 3 to test, sorted by path" in splits.description


@pytest.mark.parametrize(
    ("count", "fraction", "for_training"),
    [(10, 0.8, 2), (10, 0.7, 3), (7, 0.25, 5), (2, 0.01, 1), (2, 0.99, 1), (10, 0.1, 9)],
)
def test_shares(tmp_path: Path, count: int, fraction: float, for_training: int) -> None:
    root = make(tmp_path, [f"{i}.png" for i in range(count)])
    for split in ("sorted", "random"):
        splits = load(root, split=split, test_fraction=fraction)
        assert len(splits.train) == for_training
        assert len(splits.test) == count - for_training


def test_random_split_follows_its_seed(tmp_path: Path) -> None:
    root = make(tmp_path, [f"{i:03}.png" for i in range(100)])
    first, again, other = load(root), load(root), load(root, split_seed=1)
    assert numbers(first.test) == numbers(again.test) != numbers(other.test)
    assert sorted(numbers(first.train) + numbers(first.test)) == list(range(100))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert labels(first.train) is None
    assert first.spec.class_names == ()


def test_validation_is_held_out_of_training(tmp_path: Path) -> None:
    splits = load(make(tmp_path, [f"{i:02}.png" for i in range(40)]), split="sorted", validation=10)
    held_out = numbers(splits.validation)
    assert len(held_out) == 10
    assert sorted(numbers(splits.train) + held_out) == list(range(30))
    assert numbers(splits.test) == list(range(30, 40))
    assert "cannot give" in refusal(tmp_path, validation=30)


def test_train_and_test_folders(tmp_path: Path) -> None:
    root = make(
        tmp_path / "nested/nested",
        # sorted: Test/bart Test/homer, Training/bart Training/homer, notes
        [
            "Training/homer/a.png",
            "Training/bart/b.png",
            "Training/bart/deep/er/c.png",
            "Test/homer/a.png",
            "Test/bart/x.png",
            "notes/picture.png",
        ],
    )
    splits = load(tmp_path)
    assert numbers(splits.test) == [0, 1]
    assert numbers(splits.train) == [2, 3, 4]
    assert labels(splits.train) == [0, 0, 1]
    assert labels(splits.test) == [0, 1]
    assert splits.spec.class_names == ("bart", "homer")
    assert "as the folders say" in splits.description
    assert splits.notes == ["left out 1 image beside the folders of the splits or classes"]
    assert root.is_dir()


def test_a_validation_folder(tmp_path: Path) -> None:
    names = [f"{role}/{i}.png" for role in ("train", "val", "test") for i in range(3)]
    root = make(tmp_path, names)  # in order: test, train, val
    splits = load(root)
    assert numbers(splits.validation) == [6, 7, 8]
    held_out = load(root, validation=1)
    assert len(held_out.train) == 2
    assert set(numbers(held_out.validation)) < {3, 4, 5}
    assert "validation folder is not used" in held_out.description
    shutil.rmtree(root / "test")
    without = load(root)
    assert numbers(without.test) == numbers(without.validation) == [6, 7, 8]


def classes_of(*names: str) -> list[tuple[str, str | None] | None]:
    places = assign_placements(names)
    return [None if place is None else (place.role, place.class_name) for place in places]


def test_what_folders_mean() -> None:
    def everything(*names: str | None) -> list[tuple[str, str | None]]:
        return [("all", name) for name in names]

    assert classes_of("x.png", "y.png") == everything(None, None)
    assert classes_of("a/x.png", "a/y.png") == everything(None, None)
    assert classes_of("a/x.png", "b/c/d/y.png") == everything("a", "b")
    assert classes_of("z/z/a/x.png", "z/z/b/y.png") == everything("a", "b")
    # one cover beside class folders, and a few folders beside many images
    assert classes_of("c.png", "a/x.png", "b/y.png") == [None, *everything("a", "b")]
    assert classes_of("c.png", "d.png", "e.png", "a/x.png", "b/y.png") == everything(*[None] * 5)
    assert classes_of("c.png", "z/a/x.png", "z/b/y.png") == [None, *everything("a", "b")]
    # one folder beside images is no class
    assert classes_of("c.png", "z/x.png", "z/y.png") == everything(None, None, None)
    # what lies beside splits never mixes with them
    assert classes_of("train/x.png", "test/y.png", *("more/1.png", "more/2.png", "3.png")) == [
        ("train", None),
        ("test", None),
        *[None] * 3,
    ]
    # train alone is a name like any other
    assert classes_of("train/x.png", "car/y.png") == everything("train", "car")
    assert classes_of("train/a/x.png", "train/b/y.png") == everything("a", "b")
    # a test folder with one of the classes, with others, with none
    train = [("train", "a"), ("train", "b")]
    base = ("train/a/x.png", "train/b/y.png")
    assert classes_of(*base, "test/b/z.png") == [*train, ("test", "b")]
    assert classes_of(*base, "test/q/b/z.png") == [*train, ("test", "b")]
    assert classes_of(*base, "test/b/1.png", "test/c/2.png") == [
        *train,
        ("test", "b"),
        ("test", "c"),
    ]
    assert classes_of(*base, "test/z.png") == [*train, ("test", None)]
    assert classes_of("train/a/x.png", "VALID/a/1.png", "VALID/b/2.png") == [
        ("train", "a"),
        ("validation", "a"),
        ("validation", "b"),
    ]


def test_unlabelled_test_images_have_label_minus_one(tmp_path: Path) -> None:
    splits = load(make(tmp_path, ["train/a/1.png", "train/b/2.png", "test/3.png"]))
    assert labels(splits.train) == [0, 1]
    assert labels(splits.test) == [-1]


def test_channels(tmp_path: Path) -> None:
    grey = make(tmp_path / "grey", [f"{i:03}.png" for i in range(70)], colour=False)
    assert load(grey).spec.shape == (1, 2, 2)
    assert load(grey, channels="3").spec.shape == (3, 2, 2)
    colour = make(tmp_path / "colour", ["1.png", "2.png"])
    assert load(colour).spec.shape == (3, 2, 2)
    assert load(colour, channels="1").spec.shape == (1, 2, 2)
    (grey / "000.png").write_text("broken")
    assert load(grey).spec.shape == (1, 2, 2)


def test_broken_files_are_skipped_and_listed(tmp_path: Path) -> None:
    root = make(tmp_path, [f"a/{i:02}.png" for i in range(30)] + ["b/x.png"])
    whole = (root / "a/00.png").read_bytes()
    (root / "a/03.png").write_bytes(whole[:-30])
    (root / "a/05.png").write_bytes(b"")
    (root / "b/new\nline.png").write_text("text")
    splits = load(root, split="sorted", max_skipped=0.1)
    assert [name for name, _ in splits.skipped] == ["a/03.png", "a/05.png", "b/new�line.png"]
    reasons = [reason for _, reason in splits.skipped]
    for reason, part in zip(reasons, ["truncated", "empty", "not a valid image"], strict=True):
        assert part in reason
    everything = numbers(splits.train) + numbers(splits.test)
    assert everything == [n for n in range(31) if n not in (3, 5)]
    assert labels(splits.test)[-1] == 1  # labels move up with the images
    again = refusal(root, split="sorted", max_skipped=0.09)
    assert "3 of 32 images (9%)" in again
    assert "a/03.png: it is truncated" in again


def test_what_was_left_out_is_said(tmp_path: Path) -> None:
    """In a line each: what cannot be read, with its option; other files; animations."""
    root = make(tmp_path / "data", [f"{i:02}.png" for i in range(40)])
    (root / "00.png").write_bytes((root / "00.png").read_bytes()[:-30])
    Image.new("RGB", (2000, 1000)).save(root / "large.jpg")
    frames = [Image.new("RGB", (4, 4), (80 * i, 0, 0)) for i in range(3)]
    for name in ("a.gif", "b.webp"):
        frames[0].save(root / name, save_all=True, append_images=frames[1:])
    frames[0].save(root / "still.gif")
    frames[0].save(root / "still.webp")
    (root / "list.txt").write_text("00.png")
    for splits in (load(root, max_megapixels=1.5), load(root, max_megapixels=1.5)):  # from cache
        large = "large.jpg: 2000×1000 pixels are more than max_megapixels 1.5"
        skipped = "skipped 2 of 45 images (--max-megapixels admits larger ones)"
        assert splits.notes == [
            f"{skipped}: 00.png: it is truncated; {large}",
            "left out 1 file that is no image (1 .txt)",
            "used the first frame of 2 animated images: a.gif; b.webp",
        ]
        assert splits.description.startswith("43 images: 32 to train on, 11 to test")
    assert "(--max-skipped 0 refuses such ones): 00.png" in load(root).notes[0]
    assert load(make(tmp_path / "clean", ["1.png", "2.png"])).notes == []


def test_broken_files_beyond_the_first_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "CHUNK_BYTES", 1)
    root = make(tmp_path, [f"{i:02}.png" for i in range(50)])
    (root / "40.png").write_bytes(b"")
    splits = load(root, split="sorted")
    assert list(splits.skipped) == [("40.png", "it is empty")]
    assert numbers(splits.train) + numbers(splits.test) == [n for n in range(50) if n != 40]


def test_too_many_broken_files_are_refused_and_not_stored(tmp_path: Path) -> None:
    root = make(tmp_path / "data", ["1.png", "2.png", "3.png"])
    (root / "2.png").write_bytes(b"")
    assert "1 of 3 images (33%) cannot be read, and max_skipped allows 10%" in refusal(root)
    assert list((Path(os.environ["VAEZOO_CACHE"]) / "images").glob("*.npy")) == []
    (root / "3.png").write_bytes(b"")
    assert "leaves too few" in refusal(root, max_skipped=1.0)


def test_bad_folders_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/table.csv").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "--root" in refusal(None)
    assert "does not exist" in refusal(tmp_path / "absent")
    assert "is a file" in refusal(tmp_path / "file")
    assert "is empty" in refusal(tmp_path / "empty")
    assert "1 .csv" in refusal(tmp_path / "other")
    assert "cannot read" in refusal(tmp_path / "loop")
    assert "one image" in refusal(make(tmp_path / "one", ["a/b/1.png"]))


def test_strange_things_in_the_tree(tmp_path: Path) -> None:
    root = make(tmp_path / "data", [f"{i:02}.PNG" for i in range(40)])
    make(tmp_path / "elsewhere", ["1.png"])
    (root / "loop").symlink_to(root)
    (root / "above").symlink_to(tmp_path)
    (root / "self.png").symlink_to(root / "self.png")
    (root / "self").symlink_to(root / "self")
    (root / "broken.png").symlink_to(root / "nothing")
    (root / "a-link").symlink_to(tmp_path / "elsewhere")
    (root / "b-link").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(root / "pipe.png")
    place = os.getcwd()
    os.chdir(root)  # the name of a socket may not be long
    with socket.socket(socket.AF_UNIX) as plug:
        plug.bind("socket.jpg")
    os.chdir(place)
    make(root, [".hidden.png", "._00.PNG", "__MACOSX/00.png", ".git/x.png"])
    (root / "Thumbs.db").touch()
    splits = load(root)
    assert len(splits.train) + len(splits.test) == 41
    assert dict(splits.skipped) == {
        "broken.png": "it does not exist",
        "pipe.png": "it is not a regular file",
        "self.png": "too many levels of symbolic links",
        "socket.jpg": "it is not a regular file",
    }
    assert [i.name for i in find_images(root).images if "link" in i.name] == ["a-link/1.png"]


def test_an_unreadable_folder_is_skipped_and_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make(tmp_path, [f"a/{i:02}.png" for i in range(20)] + ["b/1.png", "locked/2.png"])
    scandir = os.scandir

    def guarded(path: Path) -> Any:  # tests may run as root, who may read all
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(image_files.os, "scandir", guarded)
    splits = load(root)
    assert list(splits.skipped) == [("locked/", "permission denied")]
    assert splits.spec.class_names == ("a", "b")


def test_no_image_is_decoded_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make(tmp_path / "data", [f"{i:02}.png" for i in range(20)])
    decoded: list[str] = []
    decode_image = decode._decode

    def counted(path: Path, *rest: Any) -> Any:
        decoded.append(path.name)
        return decode_image(path, *rest)

    monkeypatch.setattr(decode, "_decode", counted)
    first = load(root)
    assert sorted(decoded) == [f"{i:02}.png" for i in range(20)]
    # another split, another use, another place: the same pixels
    load(root, split="sorted", validation=3, max_skipped=0.5, binarize="threshold")
    root.rename(tmp_path / "moved")
    assert load(tmp_path / "moved").fingerprint == first.fingerprint
    assert len(decoded) == 20
    load(tmp_path / "moved", fit="stretch")
    assert len(decoded) == 40


def test_a_changed_file_is_decoded_again(tmp_path: Path) -> None:
    root = make(tmp_path, [f"{i:02}.png" for i in range(8)])
    first = load(root, split="sorted")
    later = (root / "03.png").stat().st_mtime_ns + 10**9
    os.utime(root / "03.png", ns=(later, later))
    touched = load(root, split="sorted")
    assert touched.fingerprint == first.fingerprint
    Image.new("RGB", (2, 2), (99, 0, 255)).save(root / "03.png")
    os.utime(root / "03.png", ns=(later + 1, later + 1))
    changed = load(root, split="sorted")
    assert numbers(changed.train) == [0, 1, 2, 99, 4, 5]
    assert changed.fingerprint != first.fingerprint


NAMES = st.sampled_from(["a", "B", "train", "Test", "val", "__MACOSX", "ünï", "x y", "a.png"])
TREES = st.sets(st.lists(NAMES, max_size=4).map(tuple), min_size=2, max_size=8)


@settings(max_examples=60, deadline=None)
@given(TREES, st.sampled_from(["sorted", "random"]), st.integers(0, 2))
def test_splits_of_any_tree_are_disjoint_and_miss_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    tree: set[tuple[str, ...]],
    split: str,
    validation: int,
) -> None:
    root = tmp_path_factory.mktemp("tree")
    names = ["/".join([*parts, f"{i}.png"]) for i, parts in enumerate(sorted(tree))]
    make(root, names)
    found = find_images(root)
    places = assign_placements([image.name for image in found.images])
    kept = [i for i, place in enumerate(places) if place is not None]
    assert {i.name for i in found.images} == {n for n in names if "__MACOSX" not in n}
    roles = {place.role for place in places if place is not None}
    assert "all" not in roles or 2 * len(kept) >= len(places)
    try:
        splits = load(root, split=split, validation=validation)
    except DataError:
        assert len(kept) < 2 or validation > 0
        return
    parts = [set(numbers(part)) for part in (splits.train, splits.test, splits.validation)]
    assert parts[0].isdisjoint(parts[1] | parts[2])
    assert parts[1] == parts[2] or parts[1].isdisjoint(parts[2])
    level = {name: number for number, name in enumerate(sorted(names))}
    if validation == 0 or "validation" not in roles:
        assert set().union(*parts) == {level[found.images[i].name] for i in kept}
    again = load(root, split=split, validation=validation)
    assert again.fingerprint == splits.fingerprint
    assert numbers(again.train) == numbers(splits.train)
