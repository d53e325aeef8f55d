"""Plugins are loaded one by one: a broken one costs a line, whichever way it is broken."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path

import pytest

from vaezoo.plugins.loader import (
    PluginRecord,
    Switches,
    find_entry_points,
    load,
    load_all,
    warn_problems,
)

HEAD = """
from vaezoo import DatasetSpec, LossSpec, ModelSpec, hookimpl

def model(name, **more):
    return ModelSpec(name=name, target="somewhere.far:Model", summary="A model", **more)
"""

GOOD = """
@hookimpl
def register_models(register):
    register(model("{name}"))
"""

BROKEN = {
    "raises on import": ("1 / 0", "ZeroDivisionError: division by zero"),
    "imports what is missing": ("import no_such_thing", "No module named 'no_such_thing'"),
    "is no Python": ("def (", "SyntaxError"),
    "leaves": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "says many lines": ("raise ValueError('one\\ntwo')", "ValueError: one two"),
    "says nothing": ("raise ValueError", "ValueError: no message"),
    "cannot say it": (
        "class Mute(Exception):\n    def __str__(self): 1 / 0\nraise Mute",
        "Mute: no message",
    ),
    "raises past Exception": ("raise GeneratorExit('no')", "GeneratorExit: no"),
    "has no hook": ("", "has no hook"),
    "forgets the marker": ("def register_models(register): pass", "has no hook"),
    "misspells a hook": ("@hookimpl\ndef register_model(register): pass", "register_model"),
    "wants another argument": ("@hookimpl\ndef register_models(registry): pass", "{'registry'}"),
    "has a bad import string": (
        GOOD.format(name="a").replace("))", ", options='a.b.c'))"),
        "options must be 'package.module:Name', not 'a.b.c'",
    ),
    "registers a class": (
        "@hookimpl\ndef register_models(register): register(ModelSpec)",
        "register_models takes a ModelSpec, not type",
    ),
    "registers another kind": (
        "@hookimpl\ndef register_losses(register): register(model('a'))",
        "register_losses takes a LossSpec, not ModelSpec",
    ),
    "registers a name twice": (
        "@hookimpl\ndef register_models(register):\n    for _ in 'ab': register(model('a'))",
        "the model name 'a' is registered twice",
    ),
    "raises half-way": (
        "@hookimpl\ndef register_models(register):\n    register(model('a'))\n    1 / 0",
        "ZeroDivisionError",
    ),
    "raises in a later hook": (
        GOOD.format(name="a") + "@hookimpl\ndef register_datasets(register): raise KeyError('k')",
        "KeyError: 'k'",
    ),
    "comes from the future": (
        "@hookimpl\ndef register_models(register): register(model('a', api_version=99))",
        "is made for plugin API 99, this vaezoo has 2: upgrade vaezoo",
    ),
    "is from the past": (
        "@hookimpl\ndef register_models(register): register(model('a', api_version=1))",
        "is made for plugin API 1, this vaezoo has 2: upgrade the plugin",
    ),
    "brings a loss whose name it has": (
        """
@hookimpl
def register_models(register):
    loss = LossSpec(name='l', target='far:L', summary='L')
    register(model('a', loss=loss))
    register(model('b', loss=loss))
""",
        "the loss name 'l' is registered twice",
    ),
    "has a bad name": (
        "@hookimpl\ndef register_models(register): register(model('My VAE'))",
        "model My VAE: name must be small letters, digits and underscores, not 'My VAE'",
    ),
    "has no words for tags": (
        "@hookimpl\ndef register_models(register): register(model('a', tags='elbo'))",
        "tags must be a tuple of words, not 'elbo'",
    ),
    "has no text for a paper": (
        "@hookimpl\ndef register_models(register): register(model('a', paper=None))",
        "paper must be one line of text, not None",
    ),
    "has options that are no mapping": (
        "@hookimpl\ndef register_models(register): register(model('a', loss_options=[1]))",
        "loss_options must be a mapping from names to values",
    ),
    "accepts what is no InputSpec": (
        "@hookimpl\ndef register_models(register): register(model('a', input_spec=8))",
        "input_spec must be vaezoo.InputSpec(...), not 8",
    ),
}

Install = Callable[..., EntryPoint]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a distribution with a plugin on the path, as pip would, and give its entry point."""
    monkeypatch.syspath_prepend(str(tmp_path))
    brought: dict[str, dict[str, str]] = {}

    def write(module: str, code: str, dist: str = "other", name: str = "") -> EntryPoint:
        (tmp_path / f"{module}.py").write_text(HEAD + code)
        brought.setdefault(dist, {})[name or module] = module
        info = tmp_path / f"{dist}-2.5.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 2.5\n")
        lines = ["[vaezoo]", *(f"{entry} = {where}" for entry, where in brought[dist].items()), ""]
        (info / "entry_points.txt").write_text("\n".join(lines))
        importlib.invalidate_caches()
        (entry,) = Distribution.at(info).entry_points.select(name=name or module)
        return entry

    yield write
    for module in (module for modules in brought.values() for module in modules.values()):
        sys.modules.pop(module, None)


