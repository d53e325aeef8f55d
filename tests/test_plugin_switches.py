"""What the environment says about plugins."""

from __future__ import annotations

import pytest

from vaezoo.errors import VaezooError
from vaezoo.plugins.loader import Switches


def test_an_empty_environment_says_nothing() -> None:
    assert Switches.read({}) == Switches()


def test_every_variable_is_read() -> None:
    assert Switches.read(
        {
            "VAEZOO_PLUGINS": "a.b, ./c.py:D,,a.b",
            "VAEZOO_DISABLE_PLUGINS": "x,y",
            "VAEZOO_STRICT_PLUGINS": "1",
            "VAEZOO_PLUGIN_SECONDS": "2.5",
        }
    ) == Switches(more=("a.b", "./c.py:D"), fewer=("x", "y"), strict=True, seconds=2.5)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("VAEZOO_STRICT_PLUGINS", "maybe"),
        ("VAEZOO_PLUGIN_SECONDS", "soon"),
        ("VAEZOO_PLUGIN_SECONDS", "0"),
        ("VAEZOO_PLUGIN_SECONDS", "-1"),
        ("VAEZOO_PLUGIN_SECONDS", "inf"),
        ("VAEZOO_PLUGIN_SECONDS", "nan"),
    ],
)
def test_nonsense_is_told(name: str, text: str) -> None:
    with pytest.raises(VaezooError, match=name):
        Switches.read({name: text})
