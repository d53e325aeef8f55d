"""Render the report: one HTML file that loads nothing from anywhere."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files

from . import charts, compare, tables
from .compare import format_number
from .explorer import ExplorableRun, OnnxRuntimeWeb
from .summary import RunSummary


def render(
    runs: Sequence[RunSummary],
    explorable: Sequence[ExplorableRun] = (),
    runtime: OnnxRuntimeWeb | None = None,
) -> str:
    """The page as text. runtime: needed if there is an explorable run.

    Jinja2 escapes everything that comes from a run folder.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("vaezoo_report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.globals.update(color=charts.color, width=charts.WIDTH, height=charts.HEIGHT)
    environment.filters.update(png_uri=_png_uri, png_size=_png_size, number=format_number)
    scripts = [_asset("report.js"), *([_asset("explorer.js")] if explorable else [])]
    columns = tables.columns(runs)
    rows = tables.number_rows(runs, columns)
    page = environment.get_template("page.html").render(
        title=runs[0].name if len(runs) == 1 else f"{len(runs)} runs side by side",
        version=version("vaezoo"),
        policy=_content_security_policy(scripts),
        style=_asset("report.css"),
        scripts=scripts,
        runs=runs,
        columns=columns,
        number_rows=rows,
        has_best=any(cell.is_best for row in rows for cell in row.cells),
        seed_rows=tables.seed_rows(runs, columns),
        curve_groups=charts.curve_groups(runs),
        rate_distortion=charts.rate_distortion(runs),
        latent_charts=charts.latent_charts(runs),
        option_rows=tables.option_rows(runs),
        num_differing=len(compare.differing(runs)),
        explorable=explorable,
        blocks=_blocks(explorable, runtime),
    )
    return page.strip() + "\n"


def _blocks(
    explorable: Sequence[ExplorableRun], runtime: OnnxRuntimeWeb | None
) -> list[tuple[str, str]]:
    """(element id, text) of the data that the explorer's script reads."""
    if not explorable:
        return []
    description = json.dumps([run.description for run in explorable])
    # No character that could end the script element.
    for character in "<>&":
        description = description.replace(character, f"\\u{ord(character):04x}")
    contents: list[tuple[str, bytes | None]] = []
    for i, run in enumerate(explorable):
        contents += [(f"decoder-{i}", run.decoder), (f"encoder-{i}", run.encoder)]
    if runtime is not None:
        contents += [("ort-script", runtime.script), ("ort-wasm", runtime.wasm)]
    blocks = [("explorables", description)]
    for name, content in contents:
        if content is not None:  # without a time, so that the same bytes give the same text
            compressed = gzip.compress(content, compresslevel=9, mtime=0)
            blocks.append((name, base64.b64encode(compressed).decode()))
    return blocks


def _content_security_policy(scripts: Sequence[str]) -> str:
    """Allow only these scripts, and no network."""
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()) for text in scripts]
    hashes = " ".join(f"'sha256-{digest.decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {hashes} blob: 'wasm-unsafe-eval'; "
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _asset(name: str) -> str:
    return (files("vaezoo_report") / "assets" / name).read_text(encoding="utf-8")


def _png_uri(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def _png_size(content: bytes) -> tuple[int, int]:
    """Width and height, from the PNG header."""
    return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
