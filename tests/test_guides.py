"""The guides work as they are written: their files are saved, their commands are run, in order."""

from __future__ import annotations

import re
import shlex
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vaezoo
from vaezoo.cli.main import main
from vaezoo.runtime.device import seeded
from vaezoo.testing.subjects import ModelWithLoss

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", flags=re.M | re.S)


def steps(guide: str) -> Iterator[tuple[str, str]]:
    """(path, content) of a file to save, or ("", command) of one to run, as they come."""
    text = (DOCS / guide).read_text(encoding="utf-8")
    for language, path, content in BLOCK.findall(text):
        if path:
            yield path, content
        elif language == "sh":
            yield from (("", line) for line in content.splitlines())


GUIDES = ("plugin", "loss", "network", "bottleneck", "likelihood", "sampler")


@pytest.mark.parametrize(
    "guide", [*(f"write_a_{kind}.md" for kind in GUIDES), "bring_a_dataset.md"]
)
def test_a_guide_works_as_it_is_written(
    in_tmp: Path, environment: Callable[..., str], guide: str
) -> None:
    ran = 0
    for path, content in steps(guide):
        if path:
            (in_tmp / path).parent.mkdir(parents=True, exist_ok=True)
            (in_tmp / path).write_text(content, encoding="utf-8")
            continue
        said = environment(*shlex.split(content))
        ran += 1
        if content.startswith("vaezoo check"):
            assert "keeps the contract" in said
    assert ran >= 2


@pytest.mark.parametrize("page", ["own_training_loop.md", "python.md", "quantizers.md"])
def test_the_code_of_a_page_runs_from_top_to_bottom(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict[str, object] = {"__name__": page}
    with seeded(0, torch.device("cpu")):  # leaves the generator of other tests alone
        for language, _, content in BLOCK.findall((DOCS / page).read_text(encoding="utf-8")):
            if language == "python":
                exec(compile(content, page, "exec"), names)


def test_the_page_of_latents_and_scores_works(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its code and its commands in order, but for the training on a folder of photographs."""
    monkeypatch.setenv("VAEZOO_CACHE", str(in_tmp / "cache"))
    small: dict[str, Any] = {"hidden": (4, 4), "latent_dim": 3, "steps": 2, "device": "cpu"}
    vaezoo.train("vanilla", out="runs/vanilla-sprites", examples=600, test=80, **small)
    noise = np.random.default_rng(0)
    Path("photos").mkdir()
    for file in ("a.png", "b.png", *(f"photos/{i}.png" for i in range(20))):
        Image.fromarray(noise.integers(0, 256, (64, 64), np.uint8)).save(file)
    write_fashion_mnist(Path("fashion-mnist/FashionMNIST/raw"), noise)
    names: dict[str, object] = {"__name__": "latents"}
    page = (DOCS / "latents_and_scores.md").read_text(encoding="utf-8")
    ran = 0
    with seeded(0, torch.device("cpu")):
        for language, _, content in BLOCK.findall(page):
            if language == "python":
                exec(compile(content, "latents_and_scores.md", "exec"), names)
            elif language == "console":
                for line in content.splitlines():
                    words = shlex.split(line.removeprefix("$ vaezoo "))
                    if "runs/photos" not in words:
                        assert main(words) == 0, line + capsys.readouterr().err
                        ran += 1
    assert ran == 8
    scaled = names["scaled"]
    assert isinstance(scaled, torch.Tensor)
    assert scaled.shape == (64, 3)
    whole = torch.stack(list(names["Latents"]("latents")))  # type: ignore[operator]
    torch.testing.assert_close(whole.mean(0), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(whole.std(0, correction=0), torch.ones(3))


def write_fashion_mnist(folder: Path, noise: np.random.Generator) -> None:
    """A few images in its files."""
    folder.mkdir(parents=True)
    for stem, count in (("train", 320), ("t10k", 40)):
        arrays = {
            "images-idx3": noise.integers(0, 256, (count, 28, 28), np.uint8),
            "labels-idx1": np.arange(count, dtype=np.uint8) % 10,
        }
        for name, array in arrays.items():
            head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (folder / f"{stem}-{name}-ubyte").write_bytes(head + array.tobytes())


def test_pages_link_to_what_is_there() -> None:
    root = DOCS.parent
    for page in [*DOCS.glob("*.md"), *root.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


TEN = (
    *("vanilla", "autoencoder", "aae", "cvae", "factor_vae", "gumbel_vae", "ladder_vae"),
    *("vae_gan", "vamp_prior", "vq_vae"),
)


def test_ten_models_train_with_the_network_of_the_guide(in_tmp: Path) -> None:
    code = next(content for path, content in steps("write_a_network.md") if path)
    (in_tmp / "unet.py").write_text(code, encoding="utf-8")
    for name in TEN:
        pair = ModelWithLoss(name, parts={"network": "./unet.py:UNet"})
        model = pair.build()
        assert any(type(layer).__name__ == "AvgPool2d" for layer in model.modules())
        for values in pair.train(model, pair.batch(), 2):
            assert values.isfinite().all(), name
