"""The page: facts in, one HTML file out that loads nothing."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from vaezoo import __version__
from vaezoo.registry import registry
from vaezoo.report import compare, svg
from vaezoo.report.explorer import Explorable, Runtime, packed
from vaezoo.report.facts import Latent, RunFacts, Strip, data_uri
from vaezoo.report.html import Markup, join, tag, trusted
from vaezoo.specs import MetricSpec

_MOST_BARS = 64
_SPELLED = {w: w.upper() for w in ("elbo", "mse", "psnr", "ssim", "fid", "kid", "mig", "kl")} | {
    "r2": "R²"
}
"""Words of metrics' names as people write them."""

_TRAINING = {
    "images_per_second": ("images/s", "training examples a second, validation left out", ""),
    "wall_seconds": ("seconds", "of training, with validation and checkpoints", "s"),
    "steps": ("steps", "training steps taken", ""),
    "parameters": ("parameters", "how many numbers were trained", ""),
}


_STARRED = (
    " ★ is the best among the runs that it compares with: same data, same kind of likelihood."
)


class _Metric:
    """What the page says of a column: its heading, what it means, which direction is better."""

    def __init__(self, name: str) -> None:
        self.name, self.better = name, "neither"
        self.heading = " ".join(_SPELLED.get(word, word) for word in name.split("_"))
        self.unit, self.meaning = "", "no plugin here knows it"
        if name in _TRAINING:
            self.heading, self.meaning, self.unit = _TRAINING[name]
            return
        spec = next((s for s in registry().specs("metric") if s.name == name), None)
        if isinstance(spec, MetricSpec):
            self.better, self.unit = spec.better, spec.unit
            self.meaning = f"{spec.summary}: {spec.formula}. {spec.paper}".rstrip(". ") + "."

    @property
    def arrow(self) -> str:
        return {"higher": " ↑", "lower": " ↓"}.get(self.better, "")

    @property
    def explained(self) -> str:
        direction = {"higher": " Higher is better.", "lower": " Lower is better."}
        unit = f" In {self.unit}." if self.unit else ""
        return f"{self.meaning}{unit}{direction.get(self.better, '')}"