def names(records: list[PluginRecord]) -> list[str]:
    return [spec.name for record in records for spec in record.specs]


@pytest.mark.parametrize("how", list(BROKEN))
def test_a_broken_plugin_fails_and_the_others_load(install: Install, how: str) -> None:
    code, said = BROKEN[how]
    entries = [
        install("before", GOOD.format(name="first")),
        install("broken", code),
        install("after", GOOD.format(name="last")),
    ]
    records = load_all(entries)
    assert names(records) == ["first", "last"]
    assert [record.status for record in records] == ["loaded", "failed", "loaded"]
    broken = records[1]
    assert said in broken.error
    assert "\n" not in broken.error
    assert broken.specs == []
    assert broken.details.startswith("Traceback") or "SyntaxError" in broken.details
    assert (broken.distribution, broken.version) == ("other", "2.5")


def test_ctrl_c_is_the_users(install: Install) -> None:
    with pytest.raises(KeyboardInterrupt):
        load(install("slow", "raise KeyboardInterrupt"))


def test_one_plugin_may_bring_all_three_kinds(install: Install) -> None:
    code = (
        GOOD.format(name="same")
        + """
@hookimpl
def register_losses(register):
    register(LossSpec(name="same", target="far:Loss", summary="A loss"))

@hookimpl
def register_datasets(register):
    register(DatasetSpec(name="same", target="far:Data", summary="A data set"))
"""
    )
    record = load(install("three", code))
    assert record.error == ""
    assert [(spec.kind, spec.name) for spec in record.specs] == [
        ("model", "same"),
        ("loss", "same"),
        ("dataset", "same"),
    ]
    assert Path(record.location).name == "three.py"


def test_a_name_registered_twice_names_both_plugins(install: Install) -> None:
    claimant = """
@hookimpl
def register_models(register):
    register(model("free"))
    register(model("shared"))
"""
    records = load_all(
        [
            install("one", GOOD.format(name="shared"), "dist_one"),
            install("two", claimant, "dist_two"),
            install("three", GOOD.format(name="free"), "dist_three"),
        ]
    )
    assert names(records) == ["shared", "free"]
    assert [record.status for record in records] == ["loaded", "failed", "loaded"]
    for said in ("'shared'", "'one'", "'two'", "dist_one", "dist_two"):
        assert said in records[1].error


def test_an_entry_point_that_is_no_module_path() -> None:
    record = load(EntryPoint(name="odd", value="!!", group="vaezoo"))
    assert record.error == "its entry point '!!' is not 'package.module'"
    assert (record.distribution, record.version) == ("unknown", "")


@pytest.mark.parametrize("value", ["math:pi", "os.path:join", "os:no_such_thing"])
def test_an_entry_point_that_is_no_plugin(value: str) -> None:
    record = load(EntryPoint(name="odd", value=value, group="vaezoo"))
    assert record.error
    assert record.specs == []


def test_distributions_without_metadata_load(install: Install, tmp_path: Path) -> None:
    for number in (1, 2):
        install(f"plugin{number}", GOOD.format(name=f"model{number}"), f"dist{number}")
        (tmp_path / f"dist{number}-2.5.dist-info" / "METADATA").unlink()
    records = load_all(find_entry_points())
    assert {"model1", "model2", "vanilla"} <= set(names(records))
    assert [r.source for r in records if r.name == "plugin1"] == ["unknown"]


def test_our_own_come_first_then_a_fixed_order(install: Install) -> None:
    for plugin, dist in (("b", "aaa"), ("a", "aaa"), ("z", "Another")):
        install(plugin, GOOD.format(name=plugin), dist)
    found = [(entry.dist.name, entry.name) for entry in find_entry_points() if entry.dist]
    ours = [pair for pair in found if pair[0] == "vaezoo"]
    assert found[: len(ours)] == ours == sorted(ours)
    assert found[len(ours) :] == sorted(found[len(ours) :])
    assert {("aaa", "a"), ("aaa", "b"), ("Another", "z")} <= set(found)


