"""The figures of the page: curves, planes, bars, and the pictures that a run drew."""

from __future__ import annotations

from collections.abc import Sequence

from vaezoo.report import compare, svg
from vaezoo.report.facts import Latent, RunFacts, Strip, data_uri
from vaezoo.report.html import Markup, join, tag
from vaezoo.report.spelling import spelled

_MOST_BARS = 64
_IN_NATS = ("elbo", "rate", "distortion", "loss")


def curves(runs: Sequence[RunFacts]) -> Markup | None:
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
                unit = "nats" if term in _IN_NATS else spelled(term)
                charts.append(svg.curves(spelled(term), lines, unit))
        if charts:
            heading = tag("h3", f"On {inside[0].data}") if len(together) > 1 else None
            parts.append(join(heading, _legend(runs, members), tag("div", charts, class_="charts")))
    if not parts:
        return None
    note = (
        "Lines are training, dots held-out data. Nats are per example; what else a loss reports is "
        "in a unit of its own."
    )
    return join(tag("p", note, class_="note"), parts)


def _legend(runs: Sequence[RunFacts], members: Sequence[int]) -> Markup | None:
    """Which colour is whose, beside the charts: the head of the page is far away on a phone."""
    if len(members) < 2:
        return None
    entries = [
        tag("span", tag("i", class_=f"swatch {svg.color(i)}"), runs[i].name, data_run=i)
        for i in members
    ]
    return tag("p", entries, class_="legend")


def planes(runs: Sequence[RunFacts]) -> Markup | None:
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


def latents(runs: Sequence[RunFacts]) -> Markup | None:
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


def pictures(runs: Sequence[RunFacts]) -> Markup | None:
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
        # The cards beside it have them.
        told = f"{run.no_strips[:1].upper()}{run.no_strips[1:]}."
        return tag("p", told, class_="note") if run.no_strips else None
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
    caption = tag(
        "figcaption",
        f"Traversals, {run.strips_of}: one latent a row goes through the prior's quantiles",
    )
    return tag("figure", tag("div", rows, class_="strips"), caption)


def _of(strip: Strip) -> str:
    return "" if strip.kl is None else f" {strip.kl:.2f} nats"