def page(
    runs: Sequence[RunFacts],
    explorables: Sequence[Explorable] = (),
    runtime: Runtime | None = None,
) -> str:
    """The whole page. runtime: needed where there is anything to explore."""
    sections = [
        ("numbers", "Numbers", _numbers(runs)),
        ("curves", "Training", _curves(runs)),
        ("plane", "Rate and distortion", _planes(runs)),
        ("latents", "Latents", _latents(runs)),
        ("explore", "Explore", _explorer(explorables)),
        ("pictures", "Pictures", _pictures(runs)),
        ("options", "Options", _options(runs)),
        ("glossary", "What the numbers mean", _glossary(runs)),
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


def _columns(runs: Sequence[RunFacts]) -> list[_Metric]:
    """Of every number that at least one run has."""
    names = dict.fromkeys(name for run in runs for name in run.numbers)
    has = [n for n in names if any(r.numbers[n].value is not None for r in runs if n in r.numbers)]
    last = [name for name in has if name in _TRAINING]
    return [_Metric(name) for name in [*(n for n in has if n not in _TRAINING), *last]]


def _numbers(runs: Sequence[RunFacts]) -> Markup | None:
    metrics = _columns(runs)
    if not metrics:
        return None
    headings = [
        tag(
            "th",
            tag(
                "button",
                metric.heading,
                metric.arrow,
                data_sort=i + 1,
                data_tip=metric.explained,
                aria_describedby=f"about-{metric.name}",
            ),
            scope="col",
            aria_sort="none",
        )
        for i, metric in enumerate(metrics)
    ]
    winners = {metric.name: compare.best(runs, metric.name, metric.better) for metric in metrics}
    rows = []
    for i, run in enumerate(runs):
        cells = [_cell(run, i, metric, i in winners[metric.name]) for metric in metrics]
        name = tag("th", tag("i", class_=f"swatch {svg.color(i)}"), run.name, scope="row")
        rows.append(tag("tr", name, cells, data_run=i))
    first = tag("th", tag("button", "run", data_sort=0), scope="col", aria_sort="none")
    table = tag(
        "table",
        tag("caption", "Held-out numbers of each run", class_="hidden"),
        tag("thead", tag("tr", first, headings)),
        tag("tbody", rows),
        class_="numbers",
    )
    note = tag(
        "p",
        "On held-out data. Choose a heading to sort by it, point at it for what it means."
        + (_STARRED if any(winners.values()) else ""),
        class_="note",
    )
    return join(
        note, tag("div", table, class_="scroll", tabindex="0", role="region", aria_label="Numbers")
    )


def _cell(run: RunFacts, i: int, metric: _Metric, winner: bool) -> Markup:
    number = run.numbers.get(metric.name)
    if number is None or number.value is None:
        why = (number.note if number else "") or "not measured"
        dash = tag("span", "–", data_tip=why, tabindex="0", aria_label=f"none: {why}")
        return tag("td", dash, data_value="", class_="none")
    spread = f"± {svg.show(number.spread)}" if number.spread is not None else None
    told = " ".join(filter(None, (spread, number.note)))
    return tag(
        "td",
        svg.show(number.value),
        tag("small", f" {spread}") if spread else None,
        tag("span", " ★", class_="star", aria_label="best") if winner else None,
        data_value=repr(number.value),
        data_metric=metric.name,
        data_of=run.name,
        data_tip=told or None,
    )


def _curves(runs: Sequence[RunFacts]) -> Markup | None:
    parts = []
    together = compare.groups(runs)
    for members in together.values():
        inside = [runs[i] for i in members]
        charts = []
        for term in compare.term_names(inside):
            lines = [
                svg.Line(
                    runs[i].name,
                    i,
                    compare.points(runs[i], "train", term),
                    compare.points(runs[i], "validation", term),
                )
                for i in members
            ]
            lines = [line for line in lines if line.points or line.dots]
            if lines:
                charts.append(svg.curves(term.replace("_", " "), lines))
        if charts:
            heading = tag("h3", f"On {inside[0].data}") if len(together) > 1 else None
            parts.append(join(heading, tag("div", charts, class_="charts")))
    if not parts:
        return None
    note = "Nats per example. Lines are training, dots held-out data."
    return join(tag("p", note, class_="note"), parts)


def _planes(runs: Sequence[RunFacts]) -> Markup | None:
    """One for each kind of number: distortions of different likelihoods do not compare."""
    kinds: dict[tuple[str, str], list[svg.Line]] = {}
    for i, run in enumerate(runs):
        rate, distortion = (run.numbers.get(name) for name in ("rate", "distortion"))
        if rate is None or distortion is None or rate.value is None or distortion.value is None:
            continue
        # The end of what measured numbers say of themselves: "data ..., density".
        kind = distortion.comparable.rpartition(", ")[2] or run.likelihood
        key = (run.group, kind)
        ways = [compare.points(run, "validation", term) for term in ("rate", "distortion")]
        way = [(a, b) for (_, a), (_, b) in zip(*ways, strict=False)]
        line = svg.Line(run.name, i, way, [(rate.value, distortion.value)])
        kinds.setdefault(key, []).append(line)
    if not kinds:
        return None
    charts = []
    for (_, kind), lines in kinds.items():
        charts.append(svg.plane(f"{runs[lines[0].number].data}, by {kind}", lines))
    note = (
        "What the latents cost against what is then left to tell. A dashed diagonal is one ELBO: "
        "down and to the left is better. Probabilities and densities do not compare, so each kind "
        "of likelihood has a plane of its own."
    )
    return join(tag("p", note, class_="note"), tag("div", charts, class_="charts wide"))


def _latents(runs: Sequence[RunFacts]) -> Markup | None:
    charts = []
    for i, run in enumerate(runs):
        if not run.latents:
            continue
        by_kl = all(latent.kl is not None for latent in run.latents)
        unit = "KL, nats" if by_kl else "variance of means"
        values = sorted(
            ((f"z{z.number}", (z.kl if by_kl else z.variance) or 0.0) for z in run.latents),
            key=lambda pair: -pair[1],
        )
        told = [(f"{name}: {svg.show(value)} {unit}", value) for name, value in values[:_MOST_BARS]]
        title = f"{run.name}: {_how_many(run.latents)}"
        of = f"{len(told)} of {len(values)}" if len(told) < len(values) else f"{len(values)}"
        chart = svg.bars(title, i, told, f"{of} latents, the most informative first", unit)
        charts.append(tag("div", chart, data_run=i, title=run.latents_from))
    if not charts:
        return None
    note = (
        "The KL of each latent to its prior, the most informative first; where a model's KL is no "
        "sum over latents, the variance of its posterior means. A latent is active when its "
        "posterior mean varies by more than 0.01 over the data."
    )
    return join(tag("p", note, class_="note"), tag("div", charts, class_="charts"))


def _how_many(latents: Sequence[Latent]) -> str:
    variances = [latent.variance for latent in latents if latent.variance is not None]
    if len(variances) < len(latents):  # categories have no mean that could vary
        return f"{len(latents)} latents"
    return f"{sum(variance > 0.01 for variance in variances)} of {len(latents)} active"


def _pictures(runs: Sequence[RunFacts]) -> Markup | None:
    cards = []
    for i, run in enumerate(runs):
        parts = [
            _picture("Originals above reconstructions", run.reconstructions),
            _picture("Samples of the prior", run.samples),
            _traversal(run),
        ]
        if any(parts):
            name = tag("h3", tag("i", class_=f"swatch {svg.color(i)}"), run.name)
            cards.append(tag("article", name, parts, class_="card", data_run=i))
    return tag("div", cards, class_="cards") if cards else None


def _picture(title: str, content: bytes | None) -> Markup | None:
    if content is None:
        return None
    return tag("figure", _image(content, title), tag("figcaption", title))


def _image(content: bytes, alt: str) -> Markup:
    """With its size, so that nothing moves when it is there. The size stands in a PNG's header."""
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    return tag("img", src=data_uri(content), alt=alt, width=width, height=height)


def _traversal(run: RunFacts) -> Markup | None:
    if not run.strips:
        return None
    rows = [
        tag(
            "div",
            tag("span", f"z{strip.number}", tag("small", _of(strip)), class_="which"),
            _image(
                strip.png,
                f"latent {strip.number} from {svg.show(strip.values[0])} "
                f"to {svg.show(strip.values[-1])}",
            ),
            class_="strip",
        )
        for strip in run.strips
    ]
    caption = tag("figcaption", f"Traversals, {run.strips_of}")
    return tag("figure", tag("div", rows, class_="strips"), caption)


def _of(strip: Strip) -> str:
    return "" if strip.kl is None else f" {strip.kl:.2f} nats"


def _options(runs: Sequence[RunFacts]) -> Markup | None:
    names = compare.option_names(runs)
    if not names:
        return None
    different = set(compare.differing(runs))
    rows = []
    for name in names:
        usual = compare.usual(runs, name)
        cells = []
        for i, run in enumerate(runs):
            value = run.options.get(name)
            marks = "none" if name not in run.options else "other" if value != usual else None
            cells.append(tag("td", _option(run.options, name), data_run=i, class_=marks))
        kind = "differs" if name in different else "same"
        rows.append(tag("tr", tag("th", name, scope="row"), cells, class_=kind))
    headings = [
        tag("th", tag("i", class_=f"swatch {svg.color(i)}"), run.name, scope="col", data_run=i)
        for i, run in enumerate(runs)
    ]
    table = tag(
        "table",
        tag("caption", "Options of each run", class_="hidden"),
        tag("thead", tag("tr", tag("th", "option", scope="col"), headings)),
        tag("tbody", rows),
        class_="options",
    )
    switch = tag(
        "label",
        tag("input", type="checkbox", id="only-differing", checked=bool(different)),
        f" only the {len(different)} that differ, of {len(names)}",
        class_="switch",
    )
    scroll = tag("div", table, class_="scroll", tabindex="0", role="region", aria_label="Options")
    return join(switch if len(runs) > 1 else None, scroll)


def _option(options: dict[str, Any], name: str) -> str:
    if name not in options:
        return "–"
    value = options[name]
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if value is None or isinstance(value, bool):
        return {None: "none", True: "on", False: "off"}[value]
    return str(value)


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


def _glossary(runs: Sequence[RunFacts]) -> Markup | None:
    metrics = _columns(runs)
    entries = [
        join(tag("dt", m.heading, m.arrow), tag("dd", m.explained, id=f"about-{m.name}"))
        for m in metrics
    ]
    return tag("dl", entries, class_="glossary") if entries else None


def _footer() -> Markup:
    return tag(
        "footer",
        f"Made by vaezoo {__version__}. This file is complete: it loads nothing, and can be kept "
        "or sent as it is.",
    )
