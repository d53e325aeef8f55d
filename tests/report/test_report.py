"""A report says what the run folders say, whatever they say, and loads nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from vaezoo.cli.main import main
from vaezoo.errors import RunError
from vaezoo.evaluation.metric import MetricResult
from vaezoo.plugins.sources import import_file
from vaezoo_report import charts, tables
from vaezoo_report.compare import best, differing, format_number
from vaezoo_report.explorer import ExplorableRun, OnnxRuntimeWeb
from vaezoo_report.page import render
from vaezoo_report.summary import (
    Latent,
    RunSummary,
    TraversalRow,
    names_of,
    number_in,
    read_runs,
)

helper: Any = import_file(str(Path(__file__).parent / "recompute.py"))

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


@pytest.fixture(scope="module")
def text(two_runs: tuple[Path, Path]) -> str:
    return render(read_runs(two_runs, "cpu"))


def test_every_number_is_that_of_the_run_folders(text: str, two_runs: tuple[Path, Path]) -> None:
    folders = {path.name: path for path in two_runs}
    assert helper.recompute(text, folders) > 60


def test_a_wrong_number_is_found(text: str, two_runs: tuple[Path, Path]) -> None:
    """The comparison above can fail: in a cell, at a dot, in a plane, at a bar, in an option."""
    folders = {path.name: path for path in two_runs}
    for pattern in (
        r'data-value="(\d+\.\d+)"',
        r"first: ([^ ]+) held out",
        r"rate ([^ ]+), distortion",
        r"z0: ([^ ]+) KL",
        r"<td data-run=\"0\">(16)</td>",
    ):
        found = re.search(pattern, text)
        assert found, pattern
        wrong = text[: found.start(1)] + "7.5" + text[found.end(1) :]
        with pytest.raises(AssertionError):
            helper.recompute(wrong, folders)


def test_the_page_loads_nothing(text: str) -> None:
    parsed = helper.Page(text)
    for element in parsed.elements:
        for key in ("src", "href", "action", "srcset", "data"):
            value = element.attributes.get(key, "")
            assert value.startswith(("data:image/png;base64,", "#")) or not value, value
    assert not re.search(r"@import|url\(|https?://", text.partition("</style>")[0])


def test_only_our_scripts_may_run(text: str) -> None:
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    scripts = re.findall(r"<script>(.*?)</script>", text, flags=re.S)
    assert len(scripts) == 1
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"sha256-{digest}" in unescape(policy)
    assert "default-src" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]


def test_what_a_stranger_writes_stays_text(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    """In the name of the folder, the model, options, terms, notes: in every place of the page."""
    run = tmp_path / EVIL.replace("/", "\\")
    shutil.copytree(two_runs[0], run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"]["name"] = config["loss"]["name"] = config["data"]["name"] = EVIL
    config["model"][EVIL] = EVIL
    config["model"]["likelihood"] = EVIL
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    summary = json.loads((run / "summary.json").read_text())
    summary["psnr"] = None
    summary["notes"]["psnr"] = EVIL
    summary["metrics"] = {
        EVIL: {"value": 1.0, "note": EVIL, "comparable": f"x, {EVIL}", "uncertainty": 0.5},
        "distortion": {"value": 1.0, "note": EVIL, "comparable": f"x, {EVIL}"},
    }
    (run / "summary.json").write_text(json.dumps(summary))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line["terms"][EVIL] = 2.0
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))

    facts = read_runs([run, two_runs[1]], "cpu")
    facts[0].traversal, facts[0].traversal_source = facts[1].traversal, EVIL
    text = render(facts)
    parsed = helper.Page(text)
    names = [element.name for element in parsed.elements]
    assert names.count("script") == 1
    for element in parsed.elements:
        assert not [key for key in element.attributes if key.startswith("on")]
        assert element.name != "img" or element.attributes["src"].startswith("data:image/png")
    assert text.count("&lt;script&gt;alert(1)") > 10


def hostile_run(seed: int, png: bytes, group: str = EVIL) -> RunSummary:
    """A run in which every text that a folder may hold is hostile; the seed is all that differs."""
    number = MetricResult(1.5, 0.5, EVIL, EVIL, EVIL, EVIL, 3, EVIL, "higher", EVIL)
    missing = MetricResult(None, note=EVIL)
    terms = {EVIL: 2.0, "elbo": 1.0, "rate": 1.0, "distortion": 1.0}
    return RunSummary(
        name=f"{seed}{EVIL}",
        group=group,
        **dict.fromkeys(("model", "loss", "data", "likelihood"), EVIL),
        config={EVIL: {EVIL: EVIL}, "train": {"seed": seed}},
        options={EVIL: EVIL, f"list {EVIL}": [EVIL], "train.seed": seed},
        numbers={
            EVIL: number,
            "elbo": number,
            "rate": number,
            "distortion": number,
            "steps": number,
            f"none {EVIL}": number if seed else missing,
        },
        history=[
            {"kind": kind, "step": step, "terms": terms}
            for kind in ("train", "validation")
            for step in (1, 2)
        ],
        latents=[Latent(0, 1.0, 0.5)],
        latents_source=EVIL,
        samples=png,
        reconstructions=png,
        value_range=EVIL,
        traversal=[TraversalRow(0, 1.0, [0.0, 1.0], png)] if seed else [],
        traversal_source=EVIL,
        no_traversal=EVIL,
        remarks=[EVIL],
    )


def test_no_field_of_the_page_lets_a_hostile_text_become_an_element(
    two_runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    png = (two_runs[0] / "samples.png").read_bytes()
    # Its heading and its explanation, as a plugin may give them to a metric.
    monkeypatch.setitem(tables._TRAINING, "steps", (EVIL, EVIL))
    runs = [*(hostile_run(seed, png) for seed in (0, 1)), hostile_run(2, png, "other data")]
    assert "<script>alert" not in render(runs[:1])  # its name is the title
    description = {
        **dict.fromkeys(("name", "domain", "why_not"), f"{EVIL}</script>&"),
        "class_names": [EVIL],
    }
    explorable = ExplorableRun(description, b"decoder", b"encoder")
    text = render(runs, [explorable], OnnxRuntimeWeb(EVIL.encode(), b"wasm"))
    parsed = helper.Page(text)  # every element that opens is closed
    scripts = parsed.all("script")
    ids = ["explorables", "decoder-0", "encoder-0", "ort-script", "ort-wasm", "", ""]
    assert [script.attributes.get("id", "") for script in scripts] == ids
    assert json.loads(scripts[0].text) == [description]
    assert EVIL not in text
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    images = [element.attributes["src"] for element in parsed.all("img")]
    assert len(images) == 8
    assert all(source.startswith("data:image/png") for source in images)
    for element in parsed.elements:
        assert not [key for key in element.attributes if key.startswith("on")]
    # Each section has the text, as text or in an attribute: it was looked at.
    for section in parsed.all("section"):
        inside = [e for e in parsed.elements if section.attributes["id"] in e.path]
        texts = [section.text, *(v for e in inside for v in e.attributes.values())]
        assert any(EVIL in text for text in texts), section.attributes["id"]
    over = [e.attributes["data-over"] for e in parsed.all("td") if "data-over" in e.attributes]
    assert over
    assert all(json.loads(names) == [run.name for run in runs[:2]] for names in over)


def test_whatever_is_broken_is_a_remark(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    """Half a run is shown as half a run, and says what it lacks."""
    for name, break_it in {
        "weights": lambda run: (run / "model.safetensors").write_bytes(b"no"),
        "summary": lambda run: (run / "summary.json").write_text('{"elbo": "12", "notes": 3}'),
        "line": lambda run: (run / "metrics.jsonl").open("a").write('{"kind": "tra\n'),
        "record": lambda run: (run / "run.json").write_text("[]"),
        "picture": lambda run: (run / "samples.png").write_bytes(b"GIF89a"),
        "nothing": lambda run: [path.unlink() for path in run.glob("*.json*")],
        "config": lambda run: (run / "config.yaml").write_text("model: [1"),
    }.items():
        run = tmp_path / name
        shutil.copytree(two_runs[0], run)
        break_it(run)
        (facts,) = read_runs([run], "cpu")
        assert facts.remarks, name
        assert str(tmp_path) not in render([facts])
        assert all("\n" not in remark for remark in facts.remarks)
    assert facts.remarks == ["not read: config.yaml is not YAML, line 1"]


def test_the_lines_of_a_stranger(
    two_runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line may be anything, the last one half there, and the file larger than any run's."""
    run = tmp_path / "run"
    shutil.copytree(two_runs[0], run)
    (whole,) = read_runs([run], "cpu")
    with (run / "metrics.jsonl").open("a") as file:
        file.write(f'{{"kind": "train", "step": {10**400}, "terms": {{"elbo": 1}}}}\n')
        file.write(f"{'[' * 100_000}\n")
        file.write('{"kind": "train", "step": 9, "terms": {"elbo": 1}}')  # being written
    (facts,) = read_runs([run], "cpu")
    assert facts.history == whole.history
    assert "2 lines of metrics.jsonl could not be read" in facts.remarks
    assert render([facts])
    monkeypatch.setattr("vaezoo.checkpoint.folder._LARGEST_METRICS", 1000)
    (facts,) = read_runs([run], "cpu")
    assert facts.history == []
    assert any("larger than 1,000 bytes" in remark for remark in facts.remarks)


