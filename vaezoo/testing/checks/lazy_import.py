"""What is behind the door stays there: names and options are read without torch."""

from __future__ import annotations

import subprocess
import sys

from vaezoo.plugins.registry import registry
from vaezoo.plugins.specs import Spec
from vaezoo.testing.check import CheckFailed, CheckSkipped, check
from vaezoo.testing.model_with_loss import ModelWithLoss

_SECONDS = 60

_BEHIND_A_WALL = """
import sys

class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "numpy", "PIL"):
            raise ImportError(f"it imports {name}")

sys.meta_path.insert(0, Wall())
import importlib
from vaezoo.plugins.loader import collect
for spec in collect(importlib.import_module(sys.argv[1])):
    spec.load_options()
"""


@check("keep hooks and options in modules that import no torch, targets as strings")
def registration(pair: ModelWithLoss) -> None:
    """Registering it and reading its options imports no torch"""
    check_registration(pair.model_spec if pair.name == pair.model_spec.name else pair.loss_spec)


def check_registration(spec: Spec) -> None:
    """Broken if the plugin that brings this spec imports what is heavy."""
    known = registry()
    if spec not in known.specs(spec.kind):
        raise CheckSkipped("no plugin brings it")
    plugin = known.plugin(spec)
    if not plugin.is_installed:
        raise CheckSkipped("it was named, not installed")
    done = subprocess.run(
        [sys.executable, "-c", _BEHIND_A_WALL, plugin.module],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )
    if done.returncode:
        raise CheckFailed(f"{plugin.module}: {done.stderr.strip().splitlines()[-1]}")
