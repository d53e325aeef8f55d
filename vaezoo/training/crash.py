"""Save a checkpoint when training raises, and name the resume command in the error."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from vaezoo.checkpoint.format import list_checkpoints, step_of
from vaezoo.errors import RunError, RunStopped, TrainingError, VaezooError, how_to_resume
from vaezoo.io import write_text
from vaezoo.training.options import TrainOptions
from vaezoo.training.trainer import Trainer


@contextmanager
def save_on_error(trainer: Trainer) -> Iterator[None]:
    """Save what can be saved if the body raises, and say in the error how to resume.

    An error that is not vaezoo's becomes a TrainingError of one line, and its traceback a file in
    the run folder. Before anything was logged, it is raised as it is.
    """
    folder = trainer.folder
    try:
        yield
    except (RunStopped, TrainingError):
        raise
    except Exception as error:
        with suppress(VaezooError):
            trainer.writer.wait()  # a checkpoint may be under way
        if isinstance(error, VaezooError):
            if folder.has_progress:
                _save(trainer, allowed=not isinstance(error, RunError))
                error.args = (f"{error}; {how_to_resume(folder.path)}",)
            raise
        if is_out_of_memory(error):
            torch.cuda.empty_cache()
            advice = oom_advice(trainer.options, trainer.runtime.precision)
            what = f"{trainer.runtime.device} is out of memory: {advice}"
        elif folder.has_progress:
            what = summarize_exception(error)
        else:
            raise
        step = trainer.progress.step
        when = f"in step {step + 1}" if trainer.in_step else f"after step {step}"
        message = f"training failed {when}: {what}"
        if folder.has_progress:
            with suppress(RunError):
                write_text(folder.traceback, "".join(traceback.format_exception(error)))
                message += f"; the traceback is in {folder.traceback}"
            _save(trainer)
            found = list_checkpoints(folder.checkpoints)
            saved = f"step {step_of(found[-1])}" if found else "the beginning"
            message += f"; {how_to_resume(folder.path)} (from {saved})"
        raise TrainingError(message) from error


def _save(trainer: Trainer, *, allowed: bool = True) -> None:
    """Save a checkpoint between two steps; within a step the state is not consistent.

    Several ranks cannot save when one of them has failed.
    """
    with suppress(VaezooError):
        trainer.writer.wait()
        alone = trainer.runtime.world_size == 1
        if allowed and alone and not trainer.in_step and trainer.progress.step:
            trainer.save()
            trainer.writer.wait()


def summarize_exception(error: BaseException) -> str:
    """The type and message of an error in one line, and its place in the code of a plugin."""
    message = (str(error).strip().splitlines() or [""])[0][:200]
    python = Path(sysconfig.get_path("stdlib"))
    core = (Path(__file__).parents[1], Path(torch.__file__).parent)

    def is_library(file: Path) -> bool:
        """Whether a file belongs to vaezoo's core, torch or Python's standard library."""
        in_python = file.is_relative_to(python) and "site-packages" not in file.parts
        return in_python or any(file.is_relative_to(folder) for folder in core)

    frames = traceback.extract_tb(error.__traceback__)
    plugin = [f for f in frames if not is_library(Path(f.filename))] or frames[-1:]
    where = f" ({plugin[-1].filename}, line {plugin[-1].lineno})" if plugin else ""
    return f"{type(error).__name__}{': ' if message else ''}{message}{where}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the memory of the device or of the machine is full."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        # torch has no error type for this on the CPU.
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


def oom_advice(options: TrainOptions, precision: str) -> str:
    """Name options that need less memory, the one that helps most first."""
    ways = ["a smaller model (vaezoo info shows its options)"]
    if precision != "bf16":
        ways.insert(0, "--precision bf16")
    if options.batch_size > 1:
        smaller = f"a smaller --batch-size than {options.batch_size}"
        ways = [smaller, f"--accumulate {2 * options.accumulate}", *ways]
    return "give " + ", or ".join(ways)
