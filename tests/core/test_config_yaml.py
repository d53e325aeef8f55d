"""The YAML of config files: plain values, or an error in one line, in bounded time."""

from __future__ import annotations

import time
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from vaezoo.config import YamlError, parse_yaml
from vaezoo.errors import OptionError
from vaezoo.options import MAX_TEXT, parse
from vaezoo.training.options import TrainOptions

LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(9)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, r"has the alias \*a"),
        ("a: &a {b: *a}", r"has the alias \*a"),
        ("base: &b {x: 1}\nmodel:\n  <<: *b", r"has the alias \*b"),
        ("!!python/object/apply:os.system [ls]", "has the tag tag:yaml.org,2002:python/object/"),
        ("!!python/name:os.system", "has the tag"),
        ("x: !!binary aGVsbG8=", "has the tag"),
        ("x: !!set {a}", "has the tag"),
        ("x: !!omap [a: 1]", "has the tag"),
        ("x: !!timestamp 2024-01-01", "has the tag"),
        ("x: !mine 1", "has the tag !mine"),
        ("[" * 30000, "is nested too deeply"),
        ("{a: " * 10000, "is nested too deeply"),
        ("? " * 10000, "is nested too deeply"),
        ("- " * 30000, "is nested too deeply"),
        ("%YAML 9.9\n---\n1", "is not YAML"),
        ("a: 1\n---\nb: 2", "is not YAML"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    begun = time.process_time()
    with pytest.raises(YamlError, match=said) as caught:
        parse_yaml(text)
    assert time.process_time() - begun < 10
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("9223372036854775808", "--seed: should be less than"),
        ("-0x" + "f" * 999, "--seed"),
        ("9" * 5000, "--seed"),
        ("0x" + "f" * 60000, "--seed"),
        ('"a\\0b"', "--device holds characters that are no text"),
        ('"\\ud800"', "--device"),
        ("y" * (MAX_TEXT + 1), "--device is longer than"),
    ],
)
def test_values_that_no_option_takes(value: str, said: str) -> None:
    name = "seed" if "--seed" in said else "device"
    with pytest.raises(OptionError, match=said) as caught:
        parse(TrainOptions, parse_yaml(f"{name}: {value}"), "training")
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["1:9:2", "190:20:30", "2024-01-01", "<<", "1e5", "08", "0:60:2", "1:30.5", "="]
)
def test_what_yaml_1_1_would_take_for_something_else_is_text(text: str) -> None:
    assert parse_yaml(f"x: {text}") == {"x": text}


def outcome(text: str) -> tuple[str, Any]:
    """Why it is refused, or "" and its value."""
    try:
        return "", parse_yaml(text)
    except YamlError as error:
        return str(error), None


# PyYAML itself writes these line breaks so that they come back as others.
words = st.text(st.characters(exclude_characters="\x85\u2028\u2029"))
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats() | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(plain)
def test_what_our_configurations_are_written_as_comes_back(value: Any) -> None:
    text = yaml.safe_dump({"x": value}, allow_unicode=True, sort_keys=False)
    refused, read = outcome(text)
    assert not refused
    assert repr(read) == repr({"x": value})


@settings(max_examples=300, deadline=None)
@given(st.text() | st.text("&*!<>|%@`{}[]?:-,#'\"\\ \n\t0123456789abx_.~=", max_size=60))
def test_any_text_is_plain_values_or_refused(text: str) -> None:
    refused, value = outcome(text)
    assert "\n" not in refused
    assert value is None or isinstance(value, (bool, int, float, str, list, dict))
