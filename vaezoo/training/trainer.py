"""The training loop: epochs, steps, log lines, validation, early stopping and checkpoints.

The Trainer owns three parts. `train_step` takes a step, `state` holds all that changes, and
`checkpoints` saves and restores the state. The loop does not wait for the device between two log
lines.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import KW_ONLY, dataclass
from typing import Any

from vaezoo.checkpoint.folder import RunFolder
from vaezoo.checkpoint.format import Progress, save_weights
from vaezoo.data.loader import BatchLoader
from vaezoo.distributed.fsdp import apply_fsdp, full_state_dict
from vaezoo.distributed.launch import (
    all_reduce_max,
    broadcast_module,
    on_rank0_broadcast,
    run_on_rank0,
    seed_step,
)
from vaezoo.errors import OptionError, RunStopped, TrainingError, how_to_resume
from vaezoo.losses.base import BaseLoss, StepContext, evaluate_loss, loss_of
from vaezoo.models.base import BaseVAE
from vaezoo.nn.batch_norm import sync_batch_norm
from vaezoo.runtime.device import Runtime, precision_context, seeded
from vaezoo.training.checkpoints import AsyncWriter, CheckpointManager
from vaezoo.training.cuda_graph import make_train_step
from vaezoo.training.loggers import ProgressCallback, TrainMetrics
from vaezoo.training.optimizers import lr_scale
from vaezoo.training.options import TrainOptions
from vaezoo.training.signals import SignalHandler, StopRequested
from vaezoo.training.state import Best, NonFiniteError, TrainingState, finite_means

_SWING = 5.0
"""A change of speed by more than this factor is not of the model's making."""