def test_numbers_of_strangers() -> None:
    assert number_in(3) == 3.0
    for bad in (True, "3", None, float("nan"), float("inf"), [1], 10**400):
        assert number_in(bad) is None


def test_runs_are_called_apart(tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "run", tmp_path / "b" / "run", tmp_path / "b" / "other"]
    assert names_of(paths) == ["a/run", "b/run", "b/other"]
    assert names_of([Path("x/run")]) == ["run"]
    with pytest.raises(RunError, match="twice"):
        names_of([tmp_path / "a", tmp_path / "b" / ".." / "a"])


def test_stars_only_among_what_compares() -> None:
    def run(value: float | None, comparable: str) -> RunSummary:
        return RunSummary("r", numbers={"elbo": MetricResult(value, comparable=comparable)})

    runs = [run(1, "a"), run(3, "a"), run(9, "b"), run(None, "a"), run(2, ""), run(8, "")]
    assert best(runs, "elbo", "higher") == {1}
    assert best(runs, "elbo", "lower") == {0}
    assert best(runs, "elbo", "neither") == set()
    assert best([*runs, run(3, "a")], "elbo", "higher") == {1, 6}


def test_only_latents_with_a_mean_are_called_active(two_runs: tuple[Path, Path]) -> None:
    facts = read_runs(two_runs[:1], "cpu")
    # Just above and below 0.01, which both standard deviations are far above.
    facts[0].latents = [Latent(0, 1.0, 0.0101), Latent(1, 0.1, 0.0099)]
    assert f"{facts[0].name}: 1 of 2 active" in render(facts)
    facts[0].latents = [Latent(0, 1.0, None), Latent(1, 0.1, None)]
    assert f"{facts[0].name}: 2 latents" in render(facts)


