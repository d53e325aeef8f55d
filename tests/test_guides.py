"""The guides work as they are written: their files are saved, their commands are run, in order."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

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
