"""Save a checkpoint when training raises, and print the resume command."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from vaezoo.checkpoint.format import list_checkpoints, step_of
from vaezoo.distributed import world_size
from vaezoo.errors import RunError, RunStopped, TrainingError, VaezooError, how_to_resume
from vaezoo.io import write_text
from vaezoo.training.options import TrainOptions
from vaezoo.training.trainer import Trainer


@contextmanager
def save_on_error(trainer: Trainer) -> Iterator[None]:
    """Whatever ends the body leaves a run that goes on, where there is one, and is told so.

    What is no error of vaezoo's becomes a TrainingError in one line, its traceback a file of
    the run folder; before anything was logged it passes as it is.
    """
    folder = trainer.folder
    try:
        yield
    except (RunStopped, TrainingError):
        raise
    except Exception as error:
        with suppress(VaezooError):
            trainer.background.wait()  # whether there is a checkpoint is known then
        if isinstance(error, VaezooError):
            if folder.has_progress:
                _rescue(trainer, save=not isinstance(error, RunError))
                error.args = (f"{error}; {how_to_resume(folder.path)}",)
            raise
        if is_out_of_memory(error):
            torch.cuda.empty_cache()
            what = f"{trainer.device} is out of memory: "
            what += oom_advice(trainer.options, trainer.precision)
        elif folder.has_progress:
            what = summarize_exception(error)
        else:
            raise
        raise TrainingError(_failed(trainer, what, error)) from error


def _failed(trainer: Trainer, what: str, error: Exception) -> str:
    """Save what can be saved, and say what happened, when, and how to go on."""
    step, folder = trainer.progress.step, trainer.folder
    when = f"in step {step + 1}" if trainer.within_step else f"after step {step}"
    message = f"training broke {when}: {what}"
    if not folder.has_progress:
        return message
    with suppress(RunError):
        write_text(folder.traceback, "".join(traceback.format_exception(error)))
        message += f"; the traceback is in {folder.traceback}"
    _rescue(trainer, save=True)
    found = list_checkpoints(folder.checkpoints)
    saved = f"step {step_of(found[-1])}" if found else "the beginning"
    return f"{message}; {how_to_resume(folder.path)} (from {saved})"


def _rescue(trainer: Trainer, *, save: bool) -> None:
    """Between two steps everything is whole, and is saved; within one it is not.

    What is shared with other processes cannot be saved when one of them is in trouble.
    """
    with suppress(VaezooError):
        trainer.background.wait()
        if world_size() == 1 and save and not trainer.within_step and trainer.progress.step:
            trainer.saver.save()
            trainer.background.wait()


_CORE = Path(__file__).parents[1]
_TORCH = Path(torch.__file__).parent
_PYTHON = Path(sysconfig.get_path("stdlib"))
_SITES = _PYTHON / "site-packages"


def summarize_exception(error: BaseException) -> str:
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


def oom_advice(options: TrainOptions, precision: str) -> str:
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
