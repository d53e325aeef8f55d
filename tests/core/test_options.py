"""Typed options: what goes out as YAML or as text comes back in, and errors are one line."""

from __future__ import annotations

import typing
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BeforeValidator, Field
from pydantic.fields import FieldInfo

from vaezoo.errors import OptionError
from vaezoo.options import Options, describe, format_value, parse, to_dict
from vaezoo.plugins.registry import registry
from vaezoo.training.options import TrainOptions

EVERY = {"training": TrainOptions} | {
    f"{spec.kind} {spec.name}": spec.load_options() for spec in registry().specs()
}

WORDS = st.sampled_from(["cpu", "cuda:1", "1:10", "a b", "ünicode"])


def limits(rules: list[Any]) -> dict[str, Any]:
    found = {}
    for rule in rules:
        for word in ("ge", "gt", "le", "lt"):
            if getattr(rule, word, None) is not None:
                found[word] = getattr(rule, word)
    return found


def values(annotation: Any, rules: list[Any]) -> st.SearchStrategy[Any]:
    """Values of a type within its bounds."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    bound = limits(rules)
    if any(isinstance(rule, BeforeValidator) for rule in rules):  # an image size
        return st.tuples(st.integers(1, 4096), st.integers(1, 4096))
    if annotation is int:
        lowest = bound.get("ge", bound.get("gt", -10) + ("gt" in bound))
        highest = bound.get("le", bound.get("lt", lowest + 10**6 + 1) - 1)
        step = max([getattr(rule, "multiple_of", None) or 1 for rule in rules], default=1)
        return st.integers(-(-lowest // step), highest // step).map(lambda number: number * step)
    if annotation is float:
        return st.floats(
            min_value=bound.get("ge", bound.get("gt", -1e6)),
            max_value=bound.get("le", bound.get("lt", 1e6)),
            exclude_min="gt" in bound,
            exclude_max="lt" in bound,
        )
    if annotation is bool:
        return st.booleans()
    if annotation is str:
        longest = [rule.max_length for rule in rules if getattr(rule, "max_length", None)]
        return st.text(",;|", max_size=min(longest)) if longest else WORDS
    if annotation is Path:
        return st.sampled_from([Path("data"), Path("/a/b c"), Path("~/x")])
    if annotation is type(None):
        return st.none()
    if origin is Annotated:
        inner = [r for m in args[1:] for r in (m.metadata if isinstance(m, FieldInfo) else [m])]
        return values(args[0], inner)
    if origin is Literal:
        return st.sampled_from(args)
    if origin is tuple and args[-1] is Ellipsis:
        shortest = max([getattr(rule, "min_length", 0) for rule in rules], default=0)
        return st.lists(values(args[0], []), min_size=shortest, max_size=4).map(tuple)
    if origin is tuple:  # a range
        low = st.floats(-1e6, 1e6)
        return st.tuples(low, low).filter(lambda pair: pair[0] != pair[1]).map(sorted).map(tuple)
    return st.one_of([values(arg, rules) for arg in args])  # a union


def chosen(cls: type[Options]) -> st.SearchStrategy[dict[str, Any]]:
    fields = {
        name: values(info.annotation, info.metadata) for name, info in cls.model_fields.items()
    }
    # Groups of channels divide every number of channels: one does.
    fixed = {name: st.just(1) for name in fields if name in ("norm_groups", "num_heads")}
    optional = {name: found for name, found in fields.items() if name not in fixed}
    return st.fixed_dictionaries(fixed, optional=optional).map(
        lambda found: _that_fits(found, fields)
    )


def _that_fits(chosen: dict[str, Any], fields: Collection[str]) -> dict[str, Any]:
    """Training takes epochs or steps, not both, and one cycle has no second warm-up.

    Parts to copy go with a run to copy them from, a classifier with its file, a width of
    convolutions with these, and levels with attention are levels.
    """
    levels = len(chosen.get("hidden") or (1, 1, 1))
    if chosen.get("attention_levels") is not None:
        chosen["attention_levels"] = tuple(n % levels for n in chosen["attention_levels"])
    if "head_dim" in fields:  # of dc_ae: widths are multiples of 4, and levels have their numbers
        chosen["hidden"] = tuple(4 * width for width in chosen.get("hidden", (1, 1, 1)))
        chosen["attention_scales"] = tuple(n | 1 for n in chosen.get("attention_scales", ()))
        for name in ("encoder_layers", "decoder_layers"):
            if chosen.get(name) is not None:
                chosen[name] = (1,) * levels
        chosen.pop("batch_norm_levels", None)
    if "embed_dim" in chosen:  # of sines and cosines of two coordinates
        chosen["embed_dim"] = max(4, chosen["embed_dim"] // 4 * 4)
    if "perceptual" in fields:
        chosen.pop("perceptual_file", None)
        if chosen.get("perceptual") == "classifier":
            chosen["perceptual_file"] = "classifier.safetensors"
    if not (chosen.get("quant_conv", True) and chosen.get("post_quant_conv", True)):
        chosen.pop("quant_width", None)
    if chosen.get("init_from") is None:
        chosen.pop("init_parts", None)
    if chosen.get("schedule") == "one_cycle":
        chosen.pop("lr_warmup", None)
    if chosen.get("steps") or chosen.get("epochs", 1) is None:
        return {name: value for name, value in chosen.items() if name != "epochs"}
    return chosen


@pytest.mark.parametrize("name", list(EVERY))
@given(data=st.data())
def test_what_goes_out_comes_back(name: str, data: st.DataObject) -> None:
    cls = EVERY[name]
    options = parse(cls, data.draw(chosen(cls)), name)
    plain = to_dict(options)
    assert list(plain) == list(cls.model_fields)
    assert parse(cls, plain, name) == options
    written = {key: format_value(value) for key, value in plain.items()}
    assert parse(cls, written, name) == options


@pytest.mark.parametrize("name", list(EVERY))
def test_every_option_is_explained_and_has_a_valid_default(name: str) -> None:
    cls = EVERY[name]
    for info in describe(cls):
        assert info.help, info.name
        assert not info.help.endswith("."), info.name
        if not info.required:
            assert getattr(
                parse(cls, {info.name: format_value(info.default)}, name), info.name
            ) == (getattr(parse(cls, {}, name), info.name))


class Sample(Options):
    sizes: tuple[Annotated[int, Field(ge=1)], ...] = Field((1, 2), description="sizes")
    pair: tuple[float, float] = Field((0.0, 1.0), description="two")
    words: tuple[str, ...] = Field((), description="words")
    limit: int | None = Field(None, ge=1, lt=2**32, description="a limit")
    rate: float = Field(0.5, gt=0, le=1e4, description="a rate")
    fast: bool = Field(False, description="a flag")
    mode: Literal["off", "on"] = Field("off", description="a word that YAML takes for a flag")
    where: Path = Field(Path("."), description="a place")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("sizes", "32,64", (32, 64)),
        ("sizes", " (32, 64) ", (32, 64)),
        ("sizes", "[32]", (32,)),
        ("sizes", [3, 4], (3, 4)),
        ("pair", "0.5,1e3", (0.5, 1000.0)),
        ("words", "a, b", ("a", "b")),
        ("words", "", ()),
        ("limit", "none", None),
        ("limit", "None", None),
        ("limit", "7", 7),
        ("rate", "1e-3", 0.001),
        ("fast", "true", True),
        ("fast", "no", False),
        ("mode", True, "on"),
        ("mode", False, "off"),
        ("where", "a/b", Path("a/b")),
    ],
)
def test_text_is_read_as_typed(name: str, text: Any, value: Any) -> None:
    assert getattr(parse(Sample, {name: text}, "sample"), name) == value


@pytest.mark.parametrize(
    "cls", [registry().get("dataset", n).load_options() for n in ("sprites", "folder")]
)
@pytest.mark.parametrize("text", ["96x64", "96×64", "96,64", "96 x 64", [96, 64], (96, 64)])
def test_image_sizes(cls: Any, text: Any) -> None:
    assert parse(cls, {"image_size": text}, "data").image_size == (96, 64)
    assert parse(cls, {"image_size": "28"}, "data").image_size == (28, 28)
    for wrong in ("0", "64x", "1x2x3", "5000", "big", "none", 0, -1, [1, 2, 3], 1.5, True):
        with pytest.raises(OptionError, match="--image-size"):
            parse(cls, {"image_size": wrong}, "data")


@pytest.mark.parametrize(
    ("given_values", "said"),
    [
        ({"limit": 0}, "sample: --limit: should be greater than or equal to 1, not '0'"),
        ({"limit": 2**32}, "--limit: should be less than 4294967296"),
        ({"rate": "nan"}, "--rate: should be a finite number, not 'nan'"),
        ({"rate": float("inf")}, "--rate: should be a finite number"),
        ({"rate": "fast"}, "--rate: should be a valid number"),
        ({"sizes": "1,0"}, "--sizes: should be greater than or equal to 1, not '0'"),
        ({"sizes": "1,x"}, "--sizes: should be a valid integer"),
        ({"pair": "1"}, "--pair: "),
        ({"mode": "of"}, "--mode: should be 'off' or 'on', not 'of'"),
        ({"fast": "perhaps"}, "--fast: should be a valid boolean"),
        ({"rat": 1}, "sample has no option 'rat'; did you mean 'rate'"),
        ({"zzzzzz": 1}, "sample has no option 'zzzzzz' (it has sizes, pair,"),
        ({"limit": "x" * 10_000}, "--limit: should be a valid integer"),
        ({"limit": "a\nb"}, "--limit: should be a valid integer"),
    ],
)
def test_errors_are_one_line(given_values: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(Sample, given_values, "sample")
    message = str(caught.value)
    assert said in message
    assert "\n" not in message
    assert len(message) < 250


def test_a_value_nested_without_end_is_refused_in_one_line() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(OptionError, match="--sizes"):
        parse(Sample, {"sizes": endless}, "sample")


def test_a_required_option_says_what_it_is_for() -> None:
    class Needy(Options):
        key: int = Field(description="which key")

    with pytest.raises(OptionError, match=r"^needy needs --key: which key$"):
        parse(Needy, {}, "needy")
    (info,) = describe(Needy)
    assert info.required
    assert info.to_dict()["default"] is None


def test_describe_says_types_and_bounds_in_words() -> None:
    described = {info.name: (info.type, info.bounds) for info in describe(Sample)}
    assert described == {
        "sizes": ("integers, with commas between", "each ≥ 1"),
        "pair": ("2 numbers", ""),
        "words": ("texts, with commas between", ""),
        "limit": ("integer or none", "≥ 1, < 4294967296"),
        "rate": ("number", "> 0, ≤ 10000"),
        "fast": ("true or false", ""),
        "mode": ("choice", ""),
        "where": ("path", ""),
    }
    assert next(i for i in describe(Sample) if i.name == "mode").choices == ("off", "on")


def test_options_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Sample().rate = 1.0
