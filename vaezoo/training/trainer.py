"""The one training loop: epochs, steps, log windows, validation, patience, and stops.

Nothing here waits for the device between two log lines, and nothing here knows what a loss does
in its phases. What changes is in state.py; saver.py keeps it, and health.py looks at it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from vaezoo.checkpoint.async_writer import AsyncWriter
from vaezoo.checkpoint.folder import RunFolder
from vaezoo.checkpoint.format import save_weights
from vaezoo.checkpoint.manager import CheckpointManager
from vaezoo.data.base import Batch
from vaezoo.data.loader import BatchLoader
from vaezoo.distributed import world_size
from vaezoo.distributed.batch_norm import sync_batch_norm
from vaezoo.distributed.fsdp import apply_fsdp, full_state_dict
from vaezoo.distributed.launch import all_reduce_max, broadcast_module, run_on_rank0, seed_step
from vaezoo.errors import OptionError, RunStopped
from vaezoo.losses.base import BaseLoss, StepContext
from vaezoo.losses.evaluate import evaluate_loss
from vaezoo.models.base import BaseVAE
from vaezoo.runtime.device import precision_context
from vaezoo.training.callback import ProgressCallback, TrainMetrics
from vaezoo.training.cuda_graph import make_train_step
from vaezoo.training.monitor import NonFiniteMonitor
from vaezoo.training.options import TrainOptions
from vaezoo.training.signals import SignalHandler, StopRequested
from vaezoo.training.state import Best, Progress, TrainingState, finite, means
from vaezoo.training.train_step import lr_scale


class Trainer:
    """Trains a model with its loss, into a run folder.

    rebuild: makes a model like it, whole and on its device, to hold what a sharded one learned.
    """

    def __init__(
        self,
        model: BaseVAE,
        loss: BaseLoss,
        *,
        train: BatchLoader,
        validation: BatchLoader,
        options: TrainOptions,
        folder: RunFolder,
        precision: str,
        callback: ProgressCallback,
        stops: SignalHandler,
        rebuild: Callable[[], BaseVAE],
    ) -> None:
        if world_size() > 1:
            sync_batch_norm(model, loss)
            broadcast_module(model, loss)  # drawn from one seed, but perhaps by different machines
        if options.shard:
            if world_size() == 1:
                raise OptionError("--shard spreads a model over several processes: leave it out")
            apply_fsdp(model, loss)
        self.device = train.device
        self.model = model
        self.loss = loss
        self.train = train
        self.validation = validation
        self.options = options
        self.folder = folder
        self.precision = precision
        self.callback = callback
        self.stops = stops
        self.rebuild = rebuild
        self.total_steps = options.steps or (options.epochs or 1) * len(train)
        self.train_step = make_train_step(
            model,
            loss,
            options,
            device=self.device,
            precision=precision,
            total_steps=self.total_steps,
            note=callback.on_note,
        )
        self.state = TrainingState(model, loss, self.train_step, log_every=options.log_every)
        self.background = AsyncWriter()
        self.health = NonFiniteMonitor(self.state, folder, self.background)
        self.saver = CheckpointManager(
            self.state, folder, options, background=self.background, health=self.health
        )
        self.within_step = False
        self.notes: list[str] = []

    @property
    def progress(self) -> Progress:
        return self.state.progress

    @property
    def done(self) -> bool:
        """Whether there is no step left to take."""
        return not self.state.validation_due and (
            self.progress.step >= self.total_steps or self._out_of_patience()
        )

    def resume(self) -> None:
        """Go back to the newest sound checkpoint of the run folder, or to the beginning."""
        self.saver.resume(self.notes.append)

    def fit(self) -> Progress:
        """Train to the end. RunStopped when asked to stop, TrainingError when the loss breaks."""
        self.clock = self.saver.last_saved = self.state.counted = time.perf_counter()
        for note in self.notes:
            self.callback.on_note(note)
        self.health.snapshot()
        with precision_context(self.precision, self.options.deterministic):
            self.model.train()
            self.loss.train()
            if self.state.validation_due:  # it was broken off by a stop
                self._validate(-(-self.progress.step // len(self.train)))
            while not self.done:
                self._epoch()
            self.saver.save()
            self.background.wait()
            with self.interruptible():
                self._finish()
        return self.progress

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """What follows the last checkpoint: it is left as soon as a stop is asked for."""
        try:
            with self.stops.interruptible():
                yield
        except StopRequested:
            raise self._stopped() from None

    def _epoch(self) -> None:
        """One epoch, or what is left of it."""
        epoch, start = divmod(self.progress.step, len(self.train))
        for batch in self.train.epoch(epoch, start):
            self._step(batch)
            done = self.progress.step in (self.total_steps, (epoch + 1) * len(self.train))
            logs = done or self.state.window.full
            if logs:
                self._log(epoch + 1)
            if done:
                self._validate(epoch + 1)
            self.background.look()
            stop, due = self.stops.asked, int(self.saver.due)
            if world_size() > 1:  # they decide together, and between two log lines they do not talk
                stop, due = all_reduce_max(stop, due) if logs else (0, 0)
            if due or self.saver.planned:
                self.clock += self.saver.save()
            if stop:
                raise self._stopped(stop)
            if self.progress.step == self.total_steps:
                return

    def _step(self, batch: Batch) -> None:
        self.within_step = True
        seed_step(self.options.seed, self.progress.step)
        self.state.advance(self.train_step(batch, self._context(), self.progress.step))
        self.callback.on_step_end()
        self.within_step = False

    def _context(self) -> StepContext:
        return StepContext(self.state.step_on_device, self.total_steps, len(self.train.split))

    def _log(self, epoch: int) -> None:
        """Read the window, the one synchronisation, and write its line."""
        rows = self.state.window.read()
        skipped = self.health.check_steps(rows)
        self.health.snapshot()
        now = time.perf_counter()
        seconds, self.clock = now - self.clock, now
        images = len(rows) * self.options.batch_size
        self.progress.train_seconds += seconds
        self.progress.images += images
        counted = means(finite(rows)) if finite(rows) else [None] * len(self.train_step.names)
        terms = dict(zip(self.train_step.names, counted, strict=True))
        rate = images / seconds
        factor = lr_scale(self.options.schedule, self.progress.step - 1, self.total_steps)
        record: dict[str, Any] = {
            "kind": "train",
            "step": self.progress.step,
            "epoch": epoch,
            "terms": terms,
            "lr": self.options.lr * factor,
            "images_per_second": round(rate, 1),
            "skipped": skipped,
        }
        self.folder.append_metrics(record)
        self.callback.on_log(TrainMetrics(self.progress.step, self.total_steps, epoch, rate, terms))

    def _validate(self, epoch: int) -> None:
        self.state.validation_due = True
        try:
            with self.stops.interruptible():
                terms = evaluate_loss(
                    self.model,
                    self.loss,
                    self.validation,
                    self._context(),
                    seed=self.options.seed,
                    together=self.options.shard,
                )
        except StopRequested:
            raise self._stopped() from None
        record: dict[str, Any] = {
            "kind": "validation",
            "step": self.progress.step,
            "epoch": epoch,
            # A validation loss that is no number is no reason to stop; JSON has no word for it.
            "terms": {k: v if math.isfinite(v) else None for k, v in terms.items()},
            "bits_per_dim": self._bits_per_dim(terms),
        }
        self.folder.append_metrics(record)
        score = terms.get("elbo", -terms["loss"])
        self.state.score = score if math.isfinite(score) else None
        if self.options.patience is not None:
            self._compare(score)
        self.state.validation_due = False
        self.callback.on_validation_end(epoch, record)
        self.clock = time.perf_counter()

    def _bits_per_dim(self, terms: Mapping[str, float]) -> float | None:
        likelihood = getattr(self.model, "likelihood", None)
        if likelihood is None or not math.isfinite(terms.get("elbo", math.nan)):
            return None
        bits: float | None = likelihood.bits_per_dim(-terms["elbo"], self.model.data)
        return bits

    def _compare(self, score: float) -> None:
        """Keep these weights if they are the best so far. A score that is no number never is."""
        best = self.state.best
        best.epochs_since += 1
        if score > best.score:
            weights = {name: t.detach().clone() for name, t in self.model.state_dict().items()}
            self.state.best = Best(score, 0, weights)

    def _out_of_patience(self) -> bool:
        patience = self.options.patience
        return patience is not None and self.state.best.epochs_since >= patience

    def _finish(self) -> None:
        """What follows the last step. The checkpoint stays before it: training can go on there."""
        if self.options.patience is not None and self.state.best.weights:
            self.model.load_state_dict(self.state.best.weights)
        if self.options.shard:
            state = full_state_dict(self.model.state_dict())
            self.model = self.rebuild()
            self.model.load_state_dict(state)
        run_on_rank0(lambda: self.model.fit_prior(self.train.sequential), self.model)
        if self.folder.is_writer:
            save_weights(self.folder.weights, self.model.state_dict())
        self.state.count_time()

    def _stopped(self, number: int = 0) -> RunStopped:
        """number: of the signal, which another process of the job may have been given."""
        self.saver.save()
        self.background.wait()
        return RunStopped(self.folder.path, self.progress.step, number or self.stops.asked)
