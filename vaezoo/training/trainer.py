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

from vaezoo.checkpoint.async_writer import Background
from vaezoo.checkpoint.folder import RunFolder
from vaezoo.checkpoint.format import save_weights
from vaezoo.checkpoint.manager import Saver
from vaezoo.data.base import Batch
from vaezoo.data.loader import Batches
from vaezoo.distributed import processes
from vaezoo.distributed.batch_norm import share_batch_norm
from vaezoo.distributed.fsdp import all_whole, spread_layers
from vaezoo.distributed.launch import agreed, done_by_the_first, draw_for_step, hand_out
from vaezoo.errors import OptionError, RunStopped
from vaezoo.losses.base import BaseLoss, Context
from vaezoo.losses.evaluate import mean_terms
from vaezoo.models.base import BaseVAE
from vaezoo.runtime.device import arithmetic
from vaezoo.training.cuda_graph import make_updates
from vaezoo.training.monitor import Health
from vaezoo.training.options import TrainOptions
from vaezoo.training.progress import Progress, Reporter
from vaezoo.training.signals import StopAsked, Stops
from vaezoo.training.state import Best, Position, TrainingState, finite, means
from vaezoo.training.train_step import lr_factor


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
        self.stops = stops
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
        self.state = TrainingState(model, loss, self.updates, log_every=options.log_every)
        self.background = Background()
        self.health = Health(self.state, folder, self.background)
        self.saver = Saver(
            self.state, folder, options, background=self.background, health=self.health
        )
        self.within_step = False
        self.notes: list[str] = []

    @property
    def position(self) -> Position:
        return self.state.position

    @property
    def done(self) -> bool:
        """Whether there is no step left to take."""
        return not self.state.validation_due and (
            self.position.step >= self.total_steps or self._out_of_patience()
        )

    def resume(self) -> None:
        """Go back to the newest sound checkpoint of the run folder, or to the beginning."""
        self.saver.resume(self.notes.append)

    def fit(self) -> Position:
        """Train to the end. RunStopped when asked to stop, TrainingError when the loss breaks."""
        self.clock = self.saver.last_saved = self.state.counted = time.perf_counter()
        for note in self.notes:
            self.reporter.note(note)
        self.health.remember()
        with arithmetic(self.precision, self.options.deterministic):
            self.model.train()
            self.loss.train()
            if self.state.validation_due:  # it was broken off by a stop
                self._validate(-(-self.position.step // len(self.train)))
            while not self.done:
                self._epoch()
            self.saver.save()
            self.background.wait()
            with self.leaving():
                self._finish()
        return self.position

    @contextmanager
    def leaving(self) -> Iterator[None]:
        """What follows the last checkpoint: it is left as soon as a stop is asked for."""
        try:
            with self.stops.leaving():
                yield
        except StopAsked:
            raise self._stopped() from None

    def _epoch(self) -> None:
        """One epoch, or what is left of it."""
        epoch, start = divmod(self.position.step, len(self.train))
        for batch in self.train.epoch(epoch, start):
            self._step(batch)
            done = self.position.step in (self.total_steps, (epoch + 1) * len(self.train))
            logs = done or self.state.window.full
            if logs:
                self._log(epoch + 1)
            if done:
                self._validate(epoch + 1)
            self.background.look()
            stop, due = self.stops.asked, int(self.saver.due)
            if processes() > 1:  # they decide together, and between two log lines they do not talk
                stop, due = agreed(stop, due) if logs else (0, 0)
            if due or self.saver.planned:
                self.clock += self.saver.save()
            if stop:
                raise self._stopped(stop)
            if self.position.step == self.total_steps:
                return

    def _step(self, batch: Batch) -> None:
        self.within_step = True
        draw_for_step(self.options.seed, self.position.step)
        self.state.advance(self.updates(batch, self._context(), self.position.step))
        self.reporter.step()
        self.within_step = False

    def _context(self) -> Context:
        return Context(self.state.step_on_device, self.total_steps, len(self.train.split))

    def _log(self, epoch: int) -> None:
        """Read the window, the one synchronisation, and write its line."""
        rows = self.state.window.read()
        skipped = self.health.check_steps(rows)
        self.health.remember()
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

    def _validate(self, epoch: int) -> None:
        self.state.validation_due = True
        try:
            with self.stops.leaving():
                terms = mean_terms(
                    self.model,
                    self.loss,
                    self.validation,
                    self._context(),
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
        self.state.score = score if math.isfinite(score) else None
        if self.options.patience is not None:
            self._compare(score)
        self.state.validation_due = False
        self.reporter.validation(epoch, record)
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
            state = all_whole(self.model.state_dict())
            self.model = self.rebuild()
            self.model.load_state_dict(state)
        done_by_the_first(lambda: self.model.fit_prior(self.train.ordered), self.model)
        if self.folder.writes:
            save_weights(self.folder.weights, self.model.state_dict())
        self.state.count_time()

    def _stopped(self, number: int = 0) -> RunStopped:
        """number: of the signal, which another process of the job may have been given."""
        self.saver.save()
        self.background.wait()
        return RunStopped(self.folder.path, self.position.step, number or self.stops.asked)
