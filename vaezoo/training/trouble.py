"""What to say of an exception that ended training."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

import torch

from vaezoo.training.options import TrainOptions

_CORE = Path(__file__).parents[1]
_TORCH = Path(torch.__file__).parent
_PYTHON = Path(sysconfig.get_path("stdlib"))
_SITES = _PYTHON / "site-packages"


def in_one_line(error: BaseException) -> str:
    """What it is, what it says, and where in the code of a plugin it came up."""
    said = (str(error).strip().splitlines() or [""])[0][:200]
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not _is_ours(Path(frame.filename))] or frames[-1:]
    where = f" ({theirs[-1].filename}, line {theirs[-1].lineno})" if theirs else ""
    return f"{type(error).__name__}{': ' if said else ''}{said}{where}"


def is_out_of_memory(error: BaseException) -> bool:
    """Of the device's memory, or of the machine's."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        # What torch raises on the CPU has no type of its own.
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


def what_to_lower(options: TrainOptions, precision: str) -> str:
    """Options that take less memory, the one that helps most first."""
    ways = []
    if options.batch_size > 1:
        ways.append(f"a smaller --batch-size than {options.batch_size}")
    if precision != "bf16":
        ways.append("--precision bf16")
    ways.append("a smaller model (vaezoo info tells its options)")
    return "give " + ", or ".join(ways)


def _is_ours(file: Path) -> bool:
    in_python = file.is_relative_to(_PYTHON) and not file.is_relative_to(_SITES)
    return in_python or file.is_relative_to(_CORE) or file.is_relative_to(_TORCH)
