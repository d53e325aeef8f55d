"""Every number of a report, once more from the run folders.

Also a script: REPORT RUN... [FILE.json], a file with what `vaezoo evaluate RUN... --json` printed.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import yaml

from vaezoo_report.compare import format_number
from vaezoo_report.summary import names_of

VOID = {"br", "img", "input", "meta"}


@dataclass
class Element:
    name: str
    attributes: dict[str, str]
    path: tuple[str, ...]
    text: str = ""
    children: list[Element] = field(default_factory=list)


class Page(HTMLParser):
    """The elements of a page, each with its whole text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[Element] = []
        self.elements: list[Element] = []
        self.feed(text)
        assert not self.open, f"not closed: {[e.name for e in self.open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        path = tuple(e.attributes.get("id") or e.name for e in self.open)
        element = Element(tag, {k: v or "" for k, v in attrs}, path)
        self.elements.append(element)
        if self.open:
            self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().name == tag

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data

    def all(self, name: str, *inside: str) -> list[Element]:
        return [e for e in self.elements if e.name == name and {*inside} <= {*e.path}]


def recompute(
    text: str, folders: Mapping[str, Path], measured: Mapping[str, dict[str, Any]] | None = None
) -> int:
    """Hold the page against the folders; how many numbers were compared.

    measured: what `vaezoo evaluate RUN --json` says of each run, for a page of such numbers.
    """
    page = Page(text)
    summaries = {n: json.loads((f / "summary.json").read_text()) for n, f in folders.items()}
    numbers = {n: {**summaries[n], **_values(summaries[n])} for n in folders}
    for name, evaluation in (measured or {}).items():
        # What was not measured anew is the summary's.
        numbers[name] |= _values(evaluation)
    count = _cells(page, numbers)
    count += _curves(page, folders)
    count += _planes(page, numbers)
    count += _latents(page, summaries)
    return count + _options(page, folders)


def _values(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: number["value"] for name, number in found.get("metrics", {}).items()}


def _cells(page: Page, numbers: Mapping[str, Mapping[str, Any]]) -> int:
    """The number of a run, and the mean and standard deviation of runs."""
    count = 0
    for cell in page.all("td", "numbers"):
        if not cell.attributes["data-value"]:
            continue
        value, metric = float(cell.attributes["data-value"]), cell.attributes["data-metric"]
        assert cell.text.startswith(format_number(value))
        count += 1
        if "data-of" in cell.attributes:
            wanted = numbers[cell.attributes["data-of"]][metric]
            assert value == wanted, (metric, value, wanted)
            continue
        each = [numbers[name].get(metric) for name in json.loads(cell.attributes["data-over"])]
        there = [one for one in each if one is not None]
        assert abs(value - sum(there) / len(there)) <= 1e-9 * abs(value), (metric, value, there)
        if len(there) > 1:
            std = format_number(statistics.stdev(there), 2)
            assert cell.text.endswith(f" ± {std}"), (cell.text, there)
            count += 1
    return count


def _curves(page: Page, folders: Mapping[str, Path]) -> int:
    """Held-out dots: what they say is a line of metrics.jsonl."""
    said = [e.text for e in page.all("title", "curves") if "held out" in e.text]
    known = set()
    for name, folder in folders.items():
        for text in (folder / "metrics.jsonl").read_text().splitlines():
            line = json.loads(text)
            if line["kind"] == "validation":
                for value in line["terms"].values():
                    if value is not None:
                        step = format_number(float(line["step"]))
                        known.add(f"{name}: {format_number(value)} held out, step {step}")
    assert said
    assert {*said} <= known
    return len(said)


def _planes(page: Page, summaries: Mapping[str, Mapping[str, Any]]) -> int:
    said = [e.text for e in page.all("title", "plane") if ": rate" in e.text]
    known = {
        f"{name}: rate {format_number(s['rate'])}, distortion {format_number(s['distortion'])}, "
        f"ELBO {format_number(-(s['rate'] + s['distortion']))}"
        for name, s in summaries.items()
        if s["rate"] is not None
    }
    assert {*said} == known
    return len(said)


def _latents(page: Page, summaries: Mapping[str, dict[str, list[dict[str, float]]]]) -> int:
    """Bars of runs whose summary has their KL; older ones have none, and are measured."""
    figures = [e for e in page.elements if e.name == "figure" and "latents" in e.path]
    count = 0
    for figure in figures:
        names = sorted(summaries, key=len, reverse=True)
        name = next(name for name in names if figure.text.startswith(f"{name}: "))
        known = {
            f"z{row['latent']}: {format_number(row['rate'])} KL, nats"
            for row in summaries[name].get("latents", [])
            if row["rate"] is not None
        }
        said = re.findall(r"z\d+: [^ ]+ KL, nats", figure.text)
        if known and said:
            assert {*said} <= known
            heights = [float(text.split()[1].replace("−", "-")) for text in said]
            assert heights == sorted(heights, reverse=True)
            count += len(said)
    return count


def _options(page: Page, folders: Mapping[str, Path]) -> int:
    configs = [yaml.safe_load((folder / "config.yaml").read_text()) for folder in folders.values()]
    (table,) = [e for e in page.elements if e.attributes.get("class", "").startswith("options")]
    body = next(child for child in table.children if child.name == "tbody")
    count = 0
    for row in body.children:
        heading, *cells = row.children
        section, _, key = heading.text.partition(".")
        values = [config[section].get(key, ...) for config in configs]
        differs = any(value != values[0] for value in values)
        assert row.attributes["class"] == ("differs" if differs else "same")
        for value, cell in zip(values, cells, strict=True):
            words = {None: "none", True: "on", False: "off"}
            if value is ...:
                assert cell.text == "–"
            elif value is None or isinstance(value, bool):
                assert cell.text == words[value]
            elif isinstance(value, list):
                assert cell.text == (", ".join(map(str, value)) or "none")
            else:
                assert cell.text == str(value)
            count += 1
    return count


if __name__ == "__main__":
    words = [word for word in sys.argv[2:] if not word.endswith(".json")]
    given = dict(zip(names_of([*map(Path, words)]), map(Path, words), strict=True))
    anew = {}
    for word in sys.argv[2:]:
        if word.endswith(".json"):  # of `vaezoo evaluate`, in the order of the runs
            anew = dict(zip(given, json.loads(Path(word).read_text()), strict=True))
    text = Path(sys.argv[1]).read_text(encoding="utf-8")
    print(recompute(text, given, anew), "numbers agree")