def test_latents_measured_for_the_page_have_variances(
    two_runs: tuple[Path, Path], tmp_path: Path
) -> None:
    shutil.copytree(two_runs[0], tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    (tmp_path / "run" / "summary.json").write_text(json.dumps({**summary, "latents": []}))
    (facts,) = read_runs([tmp_path / "run"], "cpu")
    # Of all 40 test examples, so they are the variances that training wrote.
    expected = [row["mean_variance"] for row in summary["latents"]]
    assert [latent.variance for latent in facts.latents] == pytest.approx(expected, rel=1e-4)


def test_seeds_are_taken_together(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    """Another seed of the first run: a second table, whose numbers are found again and can fail."""
    again = tmp_path / "again"
    shutil.copytree(two_runs[0], again)
    config = yaml.safe_load((again / "config.yaml").read_text())
    config["train"]["seed"] = 1
    (again / "config.yaml").write_text(yaml.safe_dump(config))
    summary = json.loads((again / "summary.json").read_text())
    for number in (summary, summary["metrics"]["elbo"]):
        number["elbo" if number is summary else "value"] = -100.0
    summary["metrics"]["psnr"]["value"] = summary["psnr"] = None
    (again / "summary.json").write_text(json.dumps(summary))
    paths = {"first": two_runs[0], "second": two_runs[1], "again": again}
    text = render(read_runs([*paths.values()], "cpu"))
    assert helper.recompute(text, paths) > 60
    parsed = helper.Page(text)
    over = [e for e in parsed.all("td", "numbers") if "data-over" in e.attributes]
    elbos = {e.attributes["data-over"]: e for e in over if e.attributes["data-metric"] == "elbo"}
    assert {*elbos} == {'["first", "again"]'}
    first = json.loads((two_runs[0] / "summary.json").read_text())["elbo"]
    wanted = (first - 100) / 2
    both = elbos['["first", "again"]']
    assert float(both.attributes["data-value"]) == pytest.approx(wanted)
    assert both.text.endswith(f"± {format_number(abs(first + 100) / 2**0.5, 2)}")
    with pytest.raises(AssertionError):
        helper.recompute(text.replace(f'data-value="{wanted!r}"', 'data-value="7.5"'), paths)
    with pytest.raises(AssertionError):
        helper.recompute(
            text.replace(f"{both.text.partition('± ')[2]}</small>", "7.5</small>"), paths
        )
    assert "data-over" not in render(read_runs(two_runs, "cpu"))


def test_options_that_differ(two_runs: tuple[Path, Path]) -> None:
    options: list[dict[str, Any]] = [{"m.x": 1, "l.y": 2}, {"m.x": 1, "l.z": 2}]
    runs = [RunSummary("r", options=one) for one in options]
    assert differing(runs) == ["l.y", "l.z"]
    assert differing(read_runs(two_runs, "cpu")) == ["bottleneck.latent_dim", "loss.beta"]


def shapes(chart: charts.Chart, element: str, class_: str = "") -> list[charts.Shape]:
    return [
        shape
        for shape in chart.shapes
        if shape.element == element and str(shape.attributes.get("class", "")).startswith(class_)
    ]


def test_charts_place_values() -> None:
    """Corners of a chart: the lowest value at the bottom, the first step at the left."""
    chart = charts.draw_curves("t", [charts.Line("a", 0, [(0, 1.0), (5, 3.0), (10, 2.0)])], "nats")
    (path,) = shapes(chart, "path")
    points = str(path.attributes["d"]).removeprefix("M").split("L")
    places = [tuple(map(float, place.split(","))) for place in points]
    assert places[0][0] < places[1][0] < places[2][0]
    assert places[1][1] < places[2][1] < places[0][1]
    middle = (places[0][0] + places[2][0]) / 2
    assert places[1][0] == pytest.approx(middle, abs=0.2)
    one_point = charts.draw_curves("t", [charts.Line("a", 0, [(1, 5.0)])], "nats")
    assert len(shapes(one_point, "circle")) == 1


def test_names_of_dots_do_not_overlap() -> None:
    """Four runs of nearly one rate and distortion, and one that is far."""
    spots = [(10.0, 50.0), (10.5, 50.2), (9.8, 50.1), (10.2, 49.9), (40.0, 20.0)]
    lines = [charts.Line(f"run {i}", i, [], [spot]) for i, spot in enumerate(spots)]
    chart = charts.draw_rate_distortion("t", lines)
    names = [shape.attributes for shape in shapes(chart, "text", "name")]
    assert len(names) == 5
    places = [(float(n["x"]), float(n["y"]), n["text-anchor"]) for n in names]
    for i, (_, y, side) in enumerate(places):
        for _, other, other_side in places[:i]:
            assert side != other_side or abs(y - other) >= 10.9
    dots = [shape.attributes for shape in shapes(chart, "circle")]
    assert len(dots) == 5
    for dot in dots:
        for x, y, side in places:
            left = x - (37.8 if side == "end" else 0)
            inside = left < float(dot["cx"]) < left + 37.8
            assert not (inside and abs(y - 4 - float(dot["cy"])) < 5)
    assert "ELBO −60" in {shape.text for shape in shapes(chart, "text", "of-iso")}


def test_the_command(
    two_runs: tuple[Path, Path],
    in_tmp: Path,
    capsys: pytest.CaptureFixture[str],
    documented: Callable[[str], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("VAEZOO_ONNXRUNTIME_WEB", raising=False)
    runs = [str(path) for path in two_runs]
    assert main(["report", *runs, "--device", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {*found} == {*documented("`vaezoo report RUN... --json`")}
    assert {*found["runs"][0]} == {*documented("A run of a report")}
    assert found["differing"] == ["bottleneck.latent_dim", "loss.beta"]
    assert Path("report.html").read_text().startswith("<!doctype html>")
    for line, says in (
        ([*runs], "exists already"),
        ([*runs, "-o", "x.txt"], ".html"),
        ([*runs, "-o", "x.html", "--explore", "third"], "called first, second"),
        ([*runs, "-o", "x.html", "--explore", "first"], "npm install onnxruntime-web"),
        ([*runs, "-o", "x.html", "--explore", "all", "--onnxruntime-web", "."], "npm install"),
        ([*runs, "-o", "x.html", "--importance-samples", "3"], "goes with --metric"),
        ([*runs, runs[0], "-o", "x.html"], "twice"),
        ([str(in_tmp), "-o", "x.html"], "is not a run folder"),
    ):
        assert main(["report", *line]) == 2
        error = capsys.readouterr().err
        assert says in error
        assert error.count("\n") == 1
    assert not Path("x.html").exists()


def test_measuring_anew_stars_the_best(two_runs: tuple[Path, Path]) -> None:
    facts = read_runs(two_runs, "cpu", metrics=["elbo"])
    assert len(best(facts, "elbo", "higher")) == 1


def test_a_picture_is_drawn_again_from_its_pixels(
    two_runs: tuple[Path, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(two_runs[0], run)
    with Image.open(run / "samples.png") as picture:
        size = picture.size
    with (run / "samples.png").open("ab") as file:
        file.write(b"<script>more</script>")
    (facts,) = read_runs([run], "cpu")
    assert facts.samples is not None
    assert b"script" not in facts.samples
    assert [int.from_bytes(facts.samples[at : at + 4], "big") for at in (16, 20)] == [*size]
