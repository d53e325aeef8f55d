"""What list, info and plugins say, to people and as the JSON that docs/json.md promises."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from vaezoo.cli.main import main
from vaezoo.cli.output import make_console, print_table
from vaezoo.options import describe
from vaezoo.plugins.registry import registry
from vaezoo.plugins.specs import CAPABILITIES, PLURALS, ModelSpec

Say = Callable[..., str]
Documented = Callable[[str], list[str]]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    def run(*args: str) -> str:
        assert main(list(args)) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return out

    return run


EVERY = [(plural, spec.name) for plural, kind in PLURALS.items() for spec in registry().specs(kind)]


def test_list_json_is_as_documented(say: Say, documented: Documented) -> None:
    entries = json.loads(say("list", "--kind", "all", "--json"))
    assert [(e["kind"], e["name"]) for e in entries] == [
        (spec.kind, spec.name) for spec in registry().specs()
    ]
    for entry in entries:
        assert list(entry) == documented("`vaezoo list --json`")
        assert all(isinstance(entry[key], str) for key in entry if key != "tags")
        assert isinstance(entry["tags"], list)


@pytest.mark.parametrize(
    ("kind", "holds"),
    [
        ("models", "vanilla"),
        ("losses", "elbo"),
        ("datasets", "sprites"),
        ("metrics", "ssim"),
        ("loggers", "tensorboard"),
    ],
)
def test_list_shows_one_kind(say: Say, kind: str, holds: str) -> None:
    lines = say("list", "--kind", kind).splitlines()
    assert lines[0].split() == ["name", "summary", "paper", "plugin"]
    names = [line.split()[0] for line in lines[1:]]
    assert holds in names
    assert names == [e["name"] for e in json.loads(say("list", "--kind", kind, "--json"))]


def test_list_alone_lists_models(say: Say) -> None:
    assert say("list") == say("list", "--kind", "models")
    assert say("list", "--json") == say("list", "--kind", "models", "--json")


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_info_json_is_as_documented(say: Say, documented: Documented, kind: str, name: str) -> None:
    entry = json.loads(say("info", name, "--kind", kind, "--json"))
    assert sorted(entry) == sorted(documented("`vaezoo info NAME --json`"))
    options = list(entry["options"])
    if entry["kind"] in ("model", "network"):
        assert sorted(entry["input_spec"]) == sorted(documented("What a model or network takes"))
    else:
        assert entry["input_spec"] is None
    if entry["kind"] == "model":
        assert sorted(entry["loss"]) == sorted(documented("A model's loss"))
        options += entry["loss"]["options"]
        for part in entry["parts"].values():
            options += part["options"]
    else:
        assert entry["loss"] is None
    assert (entry["requires"] is None) == (
        entry["kind"] not in ("bottleneck", "sampler", "loss", "metric")
    )
    assert (entry["train_options"] is None) == (entry["kind"] not in ("model", "dataset"))
    if entry["kind"] == "metric":
        assert list(entry["metric"]) == documented("A metric")
    else:
        assert entry["metric"] is None
    for option in options:
        assert list(option) == documented("An option")


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_info_explains_every_option(say: Say, kind: str, name: str) -> None:
    shown = say("info", name, "--kind", kind)
    spec = registry().get(PLURALS[kind], name)
    for option in describe(spec.load_options()):
        line = next(x for x in shown.splitlines() if f" --{option.name.replace('_', '-')} " in x)
        assert option.help
        assert option.help in line
        assert option.bounds in line
        assert all(choice in line for choice in option.choices)
    for said in (spec.summary, spec.paper, spec.target, registry().plugin(spec).distribution):
        assert said in shown
    assert all(CAPABILITIES[tag] in shown for tag in spec.tags if tag in CAPABILITIES)


def test_info_of_the_reference_model(say: Say) -> None:
    shown = say("info", "vanilla")
    for said in (
        "model vanilla",
        "vectors, signals from 8, images from 8×8 or volumes from 8×8×8, any number of channels",
        "integer or none ≥ 1",
        "integers, with commas between or none, each ≥ 1",
        "options of its network, conv",
        "options of its likelihood, auto",
        "options of its loss, elbo",
        "--beta",
    ):
        assert said in shown
    assert "…" not in shown


def test_info_finds_a_name_in_two_kinds(
    say: Say, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = registry()
    twin = ModelSpec(name="elbo", target="nowhere.at_all:Twin", summary="A model", loss="lost")
    monkeypatch.setitem(known._specs, ("model", "elbo"), twin)
    monkeypatch.setitem(known._plugins, ("model", "elbo"), known.records[0])
    shown = say("info", "elbo")
    assert "model elbo" in shown
    assert "loss elbo" in shown
    assert "lost (not installed)" in shown
    assert "loss elbo" not in say("info", "elbo", "--kind", "models")
    assert json.loads(say("info", "elbo", "--kind", "losses", "--json"))["kind"] == "loss"
    lost: Any = json.loads(say("info", "elbo", "--kind", "models", "--json"))["loss"]
    assert lost == {"name": "lost", "options": None}
    assert main(["info", "elbo", "--json"]) == 2
    assert "choose with --kind" in capsys.readouterr().err


def test_plugins_shows_where_they_come_from(say: Say, documented: Documented) -> None:
    entries = json.loads(say("plugins", "--json"))
    for entry in entries:
        assert list(entry) == documented("`vaezoo plugins --json`")
    ours = {entry["name"]: entry for entry in entries if entry["distribution"] == "vaezoo"}
    assert ours["vanilla"]["models"] == ["vanilla"]
    assert ours["vanilla"]["status"] == "loaded"
    assert ours["vanilla"]["error"] is None
    assert Path(ours["files"]["location"]).parent.name == "vaezoo_files"
    assert {"files", "vanilla"} <= {x.split()[0] for x in say("plugins").splitlines()[1:]}


ROWS = [("short", "word " * 40 + "last", "x" * 120), ("a_name", "[bold]brackets[/] :boat:", "")]


def test_tables_wrap_on_terminals_and_lose_nothing() -> None:
    file = io.StringIO()
    console = Console(file=file, width=80, force_terminal=True, color_system=None, markup=False)
    print_table(("name", "what", "where"), ROWS, console=console)
    shown = file.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    assert len(re.findall("word", shown)) == 40
    assert shown.count("x") == 120
    assert "last" in shown
    assert "[bold]brackets[/]" in " ".join(shown.split())


def test_tables_are_plain_lines_in_a_pipe() -> None:
    file = io.StringIO()
    print_table(("name", "what", "where"), ROWS, console=make_console(file))
    lines = file.getvalue().splitlines()
    assert len(lines) == 3
    assert "x" * 120 in lines[1]
    assert "\x1b" not in file.getvalue()
    assert all(line == line.rstrip() for line in lines)
