"""Names are looked up by kind; a wrong one is answered with the nearest."""

from __future__ import annotations

import re

import pytest

from vaezoo.errors import UnknownNameError, nearest
from vaezoo.plugins import PluginRecord
from vaezoo.registry import Registry, registry
from vaezoo.specs import DatasetSpec, Kind, LossSpec, ModelSpec


def record(name: str, *specs: ModelSpec | LossSpec | DatasetSpec) -> PluginRecord:
    return PluginRecord(name, f"{name}.plugin", f"dist_{name}", "1.0", specs=list(specs))


ONE = ModelSpec(name="one", target="far:One", summary="One")
ALPHA = ModelSpec(name="alpha", target="far:Alpha", summary="Alpha")
LOSS = LossSpec(name="one", target="far:Loss", summary="A loss of the same name")
DATA = DatasetSpec(name="stripes", target="far:Stripes", summary="Stripes")


@pytest.fixture
def known() -> Registry:
    broken = record("broken")
    broken.fail(ValueError("broken"))
    return Registry([record("first", ONE, LOSS), broken, record("second", DATA, ALPHA)])


def test_specs_are_ordered_by_kind_and_name(known: Registry) -> None:
    assert known.specs() == [ALPHA, ONE, LOSS, DATA]
    assert known.specs("model") == [ALPHA, ONE]
    assert known.specs("loss") == [LOSS]


def test_lookup_by_kind(known: Registry) -> None:
    assert known.model("one") is ONE
    assert known.loss("one") is LOSS
    assert known.dataset("stripes") is DATA
    assert known.find("one") == [ONE, LOSS]
    assert known.plugin(LOSS).name == "first"
    assert known.plugin(ALPHA).distribution == "dist_second"


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        (
            "model",
            "alhpa",
            "there is no model 'alhpa'; did you mean 'alpha'? (vaezoo list --kind models",
        ),
        ("loss", "stripes", "there is no loss 'stripes' (vaezoo list --kind losses"),
        ("dataset", "stripe", "there is no data set 'stripe'; did you mean 'stripes'?"),
    ],
)
def test_unknown_names(known: Registry, kind: Kind, name: str, said: str) -> None:
    with pytest.raises(UnknownNameError, match=re.escape(said)):
        known.get(kind, name)


def test_find_looks_at_all_kinds(known: Registry) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'stripes'"):
        known.find("strips")


def test_nearest_is_silent_when_nothing_is_near() -> None:
    assert nearest("zzz", ["alpha", "beta"]) == ""
    assert nearest("bet", ["alpha", "beta"]) == "; did you mean 'beta'?"


def test_an_empty_registry_answers_too() -> None:
    empty = Registry([])
    assert empty.specs() == []
    with pytest.raises(UnknownNameError, match="there is no model 'x'"):
        empty.model("x")


def test_the_registry_of_the_process_has_what_comes_with_vaezoo() -> None:
    assert registry() is registry()
    assert registry().plugin(registry().model("vanilla")).distribution == "vaezoo"
    assert registry().loss("elbo").name == "elbo"
    assert registry().dataset("sprites").name == "sprites"