@dataclass(eq=False)
class Trainer:
    """Trains a model with its loss into a run folder.

    rebuild: makes a new model on the device, which takes the full weights of a sharded one.
    """

    model: BaseVAE
    loss: BaseLoss
    _: KW_ONLY
    train: BatchLoader
    validation: BatchLoader
    options: TrainOptions
    folder: RunFolder
    runtime: Runtime
    callback: ProgressCallback
    stops: SignalHandler
    rebuild: Callable[[], BaseVAE]

    def __post_init__(self) -> None:
        options, several = self.options, self.runtime.world_size > 1
        if several:
            sync_batch_norm(self.model, self.loss)
            # Machines may draw different weights from one seed.
            broadcast_module(self.model, self.loss)
        if options.shard:
            if not several:
                raise OptionError("--shard needs several processes: leave it out")
            apply_fsdp(self.model, self.loss)
        self.total_steps = options.total_steps(len(self.train))
        self.train_step = make_train_step(
            self.model, self.loss, options, self.runtime, self.total_steps, self.callback.on_note
        )
        self.state = TrainingState(self.model, self.loss, self.train_step, options.log_every)
        self.writer = AsyncWriter()
        self.checkpoints = CheckpointManager(self.state, self.folder, self.writer, options)
        self.in_step = False
        self._notes: list[str] = []
        self._best_rate, self._noted_speed = 0.0, False
        self._log_clock = 0.0  # the time from which the next log line counts

    @property
    def progress(self) -> Progress:
        return self.state.progress

    @property
    def done(self) -> bool:
        """Whether there is nothing left to train or validate."""
        patience = self.options.patience
        out_of_patience = patience is not None and self.state.best.epochs_since >= patience
        finished = out_of_patience or self.progress.step >= self.total_steps
        return finished and not self.state.validation_due

    def resume(self) -> None:
        """Restore the newest valid checkpoint of the run folder, or start from the beginning."""
        self.checkpoints.resume(self._notes.append)

    def fit(self) -> Progress:
        """Train to the end. RunStopped after a signal, TrainingError if values are not finite."""
        now = time.perf_counter()
        self._log_clock = self.checkpoints.last_saved = self.state.wall_clock = now
        for note in self._notes:
            self.callback.on_note(note)
        with precision_context(self.runtime.precision, self.options.deterministic):
            try:
                self._train()
            except NonFiniteError as error:
                raise self._failed(error) from None
            with self.interruptible(alone=True):
                self._finish()
        return self.progress

    def _train(self) -> None:
        """Train to the last step and save a checkpoint of it."""
        self.state.check_weights()
        self.model.train()
        self.loss.train()
        if self.state.validation_due:  # a signal stopped it
            self._validate(-(-self.progress.step // len(self.train)))
        while not self.done:
            self._epoch()
        self.save()
        self.writer.wait()

    @contextmanager
    def interruptible(self, *, alone: bool = False) -> Iterator[None]:
        """A signal stops the body at once: for work between two steps. alone: after the last."""
        try:
            with self.stops.interruptible(alone=alone):
                yield
        except StopRequested:
            raise self._stopped() from None

    def save(self) -> None:
        """Save a checkpoint, if this step has none. NonFiniteError if the state is not finite."""
        if self.checkpoints.is_saved:
            return
        start = time.perf_counter()
        self.state.check()
        self.state.count_time()
        self.checkpoints.save()
        self._log_clock += time.perf_counter() - start  # images per second leave this time out

    def _epoch(self) -> None:
        """Train one epoch, or the rest of it."""
        epoch, start = divmod(self.progress.step, len(self.train))
        batches = self.train.epoch(epoch, start)
        while True:
            with self.interruptible():
                batch = next(batches, None)
            if batch is None:
                break
            self.in_step = True
            seed_step(self.options.seed, self.progress.step)
            self.state.advance(self.train_step(batch, self._context(), self.progress.step))
            self.callback.on_step_end()
            self.in_step = False
            done = self.progress.step in (self.total_steps, (epoch + 1) * len(self.train))
            is_log_step = done or self.state.metric_buffer.full
            if is_log_step:
                self._log(epoch + 1)
            if done:
                self._validate(epoch + 1)
            self.writer.check()
            stop, due = self.stops.asked, int(self.checkpoints.due_by_time)
            if self.runtime.world_size > 1:  # ranks decide together, and only at a log line
                stop, due = all_reduce_max(stop, due) if is_log_step else (0, 0)
            if due or self.checkpoints.due_by_steps:
                self.save()
            if stop:
                raise self._stopped(stop)
            if self.progress.step == self.total_steps:
                return
        if self.progress.step == epoch * len(self.train) + start:
            raise TrainingError(
                f"the data gave no batch from number {start + 1} of epoch {epoch + 1} on, and "
                f"{len(self.train)} were expected: check the data set's __len__ and get_batch"
            )

    def _context(self) -> StepContext:
        return StepContext(self.state.global_step, self.total_steps, len(self.train.split))

    def _log(self, epoch: int) -> None:
        """Write a log line. Reading the metric buffer is the only synchronisation of the loop."""
        rows = self.state.metric_buffer.pop()
        skipped = self.state.check_steps(rows)
        self.state.check_weights()
        now = time.perf_counter()
        seconds, self._log_clock = now - self._log_clock, now
        images = len(rows) * self.options.batch_size
        self.progress.train_seconds += seconds
        self.progress.images += images
        names = self.train_step.names
        terms = dict(zip(names, finite_means(rows, len(names)), strict=True))
        rate = images / seconds
        self._check_speed(rate, seconds)
        step = self.progress.step
        record: dict[str, Any] = {
            "kind": "train",
            "step": step,
            "epoch": epoch,
            "terms": terms,
            "lr": self.options.lr * lr_scale(self.options, step - 1, self.total_steps),
            "images_per_second": round(rate, 1),
            "skipped": skipped,
        }
        self.folder.append_metrics(record)
        self.callback.on_log(TrainMetrics(step, self.total_steps, epoch, rate, terms))

    def _check_speed(self, rate: float, seconds: float) -> None:
        """Note once that training became more than five times slower on a CPU."""
        slower = self._best_rate > _SWING * rate and seconds > 1
        if slower and self.runtime.device.type == "cpu" and not self._noted_speed:
            self._noted_speed = True
            self.callback.on_note(
                f"the speed fell from {self._best_rate:,.0f} to {rate:,.0f} images/s: another "
                "process may use these CPUs; if it stays, OMP_WAIT_POLICY=passive before the "
                "command, or a smaller --threads, is faster"
            )
        self._best_rate = max(self._best_rate, rate)

    def _validate(self, epoch: int) -> None:
        self.state.validation_due = True
        ema = self.train_step.ema
        with self.interruptible(), ema.applied() if ema else nullcontext():
            terms = self._validation_terms(self.model, self.loss)
        bits, likelihood = None, getattr(self.model, "likelihood", None)
        if likelihood is not None and math.isfinite(terms.get("elbo", math.nan)):
            bits = likelihood.bits_per_dim(-terms["elbo"], self.model.data)
        record: dict[str, Any] = {
            "kind": "validation",
            "step": self.progress.step,
            "epoch": epoch,
            # JSON has no NaN or infinity; a validation loss may be either, and training continues.
            "terms": {k: v if math.isfinite(v) else None for k, v in terms.items()},
            "bits_per_dim": bits,
        }
        self.folder.append_metrics(record)
        score = terms.get("elbo", -terms["loss"])
        self.state.score = score if math.isfinite(score) else None
        if self.options.patience is not None:
            best = self.state.best
            best.epochs_since += 1
            if score > best.score:  # NaN never is
                weights = {n: t.detach().clone() for n, t in self.train_step.weights().items()}
                self.state.best = Best(score, 0, weights)
        self.state.validation_due = False
        self.callback.on_validation_end(epoch, record)
        self._log_clock = time.perf_counter()

    def _validation_terms(self, model: BaseVAE, loss: BaseLoss) -> dict[str, float]:
        seed, together = self.options.seed, self.options.shard
        return evaluate_loss(model, loss, self.validation, self._context(), seed, together)

    def validation_loss(self, *, untrained: bool = False) -> float:
        """The negative ELBO on held-out data, or the loss if there is no ELBO; NaN if not finite.

        A loss against a discriminator is no measure of a model: infinity stands for it.
        untrained: of a new model.
        """
        model, loss = self.model, self.loss
        if untrained:
            with seeded(self.options.seed, self.runtime.device):
                model = self.rebuild()
            loss = loss_of(model).to(self.runtime.device)
            broadcast_module(model, loss)
        terms = self._validation_terms(model, loss)
        value = -terms.get("elbo", -terms["loss"])
        if not math.isfinite(value + terms["loss"]):
            return math.nan
        return value if "elbo" in terms or len(self.train_step.phases) == 1 else math.inf

    def _failed(self, error: NonFiniteError) -> TrainingError:
        """Return to the newest checkpoint whose validation loss is sane, and say how to go on.

        Sane: at most twice as far from 0 as that of an untrained model.
        """
        self.writer.wait()
        what, lr = f"training failed: {error}", min(self.options.lr / 10, 1e-3)
        start = self.validation_loss(untrained=True)
        if math.isnan(start):
            return TrainingError(
                f"{what}; the loss of the untrained model is not finite either: check the data and "
                "the options of the model and the loss"
            )
        sane = start + abs(start)
        if not on_rank0_broadcast(lambda: self.folder.has_progress):  # the folder is removed
            return TrainingError(f"{what}; train again with --lr {lr:g}")
        if not self.checkpoints.paths():
            where = "from the beginning: there is no checkpoint yet"
        elif found := self.checkpoints.keep_newest(lambda: self.validation_loss() <= sane):
            if self.folder.is_writer:
                save_weights(self.folder.weights, full_state_dict(self.model.state_dict()))
            where = f"from step {found}, the last checkpoint whose validation loss is sane"
            where += f"; {self.folder.weights} has its weights"
        else:
            return TrainingError(
                f"{what}; no checkpoint has a sane validation loss: train again with --lr {lr:g}"
            )
        return TrainingError(f"{what}; {how_to_resume(self.folder.path)} --lr {lr:g} ({where})")

    def _finish(self) -> None:
        """Fit the prior and save the final weights. The last checkpoint is not changed."""
        best = self.state.best.weights if self.options.patience is not None else {}
        self.model.load_state_dict(best or self.train_step.weights())
        if self.options.shard:
            state = full_state_dict(self.model.state_dict())
            self.model = self.rebuild()
            self.model.load_state_dict(state)
        run_on_rank0(lambda: self.model.fit_sampler(self.train.sequential()), self.model)
        if self.folder.is_writer:
            save_weights(self.folder.weights, self.model.state_dict())
        self.state.count_time()

    def _stopped(self, number: int = 0) -> RunStopped:
        """Save a checkpoint. number: of the signal, which another rank may have received."""
        self.save()
        self.writer.wait()
        return RunStopped(self.folder.path, self.progress.step, number or self.stops.asked)


def check_batch_size(
    batch_size: int, examples: int, model: BaseVAE, world_size: int, accumulate: int = 1
) -> None:
    """OptionError unless the data has a batch of this size, and each part of it is large enough.

    A model with batch statistics needs at least `model.min_batch_size` examples in each part.
    """
    least, parts = model.min_batch_size, world_size * accumulate
    sharers = f"{parts} {'processes' if accumulate == 1 else 'parts (--accumulate, processes)'}"
    share = batch_size // parts
    if examples < least * parts:
        needed = f"{least} for a batch"
        if parts > 1:
            needed = f"{least * parts}, {least} for each of {sharers}"
        found = "1 training example is" if examples == 1 else f"{examples} training examples are"
        raise OptionError(f"{found} too few: this model needs {needed}")
    if batch_size > examples:
        problem = f"is larger than the {examples:,} training examples"
        advice = f"--batch-size {examples} or less"
    elif batch_size < least:
        problem, advice = "is too small for this model", f"--batch-size {least} or more"
    elif batch_size % parts:
        problem, advice = f"cannot be shared by {sharers}", f"a multiple of {parts}"
    elif share < least:
        problem = f"leaves {share} to each of {sharers}, too few for this model"
        advice = f"--batch-size {parts * least} or more"
    else:
        return
    raise OptionError(f"--batch-size {batch_size} {problem}: give {advice}")
