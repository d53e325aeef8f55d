"""Names are looked up by kind; a wrong one is answered with the nearest."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from vaezoo.errors import UnknownNameError, VaezooError, nearest
from vaezoo.plugins.hookspecs import hookimpl
from vaezoo.plugins.loader import PluginRecord, collect
from vaezoo.plugins.registry import Registry, registry
from vaezoo.plugins.specs import DatasetSpec, InputSpec, Kind, LossSpec, ModelSpec, Spec


def record(name: str, *specs: Spec) -> PluginRecord:
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
    assert known.get("model", "one") is ONE
    assert known.get("loss", "one") is LOSS
    assert known.get("dataset", "stripes") is DATA
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
        empty.get("model", "x")


def test_the_registry_of_the_process_has_what_comes_with_vaezoo() -> None:
    assert registry() is registry()
    assert registry().plugin(registry().get("model", "vanilla")).distribution == "vaezoo"
    assert registry().get("loss", "elbo").name == "elbo"
    assert registry().get("dataset", "sprites").name == "sprites"


def test_a_variant_has_what_its_base_has() -> None:
    base = ModelSpec(
        name="base",
        target="far:Base",
        options="far:Options",
        summary="Base",
        tags=("elbo",),
        input_spec=InputSpec(min_size=8),
        model_options={"width": 3, "depth": 2},
        train_options={"lr": 0.1},
    )
    variant = ModelSpec(
        name="variant", base="base", summary="V", loss="own", model_options={"width": 5}
    )
    found = Registry([record("one", variant), record("two", base)]).get("model", "variant")
    assert (found.target, found.options, found.input_spec) == (
        "far:Base",
        "far:Options",
        base.input_spec,
    )
    assert (found.tags, found.loss_name, found.base) == (("elbo",), "own", "base")
    assert found.model_options == {"width": 5, "depth": 2}
    assert found.train_options == {"lr": 0.1}


def test_a_model_may_bring_its_loss_in_one_entry() -> None:
    own = LossSpec(name="own", target="far:Own", summary="Own", requires=("elbo",))

    class Plugin:
        @hookimpl
        def register_models(self, register: Callable[[ModelSpec], None]) -> None:
            register(ModelSpec(name="base", target="far:Base", summary="B", tags=("elbo",)))
            register(ModelSpec(name="variant", base="base", summary="V", loss=own))

    known = Registry([record("one", *collect(Plugin()))])
    assert known.get("loss", "own") is own
    assert known.get("model", "variant").loss_name == "own"
    assert known.get("model", "variant").target == "far:Base"
    assert known.plugin(own).name == "one"


def test_a_variant_may_take_less_than_its_base() -> None:
    """Its objective may look at images only."""
    base = ModelSpec(
        name="base", target="far:Base", summary="B", input_spec=InputSpec(ndims=(0, 2))
    )
    variant = ModelSpec(name="variant", base="base", summary="V", input_spec=InputSpec(min_size=8))
    found = Registry([record("one", variant, base)]).get("model", "variant")
    assert found.input_spec == InputSpec(min_size=8)


@pytest.mark.parametrize("base", ["gone", "chained", "variant"])
def test_a_variant_of_nothing_costs_only_itself(base: str) -> None:
    variant = ModelSpec(name="variant", base=base, summary="V")
    chained = ModelSpec(name="chained", base="variant", summary="C")
    known = Registry([record("one", variant, chained, ONE)])
    assert known.get("model", "one") is ONE
    assert len(known.specs("model")) == 3
    with pytest.raises(UnknownNameError, match=f"variant of '{base}', and no installed plugin"):
        known.get("model", "variant")


@pytest.mark.parametrize("wrong", [{"target": "far:One"}, {"options": "far:O"}])
def test_a_variant_has_no_class_of_its_own(wrong: dict[str, Any]) -> None:
    with pytest.raises(VaezooError, match="variant of base: leave out target and options"):
        ModelSpec(name="variant", base="base", summary="V", **wrong)
