"""`vaezoo tile`: files of any size through the encoder and the decoder, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vaezoo
from vaezoo.cli.main import main
from vaezoo_tokenizers.tiled import decode_tiled, encode_tiled


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tile") / "run"
    vaezoo.train(
        "autoencoder_kl",
        data=np.random.default_rng(0).integers(0, 256, (80, 3, 16, 16), dtype=np.uint8),
        out=out,
        hidden=(4, 4, 4),
        norm_groups=2,
        layers_per_block=1,
        steps=2,
        batch_size=8,
        device="cpu",
    )
    return out


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    levels = np.random.default_rng(1).integers(0, 256, (41, 27, 3), dtype=np.uint8)
    Image.fromarray(levels).save(tmp_path / "large.png")
    return tmp_path / "large.png"


def test_an_image_of_any_size_is_reconstructed(run: Path, picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    assert main(["tile", str(run), str(picture), "-o", str(out), "--overlap", "1"]) == 0
    levels = np.asarray(Image.open(picture)).copy()
    x = torch.from_numpy(np.pad(levels, ((0, 3), (0, 1), (0, 0)), "edge")).permute(2, 0, 1) / 255
    model = vaezoo.load_run(run, "cpu").model
    assert isinstance(model, vaezoo.EncoderDecoderVAE)
    with torch.no_grad():
        z = encode_tiled(model, x[None], overlap=1).mean
        expected = decode_tiled(model, z, overlap=1).mean[0, :, :41, :27]
    shown = (expected.clamp(0, 1) * 255).round().permute(1, 2, 0).numpy().astype(np.uint8)
    assert np.array_equal(np.asarray(Image.open(out)), shown)


def test_latents_are_the_way_there_and_back(
    run: Path,
    picture: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    documented: Callable[[str], list[str]],
) -> None:
    z, out, direct = (tmp_path / name for name in ("z.npz", "out.png", "direct.png"))
    assert main(["tile", str(run), str(picture), "-o", str(z), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["latent_shape"] == [4, 11, 7]
    assert sorted(found) == sorted(documented("`vaezoo tile RUN FILE -o OUT --json`"))
    assert np.load(z)["mean"].shape == (1, 4, 11, 7)
    assert main(["tile", str(run), str(z), "-o", str(out)]) == 0
    assert main(["tile", str(run), str(picture), "-o", str(direct)]) == 0
    decoded, whole = np.asarray(Image.open(out)), np.asarray(Image.open(direct))
    assert decoded.shape == (44, 28, 3)
    assert np.array_equal(decoded[:41, :27], whole)


def test_an_image_on_its_side_is_turned(run: Path, picture: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a camera that was held upright
    Image.open(picture).save(tmp_path / "side.jpg", exif=exif, quality=95)
    out = tmp_path / "out.png"
    assert main(["tile", str(run), str(tmp_path / "side.jpg"), "-o", str(out)]) == 0
    assert Image.open(out).size == (41, 27)


@pytest.mark.parametrize(
    ("file", "options", "message"),
    [
        ("nothing.png", ["-o", "x.png"], "does not exist"),
        ("large.png", ["-o", "x.jpg"], "give a name that ends in .png"),
        ("large.png", ["-o", "x.png", "--tile", "2", "--overlap", "2"], "give an overlap"),
        ("z.npz", ["-o", "x.npz"], "has latents already"),
        ("z.npz", ["-o", "x.png"], "latents of this model are 4"),
        ("two.npz", ["-o", "x.png"], "the latents of one image"),
    ],
)
def test_what_is_refused(
    file: str,
    options: list[str],
    message: str,
    run: Path,
    picture: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(picture.parent)
    np.savez("z.npz", mean=np.zeros((1, 3, 4, 4), np.float32))
    np.savez("two.npz", mean=np.zeros((2, 4, 4, 4), np.float32))
    assert main(["tile", str(run), file, *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_a_model_without_a_grid_is_refused(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = np.zeros((40, 1, 16, 16), np.uint8)
    images[::2] = 255
    job = {"steps": 1, "batch_size": 8, "hidden": (4, 4), "device": "cpu"}
    vaezoo.train("vanilla", data=images, out=tmp_path / "run", **job)
    assert main(["tile", str(tmp_path / "run"), str(picture), "-o", str(tmp_path / "x.png")]) == 2
    assert "a latent on a grid" in capsys.readouterr().err
