"""The contents of the page's charts: training curves, rate and distortion, KL of latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vaezoo.report import charts, compare
from vaezoo.report.charts import Chart, Line
from vaezoo.report.numbers import display_name, format_number
from vaezoo.report.summary import Latent, RunSummary

_MAX_BARS = 64
_IN_NATS = ("elbo", "rate", "distortion", "loss")


@dataclass(frozen=True)
class CurveGroup:
    """The training curves of the runs on one data set. members: indices of these runs."""

    data: str
    members: Sequence[int]
    charts: Sequence[Chart]


def curve_groups(runs: Sequence[RunSummary]) -> list[CurveGroup]:
    """A group of charts for each data set, a chart for each term."""
    by_data: dict[str, list[int]] = {}
    for i, run in enumerate(runs):
        by_data.setdefault(run.group or run.name, []).append(i)
    groups = []
    for members in by_data.values():
        inside = [runs[i] for i in members]
        drawn = []
        for term in compare.term_names(inside):
            kinds = ("train", "validation")
            terms = [[compare.points(runs[i], kind, term) for kind in kinds] for i in members]
            drawable = zip(members, terms, strict=True)
            lines = [Line(runs[i].name, i, *pair) for i, pair in drawable if any(pair)]
            if lines:
                unit = "nats" if term in _IN_NATS else display_name(term)
                drawn.append(charts.curves(display_name(term), lines, unit))
        if drawn:
            groups.append(CurveGroup(inside[0].data, members, drawn))
    return groups


def rate_distortion(runs: Sequence[RunSummary]) -> list[Chart]:
    """A chart for each kind of likelihood: distortions of different kinds do not compare."""
    kinds: dict[tuple[str, str], list[Line]] = {}
    for i, run in enumerate(runs):
        rate, distortion = (run.numbers.get(name) for name in ("rate", "distortion"))
        if rate is None or distortion is None or rate.value is None or distortion.value is None:
            continue
        # `comparable` ends with the kind of likelihood: "data ..., density".
        kind = distortion.comparable.rpartition(", ")[2] or run.likelihood
        terms = [compare.points(run, "validation", term) for term in ("rate", "distortion")]
        path = [(a, b) for (_, a), (_, b) in zip(*terms, strict=False)]
        line = Line(run.name, i, path, [(rate.value, distortion.value)])
        kinds.setdefault((run.group, kind), []).append(line)
    return [
        charts.rate_distortion(f"{runs[lines[0].number].data}, by {kind}", lines)
        for (_, kind), lines in kinds.items()
    ]


def latent_charts(runs: Sequence[RunSummary]) -> list[tuple[int, str, Chart]]:
    """(index of the run, source of its latents, bars of their KL) for each run with latents."""
    found = []
    for i, run in enumerate(runs):
        if not run.latents:
            continue
        by_kl = all(latent.kl is not None for latent in run.latents)
        unit = "KL, nats" if by_kl else "variance of means"
        values = sorted(
            ((f"z{z.number}", (z.kl if by_kl else z.variance) or 0.0) for z in run.latents),
            key=lambda pair: -pair[1],
        )
        bars = [(f"{z}: {format_number(value)} {unit}", value) for z, value in values[:_MAX_BARS]]
        count = f"{len(bars)} of {len(values)}" if len(bars) < len(values) else f"{len(values)}"
        title = f"{run.name}: {_count_active(run.latents)}"
        chart = charts.bars(title, i, bars, f"{count} latents, the most informative first", unit)
        found.append((i, run.latents_source, chart))
    return found


def _count_active(latents: Sequence[Latent]) -> str:
    variances = [latent.variance for latent in latents if latent.variance is not None]
    if len(variances) < len(latents):  # categories have no mean that could vary
        return f"{len(latents)} latents"
    return f"{sum(variance > 0.01 for variance in variances)} of {len(latents)} active"
