"""The explorer in a browser: it decodes as PyTorch does, and the page stays by itself.

Needs Chromium, playwright and onnxruntime-web (VAEZOO_ONNXRUNTIME_WEB), and is skipped without.
"""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import vaezoo
from vaezoo.cli.main import main
from vaezoo.runs.run import load_run
from vaezoo_report.explorer import RUNTIME_VARIABLE, make_explorable
from vaezoo_report.summary import RunSummary

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, _BROWSERS)), "")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM:
        pytest.skip("there is no Chromium here")
    with playwright.sync_playwright() as started:
        # A container's root has no user namespaces for the sandbox.
        yield started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture(scope="module")
def report(two_runs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not os.environ.get(RUNTIME_VARIABLE):
        pytest.skip(f"{RUNTIME_VARIABLE} names no folder with onnxruntime-web")
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    path = tmp_path_factory.mktemp("page") / "report.html"
    runs = [str(run) for run in two_runs]
    assert main(["report", *runs, "-o", str(path), "--explore", "all", "--device", "cpu"]) == 0
    return path


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.troubles = []
    page.on("pageerror", lambda error: page.troubles.append(str(error)))
    page.on("console", lambda message: page.troubles.append(message.text))
    page.on("request", lambda request: page.troubles.extend(outside(request)))
    page.goto(report.as_uri())
    yield page
    assert page.troubles == []
    context.close()


def outside(request: Any) -> list[str]:
    """What the page asks of anyone else: nothing."""
    return [] if request.url.startswith(("file:", "data:", "blob:")) else [request.url]


def shown(page: Any, state: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The latents and the picture, once the last decoding is done."""
    page.locator(f"#explorer{state}").wait_for(timeout=60_000)
    for _ in range(200):
        if page.evaluate("!vaezooExplorer.running"):
            break
        page.wait_for_timeout(50)
    z, x = page.evaluate("[vaezooExplorer.z, Array.from(vaezooExplorer.x)]")
    return torch.tensor(z), torch.tensor(x)


def start(page: Any) -> tuple[torch.Tensor, torch.Tensor]:
    page.evaluate("document.getElementById('explorer').scrollIntoView()")
    return shown(page, "[data-shown]")


def test_real_values_are_shown_by_their_range_and_image_files_are_not_encoded(
    tmp_path: Path,
) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    x = np.linspace(-3, 5, 60 * 64).reshape(60, 8, 8)
    np.savez(tmp_path / "real.npz", x=x, x_test=x)
    options = {"network": "mlp", "hidden": (8,), "latent_dim": 2, "steps": 3, "batch_size": 16}
    run = vaezoo.train(
        "vanilla",
        data="npz",
        root=tmp_path / "real.npz",
        out=tmp_path / "run",
        device="cpu",
        **options,
    )
    made = make_explorable(run, RunSummary("run"), 0)
    assert made is not None
    assert made.description["value_range"] == pytest.approx((-3.0, 5.0))
    assert made.encoder is None
    assert not made.description["encodes"]
    assert "8-bit levels" in made.description["why_not"]


def test_a_slider_moves_the_picture_as_pytorch_would(
    page: Any, two_runs: tuple[Path, Path]
) -> None:
    run = load_run(two_runs[0], "cpu")
    model = run.model
    z, before = start(page)
    torch.testing.assert_close(z, run.encode_example(run.example("0"))[0], atol=1e-4, rtol=0)
    page.locator("#reset").click()
    page.wait_for_timeout(200)
    z, before = shown(page, "[data-shown]")
    assert not z.any()  # the prior's mean
    slider = page.locator("#sliders input").first
    moved = int(slider.get_attribute("data-latent"))
    slider.focus()
    page.keyboard.press("End")
    z, after = shown(page, "[data-shown]")
    assert z[moved] == pytest.approx(2.5758, abs=1e-3)  # 99.5 % of a standard Gaussian lie below
    assert (after - before).abs().max() > 1e-3
    with torch.no_grad():
        wanted = model.decode(z[None]).mean.flatten()
    torch.testing.assert_close(after, wanted, atol=1e-5, rtol=0)
    pixels = page.evaluate(
        "Array.from(document.getElementById('picture').getContext('2d')"
        ".getImageData(0, 0, 16, 16).data).filter((_, i) => i % 4 === 0)"
    )
    torch.testing.assert_close(torch.tensor(pixels) / 255, wanted, atol=1 / 255, rtol=0)


def test_the_most_informative_slider_comes_first(page: Any, two_runs: tuple[Path, Path]) -> None:
    start(page)
    numbers = page.evaluate(
        "Array.from(document.querySelectorAll('#sliders input')).map((e) => +e.dataset.latent)"
    )
    assert numbers == load_run(two_runs[0], "cpu").latent_statistics().ranked()


def choose(page: Any, path: Path) -> None:
    page.locator("#file").set_input_files(path)


def drop(page: Any, path: Path) -> None:
    """As from a file manager: over the section, then let go."""
    page.evaluate(
        """([content, name]) => {
            const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([bytes], name));
            const target = document.getElementById("sliders");
            const how = { bubbles: true, cancelable: true };
            for (const type of ["dragenter", "dragover", "drop"]) {
                const event = new DragEvent(type, { ...how, dataTransfer });
                // Unless the page takes it, the browser leaves the page and opens the file.
                if (target.dispatchEvent(event)) throw new Error(`${type} was left to the browser`);
            }
        }""",
        [base64.b64encode(path.read_bytes()).decode(), path.name],
    )


@pytest.mark.parametrize("give", [choose, drop])
def test_an_image_is_encoded_as_pytorch_would(
    page: Any, two_runs: tuple[Path, Path], tmp_path: Path, give: Callable[[Any, Path], None]
) -> None:
    before, _ = start(page)
    image = Image.new("RGB", (16, 16), "black")
    # Green is light and magenta dark, as eyes have it: the data is black and white.
    ImageDraw.Draw(image).rectangle((3, 4, 9, 10), fill=(0, 255, 0))
    ImageDraw.Draw(image).rectangle((11, 4, 13, 12), fill=(255, 0, 255))
    image.save(tmp_path / "drop.png")
    give(page, tmp_path / "drop.png")
    page.locator("#original:not([hidden])").wait_for()
    z, x = shown(page, "[data-shown]")
    run = load_run(two_runs[0], "cpu")
    original = run.read_images([tmp_path / "drop.png"])
    with torch.no_grad():
        wanted = run.model.encode(original).mean.flatten()
    assert (wanted - before).abs().max() > 0.1
    torch.testing.assert_close(z, wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(x, run.reconstruct(original).flatten(), atol=1e-4, rtol=0)
    for slider in page.locator("#sliders input").all():
        latent, value, step = slider.evaluate("e => [+e.dataset.latent, +e.value, +e.step]")
        assert value == pytest.approx(float(wanted[latent]), abs=step)


def test_what_is_dropped_and_is_no_image_is_told(page: Any, tmp_path: Path) -> None:
    before, _ = start(page)
    (tmp_path / "notes.txt").write_text("no image")
    drop(page, tmp_path / "notes.txt")
    page.locator("#state", has_text="no image that this browser reads").wait_for()
    after, _ = shown(page, "[data-shown]")
    assert after.tolist() == before.tolist()


def test_another_run_and_draws(page: Any, two_runs: tuple[Path, Path]) -> None:
    start(page)
    page.locator("#which").select_option("1")
    page.wait_for_timeout(300)
    page.locator("#draw").click()
    z, x = shown(page, "[data-shown]")
    assert len(z) == 5
    assert z.abs().max() > 0.1
    with torch.no_grad():
        wanted = load_run(two_runs[1], "cpu").model.decode(z[None]).mean.flatten()
    torch.testing.assert_close(x, wanted, atol=1e-5, rtol=0)


def test_tables_sort_and_explain_themselves(page: Any) -> None:
    heading = page.locator("table.numbers th button", has_text="ELBO")

    cells = "Array.from(document.querySelectorAll('td[data-metric=\"elbo\"]'))"

    def column() -> list[float]:
        return list(page.evaluate(f"{cells}.map((e) => +e.dataset.value)"))

    heading.click()
    assert column() == sorted(column(), reverse=True)
    heading.click()
    assert column() == sorted(column())
    assert heading.evaluate("e => e.closest('th').getAttribute('aria-sort')") == "ascending"
    heading.blur()
    heading.focus()
    assert "lower bound" in page.locator("#tip").inner_text()
    page.keyboard.press("Escape")
    assert not page.locator("#tip").is_visible()


def test_nothing_is_wider_than_a_phone(page: Any) -> None:
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wide) == 0
