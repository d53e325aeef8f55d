"""The one training loop: steps, log windows, validation, checkpoints, and going on after a stop.

Nothing here waits for the device between two log lines, and nothing here knows what a loss does
in its phases.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaezoo.data.batch import Batch
from vaezoo.data.batches import Batches
from vaezoo.distributed import processes
from vaezoo.errors import (
    OptionError,
    RunError,
    RunStopped,
    TrainingError,
    VaezooError,
    how_to_resume,
)
from vaezoo.evaluation.terms import mean_terms
from vaezoo.files import write_text
from vaezoo.losses.base import BaseLoss, Context
from vaezoo.model import BaseVAE
from vaezoo.runfolder import RunFolder
from vaezoo.training.background import Background, HostCopy
from vaezoo.training.batch_norm import share_batch_norm
from vaezoo.training.checkpoint import (
    Checkpoint,
    check_fit,
    list_checkpoints,
    load_checkpoint,
    load_into,
    load_optimizers,
    optimizer_tensors,
    random_state,
    save_checkpoint,
    save_weights,
    set_random_state,
    step_of,
)
from vaezoo.training.graphed import make_updates
from vaezoo.training.machine import arithmetic
from vaezoo.training.options import TrainOptions
from vaezoo.training.processes import (
    agreed,
    by_the_first,
    done_by_the_first,
    draw_for_step,
    hand_out,
    tensors_by_the_first,
)
from vaezoo.training.report import Progress, Reporter
from vaezoo.training.resumable import check_resumable
from vaezoo.training.sharding import spread_layers, spread_like, total_norm, whole
from vaezoo.training.stops import StopAsked, Stops
from vaezoo.training.trouble import in_one_line, is_out_of_memory, what_to_lower
from vaezoo.training.updates import lr_factor
from vaezoo.training.window import Window, finite, first_broken, means

_SOONER = 0.1
"""The best weights so far are saved after this part of the time between checkpoints."""


@dataclass
class Position:
    """How far training is; with the tensors of a checkpoint, all that going on needs."""

    step: int = 0
    images: int = 0
    train_seconds: float = 0.0
    wall_seconds: float = 0.0
    skipped: int = 0


@dataclass
class Best:
    """The best weights by held-out data so far, and for how many epochs they have been that."""

    score: float = -math.inf
    epochs_since: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)


class Trainer:
    """Trains a model with its loss, into a run folder.

    rebuild: makes a model like it, whole and on its device, to hold what a sharded one learned.
    """

    def __init__(
        self,
        model: BaseVAE,
        loss: BaseLoss,
        *,
        train: Batches,
        validation: Batches,
        options: TrainOptions,
        folder: RunFolder,
        precision: str,
        reporter: Reporter,
        stops: Stops,
        rebuild: Callable[[], BaseVAE],
    ) -> None:
        check_batch_size(options.batch_size, len(train.split), model)
        if processes() > 1:
            share_batch_norm(model, loss)
            hand_out(model, loss)  # drawn from one seed, but perhaps by different machines
        if options.shard:
            if processes() == 1:
                raise OptionError("--shard spreads a model over several processes: leave it out")
            spread_layers(model, loss)
        self.device = train.device
        self.model = model
        self.loss = loss
        self.train = train
        self.validation = validation
        self.options = options
        self.folder = folder
        self.precision = precision
        self.reporter = reporter
        self.rebuild = rebuild
        self.total_steps = options.steps or (options.epochs or 1) * len(train)
        self.updates = make_updates(
            model,
            loss,
            options,
            device=self.device,
            precision=precision,
            total_steps=self.total_steps,
            note=reporter.note,
        )
        self.position = Position()
        self.step_on_device = torch.zeros((), dtype=torch.int64, device=self.device)
        self.window: Window | None = None
        self.good: dict[str, Tensor] = {}
        self.good_step = 0
        self.stops = stops
        self.best = Best()
        self.score: float | None = None  # by held-out data, of the weights as they are now
        self.validation_due = False
        self.within_step = False
        self.saved_step: int | None = None
        self.saved_score = -math.inf
        self.background = Background()
        self.host_copy = HostCopy()
        self.notes: list[str] = []

    def fit(self) -> Position:
        """Train to the end. RunStopped when asked to stop, TrainingError when the loss breaks."""
        self.clock = self.saved_at = self.started = time.perf_counter()
        for note in self.notes:
            self.reporter.note(note)
        self._remember()
        with arithmetic(self.precision, self.options.deterministic):
            self.model.train()
            self.loss.train()
            if self.validation_due:  # it was broken off by a stop
                self._validate(-(-self.position.step // len(self.train)))
            while not self.done:
                self._epoch()
            self._save()
            self.background.wait()
            with self.leaving():
                self._finish()
        return self.position

    @property
    def done(self) -> bool:
        """Whether there is no step left to take."""
        return not self.validation_due and (
            self.position.step >= self.total_steps or self._out_of_patience()
        )

    def _finish(self) -> None:
        """What follows the last step. The checkpoint stays before it: training can go on there."""
        if self.best.weights:
            self.model.load_state_dict(self.best.weights)
        if self.options.shard:
            state = whole(self.model.state_dict())
            self.model = self.rebuild()
            self.model.load_state_dict(state)
        done_by_the_first(lambda: self.model.fit_prior(self.train.ordered), self.model)
        if self.folder.writes:
            save_weights(self.folder.weights, self.model.state_dict())
        self._count_time()

    @contextmanager
    def leaving(self) -> Iterator[None]:
        """What follows the last checkpoint: it is left as soon as a stop is asked for."""
        try:
            with self.stops.leaving():
                yield
        except StopAsked:
            raise self._stopped() from None

    def resume(self) -> None:
        """Go back to the newest sound checkpoint of the run folder, or to the beginning."""
        size = self.folder.metrics_bytes()

        def fits(checkpoint: Checkpoint) -> None:
            check_resumable(checkpoint, size)

        found = None
        if self.folder.writes:
            found = load_checkpoint(self.folder.checkpoints, fits, self.notes.append)
        found = _for_all(found)
        if found is None:
            self.notes.append("there is no checkpoint yet: begins again")
            self.folder.cut_metrics(0)
            return
        try:
            self._restore(found)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise RunError(f"{found.path} does not fit the training: {error}") from None

    def _restore(self, checkpoint: Checkpoint) -> None:
        path, tensors, state = checkpoint
        load_into(self.model, tensors["model"], path)
        load_into(self.loss, tensors.get("loss", {}), path)
        load_optimizers(self.updates.optimizers, tensors.get("optimizers", {}), path)
        set_random_state(tensors["random"], self.device)
        self.position = Position(**state["position"])
        self.step_on_device.fill_(self.position.step)
        self.updates.names = tuple(state["names"])
        if self.updates.names:
            self._window().restore(tensors["window"]["values"])
        if self.updates.guard is not None and "guard" in tensors:
            self.updates.guard.restore(tensors["guard"])
        if state["best"]:
            own = self.model.state_dict()
            check_fit(own, tensors["best"], path)
            best = {
                name: spread_like(tensor.to(self.device), own[name])
                for name, tensor in tensors["best"].items()
            }
            self.best = Best(**state["best"], weights=best)
        self.validation_due = state["validation_due"]
        self.folder.cut_metrics(state["metrics_bytes"])
        self.saved_step = self.position.step

    def context(self) -> Context:
        return Context(self.step_on_device, self.total_steps, len(self.train.split))

    def _epoch(self) -> None:
        """One epoch, or what is left of it."""
        epoch, start = divmod(self.position.step, len(self.train))
        for batch in self.train.epoch(epoch, start):
            self._step(batch)
            done = self.position.step in (self.total_steps, (epoch + 1) * len(self.train))
            logs = done or self._window().full
            if logs:
                self._log(epoch + 1)
            if done:
                self._validate(epoch + 1)
            self.background.look()
            stop, due = self.stops.asked, int(self._save_is_due())
            if processes() > 1:  # they decide together, and between two log lines they do not talk
                stop, due = agreed(stop, due) if logs else (0, 0)
            if due or self._save_is_planned():
                self._save()
            if stop:
                raise self._stopped(stop)
            if self.position.step == self.total_steps:
                return

    def _step(self, batch: Batch) -> None:
        self.within_step = True
        draw_for_step(self.options.seed, self.position.step)
        values = self.updates(batch, self.context(), self.position.step)
        self.position.step += 1
        self.step_on_device += 1
        self._window().add(values)
        self.reporter.step()
        self.score = None
        self.within_step = False

    def _window(self) -> Window:
        if self.window is None:
            self.window = Window(
                self.options.log_every, len(self.updates.names), self.step_on_device.device
            )
        return self.window

    def _log(self, epoch: int) -> None:
        """Read the window, the one synchronisation, and write its line."""
        rows = self._window().read()
        skipped = self._check(rows)
        self._remember()
        now = time.perf_counter()
        seconds, self.clock = now - self.clock, now
        images = len(rows) * self.options.batch_size
        self.position.train_seconds += seconds
        self.position.images += images
        counted = means(finite(rows)) if finite(rows) else [None] * len(self.updates.names)
        terms = dict(zip(self.updates.names, counted, strict=True))
        rate = images / seconds
        factor = lr_factor(self.options.schedule, self.position.step - 1, self.total_steps)
        record: dict[str, Any] = {
            "kind": "train",
            "step": self.position.step,
            "epoch": epoch,
            "terms": terms,
            "lr": self.options.lr * factor,
            "images_per_second": round(rate, 1),
            "skipped": skipped,
        }
        self.folder.append_metrics(record)
        self.reporter.window(Progress(self.position.step, self.total_steps, epoch, rate, terms))

    def _check(self, rows: list[list[float]]) -> int:
        """TrainingError if a step of the window broke; else how many of them were left out."""
        first = self.position.step - len(rows) + 1
        guard = self.updates.guard
        broken = first_broken(rows, self.updates.names)
        if broken and guard is None:
            row, name, value = broken
            raise self._broke(f"{name} became {value} at step {first + row}")
        if guard is None:
            return 0
        before = self.position.skipped
        self.position.skipped, too_many = guard.read()
        if too_many:
            named = "a gradient was not finite"
            if broken:
                named = f"{broken[1]} was {broken[2]} at step {first + broken[0]}"
            raise self._broke(f"{self.position.skipped} steps had to be skipped, {named}")
        return self.position.skipped - before

    def _validate(self, epoch: int) -> None:
        self.validation_due = True
        try:
            with self.stops.leaving():
                terms = mean_terms(
                    self.model,
                    self.loss,
                    self.validation,
                    self.context(),
                    seed=self.options.seed,
                    together=self.options.shard,
                )
        except StopAsked:
            raise self._stopped() from None
        record: dict[str, Any] = {
            "kind": "validation",
            "step": self.position.step,
            "epoch": epoch,
            # A validation loss that is no number is no reason to stop; JSON has no word for it.
            "terms": {k: v if math.isfinite(v) else None for k, v in terms.items()},
            "bits_per_dim": self._bits_per_dim(terms),
        }
        self.folder.append_metrics(record)
        score = terms.get("elbo", -terms["objective"])
        self.score = score if math.isfinite(score) else None
        if self.options.patience is not None:
            self._compare(score)
        self.validation_due = False
        self.reporter.validation(epoch, record)
        self.clock = time.perf_counter()

    def _compare(self, score: float) -> None:
        """Keep these weights if they are the best so far. A score that is no number never is."""
        self.best.epochs_since += 1
        if score > self.best.score:
            weights = {name: t.detach().clone() for name, t in self.model.state_dict().items()}
            self.best = Best(score, 0, weights)

    def _out_of_patience(self) -> bool:
        patience = self.options.patience
        return patience is not None and self.best.epochs_since >= patience

    def _bits_per_dim(self, terms: Mapping[str, float]) -> float | None:
        likelihood = getattr(self.model, "likelihood", None)
        if likelihood is None or not math.isfinite(terms.get("elbo", math.nan)):
            return None
        bits: float | None = likelihood.bits_per_dim(-terms["elbo"], self.model.data)
        return bits

    def _remember(self) -> None:
        """Keep these weights as the last good ones, if they are."""
        self._check_weights()
        state = self.model.state_dict()
        if self.good:
            for name, tensor in state.items():
                self.good[name].copy_(tensor)
        else:
            self.good = {name: tensor.detach().clone() for name, tensor in state.items()}
        self.good_step = self.position.step

    def _check_weights(self) -> None:
        """TrainingError if a weight is not finite. Waits for the device."""
        norm = total_norm(self.model.parameters())
        if not torch.isfinite(norm):
            raise self._broke(
                f"the weights stopped being finite after step {self.good_step}"
                if self.good
                else "the weights are not finite to begin with"
            )

    def _broke(self, what: str) -> TrainingError:
        self.background.wait()
        good = whole(self.good)
        if self.folder.writes:
            save_weights(self.folder.weights, good)
        found = list_checkpoints(self.folder.checkpoints)
        saved = f", and the last good checkpoint is {found[-1]}" if found else ""
        ways = ["a smaller --lr", "--grad-clip 1"]
        if self.updates.guard is None:
            ways.append("--on-nonfinite skip")
        return TrainingError(
            f"training broke: {what}; the weights of step {self.good_step} are kept in "
            f"{self.folder.weights}{saved}; {how_to_resume(self.folder.path)} with "
            f"{' or '.join(ways)}"
        )

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Whatever ends the body leaves a run that goes on, where there is one, and is told so.

        What is no error of vaezoo's becomes a TrainingError in one line, its traceback a file of
        the run folder; before anything was logged it passes as it is.
        """
        try:
            yield
        except (RunStopped, TrainingError):
            raise
        except Exception as error:
            with suppress(VaezooError):
                self.background.wait()  # whether there is a checkpoint is known then
            if isinstance(error, VaezooError):
                if self.folder.begun:
                    self._rescue(save=not isinstance(error, RunError))
                    error.args = (f"{error}; {how_to_resume(self.folder.path)}",)
                raise
            if is_out_of_memory(error):
                torch.cuda.empty_cache()
                what = f"{self.device} is out of memory: "
                what += what_to_lower(self.options, self.precision)
            elif self.folder.begun:
                what = in_one_line(error)
            else:
                raise
            raise TrainingError(self._failed(what, error)) from error

    def _failed(self, what: str, error: Exception) -> str:
        step = self.position.step
        when = f"in step {step + 1}" if self.within_step else f"after step {step}"
        message = f"training broke {when}: {what}"
        if not self.folder.begun:
            return message
        with suppress(RunError):
            write_text(self.folder.traceback, "".join(traceback.format_exception(error)))
            message += f"; the traceback is in {self.folder.traceback}"
        self._rescue(save=True)
        found = list_checkpoints(self.folder.checkpoints)
        saved = f"step {step_of(found[-1])}" if found else "the beginning"
        return f"{message}; {how_to_resume(self.folder.path)} (from {saved})"

    def _rescue(self, *, save: bool) -> None:
        """Between two steps everything is whole, and is saved; within one it is not.

        What is shared with other processes cannot be saved when one of them is in trouble.
        """
        with suppress(VaezooError):
            self.background.wait()
            if processes() == 1 and save and not self.within_step and self.position.step:
                self._save()
                self.background.wait()

    def _stopped(self, number: int = 0) -> RunStopped:
        """number: of the signal, which another process of the job may have been given."""
        self._save()
        self.background.wait()
        return RunStopped(self.folder.path, self.position.step, number or self.stops.asked)

    def _save_is_planned(self) -> bool:
        every = self.options.checkpoint_every
        return every is not None and self.position.step % every == 0

    def _save_is_due(self) -> bool:
        """By the clock."""
        seconds = self.options.checkpoint_seconds
        if seconds is None or self.background.busy:
            return False
        is_best = self.score is not None and self.score > self.saved_score
        waited = time.perf_counter() - self.saved_at
        return waited > seconds * (_SOONER if is_best else 1.0)

    def _save(self) -> None:
        """A checkpoint, and the weights where everyone looks for them.

        Training waits for the copy to the host; a thread writes it. What is not finite is never
        saved: TrainingError tells of it, as the log line would have.
        """
        if self.saved_step == self.position.step:
            return
        begun = time.perf_counter()
        self.background.wait()  # the buffers of the copy are in use until then
        if self.window is not None and self.updates.guard is None:
            self._check(self.window.peek())
        self._check_weights()
        self._count_time()
        step, folder, keep = self.position.step, self.folder, self.options.keep_checkpoints
        there, state = self._tensors(), self._state()  # of which other processes have a part
        if not folder.writes:
            self._saved(begun)
            return
        tensors = self.host_copy.take(there, self.device)

        def write() -> None:
            folder.sync_metrics()
            save_checkpoint(folder.checkpoints, step, tensors, state, keep=keep)
            save_weights(folder.weights, tensors["model"])

        self.background.run(write)
        self._saved(begun)

    def _saved(self, begun: float) -> None:
        """Remember what was saved. begun: when that began; training stood still since."""
        self.saved_step, self.saved_at = self.position.step, time.perf_counter()
        if self.score is not None:
            self.saved_score = max(self.saved_score, self.score)
        self.clock += self.saved_at - begun

    def _tensors(self) -> dict[str, Mapping[str, Tensor]]:
        """All tensors that going on needs, by the file that they are kept in."""
        tensors: dict[str, Mapping[str, Tensor]] = {
            "model": whole(self.model.state_dict()),
            "loss": whole(self.loss.state_dict()),
            "optimizers": whole(optimizer_tensors(self.updates.optimizers)),
            "random": random_state(self.device),
        }
        if self.window is not None:
            tensors["window"] = {"values": self.window.saved()}
        if self.updates.guard is not None:
            tensors["guard"] = self.updates.guard.saved()
        if self.best.weights:
            tensors["best"] = whole(self.best.weights)
        return tensors

    def _state(self) -> dict[str, Any]:
        """The rest of it."""
        best = {"score": self.best.score, "epochs_since": self.best.epochs_since}
        return {
            "position": dict(vars(self.position)),
            "best": best if self.best.weights else None,
            "score": self.score,
            "validation_due": self.validation_due,
            "names": list(self.updates.names),
            "metrics_bytes": self.folder.metrics_bytes(),
        }

    def _count_time(self) -> None:
        now = time.perf_counter()
        self.position.wall_seconds += now - self.started
        self.started = now


