"""The page: facts in, one HTML file out that loads nothing."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files

from vaezoo import __version__
from vaezoo.report import figures, svg, tables
from vaezoo.report.explorer import Explorable, Runtime, packed
from vaezoo.report.facts import RunFacts
from vaezoo.report.html import Markup, join, tag, trusted


def page(
    runs: Sequence[RunFacts],
    explorables: Sequence[Explorable] = (),
    runtime: Runtime | None = None,
) -> str:
    """The whole page. runtime: needed where there is anything to explore."""
    sections = [
        ("numbers", "Numbers", tables.numbers(runs)),
        ("curves", "Training", figures.curves(runs)),
        ("plane", "Rate and distortion", figures.planes(runs)),
        ("latents", "Latents", figures.latents(runs)),
        ("explore", "Explore", _explorer(explorables)),
        ("pictures", "Pictures", figures.pictures(runs)),
        ("options", "Options", tables.options(runs)),
        ("glossary", "What the numbers mean", tables.glossary(runs)),
    ]
    there = [(key, title, body) for key, title, body in sections if body]
    nav = tag(
        "nav",
        [tag("a", title, href=f"#{key}") for key, title, _ in there],
        aria_label="Sections",
    )
    body = [
        tag("section", tag("h2", title), content, id=key, tabindex="-1")
        for key, title, content in there
    ]
    scripts = ["report.js", *(["explorer.js"] if explorables else [])]
    code = [_asset(name) for name in scripts]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(code)),
        tag("title", _title(runs)),
        tag("style", trusted(_asset("report.css"))),
    )
    main = tag("main", _header(runs), body, _footer())
    data = [
        _block("explorables", json.dumps([e.about for e in explorables])),
        *(_block(f"decoder-{i}", packed(e.decoder)) for i, e in enumerate(explorables)),
        *(
            _block(f"encoder-{i}", packed(e.encoder))
            for i, e in enumerate(explorables)
            if e.encoder
        ),
    ]
    if explorables and runtime is not None:
        data += [
            _block("ort-script", packed(runtime.script)),
            _block("ort-wasm", packed(runtime.wasm)),
        ]
    body_tag = tag(
        "body",
        nav,
        main,
        tag("div", id="tip", role="tooltip", hidden=True),
        data if explorables else None,
        [tag("script", trusted(text)) for text in code],
    )
    return f"<!doctype html>\n{tag('html', head, body_tag, lang='en')}\n"


def _policy(scripts: Sequence[str]) -> str:
    """Nothing from anywhere, and no script but ours: a run's name cannot become one."""
    hashes = " ".join(
        "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"
        for text in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes} blob: 'wasm-unsafe-eval'; "
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _block(name: str, text: str) -> Markup:
    """Data for scripts. JSON is escaped so that nothing in it can end the element."""
    safe = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return tag("script", trusted(safe), type="application/octet-stream", id=name)


def _asset(name: str) -> str:
    return (files("vaezoo.report") / "assets" / name).read_text(encoding="utf-8")


def _title(runs: Sequence[RunFacts]) -> str:
    return runs[0].name if len(runs) == 1 else f"{len(runs)} runs side by side"


def _header(runs: Sequence[RunFacts]) -> Markup:
    chips = [
        tag(
            "label",
            tag("input", type="checkbox", checked=True, data_toggle=i),
            tag("i", class_=f"swatch {svg.color(i)}"),
            tag("b", run.name),
            # A model often has the name of its loss, and a run that of its model.
            tag("span", " · ".join(dict.fromkeys((run.model, run.loss, run.data)))),
            class_="chip",
        )
        for i, run in enumerate(runs)
    ]
    remarks = [tag("li", tag("b", run.name), " ", remark) for run in runs for remark in run.remarks]
    told = tag(
        "details",
        tag("summary", f"{len(remarks)} remark{'s' if len(remarks) > 1 else ''}"),
        tag("ul", remarks),
        class_="remarks",
    )
    return tag(
        "header",
        tag("p", "vaezoo report", class_="eyebrow"),
        tag("h1", _title(runs)),
        tag("div", chips, class_="chips", role="group", aria_label="Runs shown in the charts"),
        told if remarks else None,
    )


def _explorer(explorables: Sequence[Explorable]) -> Markup | None:
    if not explorables:
        return None
    choices = [tag("option", e.about["name"], value=i) for i, e in enumerate(explorables)]
    screen = tag(
        "div",
        tag(
            "canvas", id="picture", width="8", height="8", role="img", aria_label="Decoded picture"
        ),
        tag("p", "starting …", id="state", role="status"),
        tag("div", tag("canvas", id="dropped", width="8", height="8"), id="original", hidden=True),
        class_="screen",
    )
    controls = tag(
        "div",
        tag("label", "Run ", tag("select", choices, id="which"), class_="field"),
        tag(
            "label",
            "Class ",
            tag("select", id="class"),
            class_="field",
            id="class-field",
            hidden=True,
        ),
        tag(
            "div",
            tag("button", "Prior's mean", id="reset", type="button"),
            tag("button", "Draw from the prior", id="draw", type="button"),
            tag(
                "label",
                "Encode an image …",
                tag("input", type="file", id="file", accept="image/*"),
                class_="button",
                id="encode",
            ),
            class_="buttons",
        ),
        tag("div", id="sliders"),
        tag("button", "Show all latents", id="more", type="button", hidden=True),
        class_="controls",
    )
    note = (
        "The decoder itself, running in this page: move a latent and see what it changes. Drop an "
        "image on this section, and the encoder finds its latents. Nothing leaves the page."
    )
    return join(tag("p", note, class_="note"), tag("div", screen, controls, id="explorer"))


def _footer() -> Markup:
    return tag(
        "footer",
        f"Made by vaezoo {__version__}. This file is complete: it loads nothing, and can be kept "
        "or sent as it is.",
    )
