"""Checks of what is registered: imports and options."""

from __future__ import annotations

import subprocess
import sys

import yaml

from vaezoo.options import describe, format_value, parse, to_dict
from vaezoo.plugins.registry import registry
from vaezoo.testing.check import CheckFailed, CheckSkipped, Subject, check, fail_if

_WITHOUT_TORCH = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "numpy", "PIL"):
            raise ImportError(f"it imports {name}")

sys.meta_path.insert(0, Blocker())
import importlib
from vaezoo.plugins.loader import collect
for spec in collect(importlib.import_module(sys.argv[1])):
    spec.load_options()
"""


@check("put hooks and options into modules that do not import torch; give targets as strings")
def registration(subject: Subject) -> None:
    """Registering it and reading its options imports no torch"""
    known, spec = registry(), subject.spec
    if spec not in known.specs(spec.kind):
        raise CheckSkipped("no plugin registers it")
    plugin = known.plugin(spec)
    if not plugin.is_installed:
        raise CheckSkipped("its plugin is not installed")
    command = [sys.executable, "-c", _WITHOUT_TORCH, plugin.module]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise CheckFailed(f"{plugin.module}: {done.stderr.strip().splitlines()[-1]}")


@check("give each option a default, a description and a type for YAML and the command line")
def options(subject: Subject) -> None:
    """Options can be written as YAML and as text and read again, and have descriptions"""
    for what, options in subject.options.items():
        for info in describe(type(options)):
            fail_if(not info.help, f"{what}: option {info.name} has no description")
        plain = to_dict(options)
        read = yaml.safe_load(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
        as_text = {name: format_value(value) for name, value in plain.items()}
        for how, values in (("YAML", read), ("text", as_text)):
            back = parse(type(options), values, what)
            for name in type(options).model_fields:
                a, b = getattr(options, name), getattr(back, name)
                fail_if(a != b, f"{what}: option {name} is {a!r}, but read from {how} it is {b!r}")
