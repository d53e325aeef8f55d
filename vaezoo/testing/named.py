"""What is to be checked, by whatever it is called."""

from __future__ import annotations

from typing import Any

from vaezoo.errors import VaezooError
from vaezoo.plugins.loader import spec_of_class
from vaezoo.plugins.registry import registry
from vaezoo.plugins.specs import Spec
from vaezoo.runs.build import load_class

Named = str | Spec | type
"""A registered name or FILE.py:Class; a spec; or a class."""


def found(named: Named, kind: type[Spec], base: type[Any]) -> tuple[Any, Any]:
    """The spec and the class behind a name. VaezooError when it is of another kind."""
    if isinstance(named, type):
        if not issubclass(named, base):
            raise VaezooError(f"{named.__name__} is no {base.__name__}")
        return spec_of_class(named), named
    spec = registry().resolve(kind.kind, named) if isinstance(named, str) else named
    if not isinstance(spec, kind):
        raise VaezooError(f"{spec.kind} {spec.name} is no {kind.kind}")
    return spec, load_class(spec, base)
