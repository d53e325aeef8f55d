"""The lock names all that pyproject.toml asks for, at versions that it allows."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

HERE = Path(__file__).parents[1]


def asked_for() -> list[Requirement]:
    project = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return [Requirement(x) for x in project["dependencies"] + extras["test"] + extras["dev"]]


def locked() -> dict[str, str]:
    return dict(
        re.findall(r"^([\w.-]+)==(\S+)", (HERE / "requirements-dev.lock").read_text().lower(), re.M)
    )


def test_lock_has_what_is_asked_for() -> None:
    asked, versions = asked_for(), locked()
    without = [str(r) for r in asked if r.name.lower() not in versions]
    assert not without, "run `make lock`"
    for requirement in asked:
        assert requirement.specifier.contains(versions[requirement.name.lower()])
