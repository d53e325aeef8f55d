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
        }
    ) == Switches(more=("a.b", "./c.py:D"), fewer=("x", "y"), strict=True)


def test_a_wrong_value_is_refused() -> None:
    with pytest.raises(VaezooError, match="VAEZOO_STRICT_PLUGINS"):
        Switches.read({"VAEZOO_STRICT_PLUGINS": "maybe"})
