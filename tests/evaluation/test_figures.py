"""What a notebook shows: figures of a run, its HTML, and texts of one line."""

from __future__ import annotations

import base64
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vaezoo
from small_jobs import SMALL_JOB
from vaezoo.errors import DataError
from vaezoo.evaluation.figures import latents_figure, picture_figure, to_html


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    vaezoo.train("vanilla", out=out, **{**SMALL_JOB, "network": "mlp", "hidden": (8,)})
    return out


def test_latents_are_drawn_by_their_principal_components() -> None:
    noise = np.random.default_rng(0)
    points = (
        noise.normal(size=(200, 5))
        * [9.0, 0.1, 4.0, 0.1, 0.1]
        @ np.linalg.qr(noise.normal(size=(5, 5)))[0]
        + 7
    )
    labels = torch.arange(200) % 3 - 1
    figure = latents_figure(torch.tensor(points), labels, ["a", "b"])
    (panel,) = figure.axes
    groups = [np.asarray(drawn.get_offsets()) for drawn in panel.collections]
    drawn = np.empty((200, 2))
    for number, group in enumerate(groups):
        drawn[labels == number - 1] = group
    variances = np.sort(np.linalg.eigvalsh(np.cov(points.T)))[::-1]
    assert np.cov(drawn.T) == pytest.approx(np.diag(variances[:2]), abs=1e-9 * variances[0])
    distances = np.linalg.norm(drawn[:, None] - drawn, axis=-1)
    expected = np.linalg.norm(points[:, None] - points, axis=-1)
    assert distances == pytest.approx(expected, abs=1.0)  # what the other components hold
    share = variances[0] / variances.sum()
    assert panel.get_xlabel() == f"component 1: {share:.0%} of the variance"
    legend = panel.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["unknown", "a", "b"]


def test_one_latent_value_and_many_classes_are_drawn_too() -> None:
    figure = latents_figure(torch.randn(50, 1), torch.arange(50), [])
    assert figure.axes[0].get_legend() is None
    assert np.asarray(figure.axes[0].collections[0].get_offsets())[:, 1].tolist() == [0.0] * 50


def test_a_picture_keeps_its_pixels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    figure = picture_figure(lambda path: Image.fromarray(pixels).save(path))
    shown = Image.open(io.BytesIO(figure._repr_png_())).convert("RGB")  # type: ignore[attr-defined]
    assert np.array_equal(np.asarray(shown), pixels)


def test_figures_of_a_run(run: Path) -> None:
    opened = vaezoo.load_run(run, "cpu")
    titles = [axes.get_title(loc="left") for axes in opened.plot_curves().axes]
    assert titles == ["loss", "elbo", "rate", "distortion"]
    x = torch.rand(3, 1, 16, 16).round()
    for figure in (
        opened.plot_samples(4, seed=1),
        opened.plot_reconstructions(),
        opened.plot_reconstructions(x.numpy()),
        opened.plot_latents(),
    ):
        assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
    assert len(opened.plot_latents(10).axes[0].collections[0].get_offsets()) <= 10


def test_reconstructions_stand_below_their_originals(run: Path) -> None:
    """In a test split of 24 examples: 16 of them, in two pairs of rows."""
    opened = vaezoo.load_run(run, "cpu")
    (image,) = opened.plot_reconstructions(n=8).axes[0].images
    pixels = torch.tensor(np.asarray(image.get_array())[..., 0] / 255.0)
    half = len(pixels) // 2
    index = torch.linspace(0, 23, 8).long()
    first = opened.splits.test.get_batch(index)[0][0, 0] / 255.0
    side = half // 16
    assert pixels[2 : 2 + 16 * side : side, 2 : 2 + 16 * side : side].equal(first.double().round())


def test_vectors_have_no_pictures(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(80, 5))
    options = {"steps": 2, "batch_size": 8, "device": "cpu", "latent_dim": 2}
    run = vaezoo.train("vanilla", data=x, network="mlp", out=tmp_path / "r", **options)
    for draw in (run.plot_samples, run.plot_reconstructions):
        with pytest.raises(DataError, match="there are no pictures"):
            draw()
    assert len(run.plot_latents().axes) == 1
    assert "<img" not in run._repr_html_()


def test_html_has_small_pictures_and_no_markup_of_the_run(run: Path, tmp_path: Path) -> None:
    html = vaezoo.load_run(run, "cpu")._repr_html_()
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    assert len(pictures) == 2
    for data in pictures:
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            assert max(picture.size) <= 300
    evil = tmp_path / "<script>alert(1)</script>"
    shutil.copytree(run, evil.parent / "copy")
    (evil.parent / "copy" / "samples.png").write_bytes(b"<svg onload='alert(1)'>")
    (evil.parent / "copy" / "reconstructions.png").unlink()
    copy = vaezoo.load_run(evil.parent / "copy", "cpu")
    assert "<img" not in copy._repr_html_()
    text = to_html(f"Run {evil}", {})
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_texts_of_one_line(run: Path) -> None:
    opened = vaezoo.load_run(run, "cpu")
    model = repr(opened.model)
    assert "\n" not in model
    count = sum(parameter.numel() for parameter in opened.model.parameters())
    assert f"EncoderDecoderVAE of binary images of 1×16×16: latent 4, {count:,} parameters" in model
    assert repr(opened.splits) == (
        "Splits of binary images of 1×16×16: 96 train, 24 validation, 24 test"
    )
    assert repr(opened).startswith(f"Run {run}: vanilla on sprites, 6 steps, ELBO -")
    evaluation = repr(opened.evaluate())
    assert evaluation.startswith("Evaluation on 24 examples\n")