def _for_all(found: Checkpoint | None) -> Checkpoint | None:
    """The checkpoint that the first process read, in all of them."""
    if processes() == 1:
        return found
    said: dict[str, Any] = by_the_first(
        lambda: {"path": str(found.path), "state": found.state} if found else {}
    )
    if not said:
        return None
    tensors = tensors_by_the_first(None if found is None else found.tensors)
    return Checkpoint(Path(str(said["path"])), tensors, dict(said["state"]))


def check_batch_size(batch_size: int, examples: int, model: BaseVAE) -> None:
    """OptionError unless a batch of this size can be had and shared, and the model can learn."""
    if batch_size > examples:
        raise OptionError(
            f"--batch-size {batch_size} is larger than the {examples:,} training examples: "
            f"give --batch-size {examples} or less"
        )
    if batch_size < model.min_batch_size:
        raise OptionError(
            f"--batch-size {batch_size} is too small for this model: "
            f"give --batch-size {model.min_batch_size} or more"
        )
    count = processes()
    if batch_size % count:
        raise OptionError(
            f"--batch-size {batch_size} cannot be shared by {count} processes: "
            f"give a multiple of {count}"
        )
    if batch_size // count < model.min_batch_size:
        raise OptionError(
            f"--batch-size {batch_size} leaves {batch_size // count} to each of {count} processes, "
            f"too few for this model: give --batch-size {count * model.min_batch_size} or more"
        )
