"""The guides work as they are written: their files are saved, their commands are run, in order."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("guide", ["write_a_plugin.md", "write_a_loss.md", "bring_a_dataset.md"])
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


def test_pages_link_to_what_is_there() -> None:
    root = DOCS.parent
    for page in [*DOCS.glob("*.md"), *root.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
