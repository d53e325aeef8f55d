"""What the environment says about plugins: more of them, fewer of them, and how strictly."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass

from vaezoo.errors import VaezooError

MORE = "VAEZOO_PLUGINS"
FEWER = "VAEZOO_DISABLE_PLUGINS"
STRICT = "VAEZOO_STRICT_PLUGINS"
SECONDS = "VAEZOO_PLUGIN_SECONDS"

_DEFAULT_SECONDS = 10.0


@dataclass(frozen=True)
class Switches:
    """more: plugins by module or file, beside the installed ones (VAEZOO_PLUGINS, with commas).
    fewer: names of installed ones to leave alone (VAEZOO_DISABLE_PLUGINS, with commas).
    strict: whether a plugin that makes trouble is an error (VAEZOO_STRICT_PLUGINS=1).
    seconds: how long an installed one may take to load (VAEZOO_PLUGIN_SECONDS).
    """

    more: tuple[str, ...] = ()
    fewer: tuple[str, ...] = ()
    strict: bool = False
    seconds: float = _DEFAULT_SECONDS

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Switches:
        """From the environment. VaezooError says which variable is wrong."""
        return cls(
            more=_listed(environment.get(MORE, "")),
            fewer=_listed(environment.get(FEWER, "")),
            strict=_is_on(environment.get(STRICT, "0")),
            seconds=_seconds(environment.get(SECONDS, str(_DEFAULT_SECONDS))),
        )


def _listed(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _is_on(text: str) -> bool:
    if text not in ("", "0", "1"):
        raise VaezooError(f"{STRICT} is 1 or 0, not {text!r}")
    return text == "1"


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise VaezooError(f"{SECONDS} is a number of seconds above 0, not {text!r}")
    return seconds
