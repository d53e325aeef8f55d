"""What is done for a run that an error ends: it is saved if it can be, and told how it goes on."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from vaezoo.distributed import processes
from vaezoo.errors import RunError, RunStopped, TrainingError, VaezooError, how_to_resume
from vaezoo.files import write_text
from vaezoo.training.checkpoint import list_checkpoints, step_of
from vaezoo.training.loop import Trainer
from vaezoo.training.trouble import in_one_line, is_out_of_memory, what_to_lower


@contextmanager
def kept(trainer: Trainer) -> Iterator[None]:
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
            if folder.begun:
                _rescue(trainer, save=not isinstance(error, RunError))
                error.args = (f"{error}; {how_to_resume(folder.path)}",)
            raise
        if is_out_of_memory(error):
            torch.cuda.empty_cache()
            what = f"{trainer.device} is out of memory: "
            what += what_to_lower(trainer.options, trainer.precision)
        elif folder.begun:
            what = in_one_line(error)
        else:
            raise
        raise TrainingError(_failed(trainer, what, error)) from error


def _failed(trainer: Trainer, what: str, error: Exception) -> str:
    """Save what can be saved, and say what happened, when, and how to go on."""
    step, folder = trainer.position.step, trainer.folder
    when = f"in step {step + 1}" if trainer.within_step else f"after step {step}"
    message = f"training broke {when}: {what}"
    if not folder.begun:
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
        if processes() == 1 and save and not trainer.within_step and trainer.position.step:
            trainer.saver.save()
            trainer.background.wait()