def test_what_a_plugin_prints_goes_to_stderr(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    loud = """
import logging, sys
logger = logging.getLogger("loud")
logger.addHandler(logging.StreamHandler(sys.stdout))
print("hello")
print("oh", file=sys.stderr)
"""
    record = load(install("chatty", loud + GOOD.format(name="chat")))
    assert (record.status, names([record])) == ("loaded", ["chat"])
    assert capsys.readouterr() == ("", "hello\noh\n")
    # The stream that it kept is stderr, too.
    sys.modules["chatty"].logger.warning("later")
    assert capsys.readouterr() == ("", "later\n")
    warn_problems([record])
    assert capsys.readouterr() == ("", "")


def test_an_entry_point_of_two_distributions(install: Install) -> None:
    """The same name for another module is no trouble; the same module is there once."""
    entries = [
        install("mine", GOOD.format(name="first"), "dist_one", name="plugin"),
        install("other", GOOD.format(name="second"), "dist_two", name="plugin"),
        install("mine", GOOD.format(name="first"), "dist_three", name="plugin"),
    ]
    records = load_all(entries)
    assert [record.status for record in records] == ["loaded", "loaded", "failed"]
    assert names(records) == ["first", "second"]
    for said in ("'first'", "dist_one", "dist_three"):
        assert said in records[2].error


def test_both_distributions_of_an_entry_point_are_found(install: Install, tmp_path: Path) -> None:
    for dist in ("dist_one", "dist_two"):
        install("twin", GOOD.format(name="only"), dist)
    records = [record for record in load_all() if record.name == "twin"]
    assert [(r.distribution, r.status) for r in records] == [
        ("dist_one", "loaded"),
        ("dist_two", "failed"),
    ]


def test_a_disabled_plugin_is_not_even_imported(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = [install("off", "raise SystemExit"), install("on", GOOD.format(name="fine"))]
    switches = Switches(fewer=("off", "onn"))
    records = load_all(entries, switches)
    assert [record.status for record in records] == ["disabled", "loaded"]
    assert "off" not in sys.modules
    warn_problems(records, switches)
    assert capsys.readouterr().err == (
        "vaezoo: VAEZOO_DISABLE_PLUGINS names no plugin by 'onn'; did you mean 'on'?\n"
    )


def test_a_failure_costs_one_line(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    warn_problems(
        load_all([install("good", GOOD.format(name="fine")), install("bad", "1 / 0", "culprit")])
    )
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "vaezoo: plugin 'bad' (culprit 2.5) is left out: ZeroDivisionError: division by zero "
        "(more: vaezoo plugins --verbose)\n"
    )


def vaezoo(path: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vaezoo", *args],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(path)},
    )


def test_an_installed_plugin_is_listed(install: Install, tmp_path: Path) -> None:
    install("kind", GOOD.format(name="strange"))
    install("unkind", "raise RuntimeError('not today')")

    listed = vaezoo(tmp_path, "list")
    assert listed.returncode == 0
    assert {"strange", "vanilla"} <= {line.split()[0] for line in listed.stdout.splitlines()}
    assert "not today" in listed.stderr
    assert listed.stderr.count("\n") == 1

    shown = vaezoo(tmp_path, "plugins", "--json")
    assert shown.returncode == 0
    rows = {row["name"]: row for row in json.loads(shown.stdout)}
    assert rows["kind"]["models"] == ["strange"]
    assert rows["unkind"]["status"] == "failed"
    assert rows["unkind"]["error"] == "RuntimeError: not today"
    assert "unkind.py" in rows["unkind"]["details"]

    printed = vaezoo(tmp_path, "plugins", "--verbose").stdout
    assert "unkind (other 2.5) failed: RuntimeError: not today" in printed
    assert "Traceback" in printed
    assert "Traceback" not in vaezoo(tmp_path, "plugins").stdout


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("no_such_module:Options", "importing no_such_module failed"),
        ("half:Missing", "module half has no Missing"),
        ("half:model", "is no vaezoo.Options class"),
        ("leaves:Options", "importing leaves failed: SystemExit"),
    ],
)
def test_broken_options_cost_info_one_line(
    install: Install, tmp_path: Path, where: str, said: str
) -> None:
    code = f"""
@hookimpl
def register_models(register):
    register(model("strange", options="{where}"))
"""
    install("half", code)
    (tmp_path / "leaves.py").write_text("raise SystemExit(0)")
    result = vaezoo(tmp_path, "info", "strange")
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("vaezoo: model strange: ")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
