"""The one training loop: steps, log windows, validation, checkpoints, and going on after a stop.

Nothing here waits for the device between two log lines, and nothing here knows what a loss does
in its phases.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from vaezoo.data.batches import Batches
from vaezoo.errors import OptionError, RunStopped, TrainingError
from vaezoo.evaluation.terms import mean_terms
from vaezoo.losses.base import BaseLoss, Context
from vaezoo.model import BaseVAE
from vaezoo.runfolder import RunFolder
from vaezoo.training.checkpoint import (
    load_checkpoint,
    load_into,
    load_optimizers,
    optimizer_tensors,
    random_state,
    save_checkpoint,
    save_weights,
    set_random_state,
)
from vaezoo.training.graphed import make_updates
from vaezoo.training.machine import arithmetic
from vaezoo.training.options import TrainOptions
from vaezoo.training.report import Progress, Reporter
from vaezoo.training.updates import lr_factor
from vaezoo.training.window import Window, first_broken, means

_CHECKPOINT_SECONDS = 60.0
"""How much work a power cut may cost; weights and optimizer are written each time."""


@dataclass
class Position:
    """How far training is; with the tensors of a checkpoint, all that going on needs."""

    step: int = 0
    images: int = 0
    train_seconds: float = 0.0
    wall_seconds: float = 0.0


@dataclass
class Best:
    """The best weights by held-out data so far, and for how many epochs they have been that."""

    score: float = -math.inf
    epochs_since: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)


class Trainer:
    """Trains a model with its loss, into a run folder."""

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
    ) -> None:
        check_batch_size(options.batch_size, len(train.split), model)
        self.device = train.device
        self.model = model
        self.loss = loss
        self.train = train
        self.validation = validation
        self.options = options
        self.folder = folder
        self.precision = precision
        self.reporter = reporter
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
        self.stop_asked = False
        self.best = Best()

    def fit(self) -> Position:
        """Train to the end. RunStopped when asked to stop, TrainingError when the loss breaks."""
        self.clock = self.saved_at = self.started = time.perf_counter()
        self._remember()
        with arithmetic(self.precision, self.options.deterministic), self._signals():
            self.model.train()
            self.loss.train()
            while self.position.step < self.total_steps and not self._out_of_patience():
                self._epoch()
            self._save()
            self._finish()
        return self.position

    def _finish(self) -> None:
        """What follows the last step. The checkpoint stays before it: training can go on there."""
        if self.best.weights:
            self.model.load_state_dict(self.best.weights)
        self.model.fit_prior(self.train.ordered)
        save_weights(self.folder.weights, self.model.state_dict())
        self._count_time()

    def resume(self) -> None:
        """Go back to the newest checkpoint of the run folder."""
        path, tensors, state = load_checkpoint(self.folder.checkpoints)
        load_into(self.model, tensors["model"], path)
        load_into(self.loss, tensors.get("loss", {}), path)
        load_optimizers(self.updates.optimizers, tensors.get("optimizers", {}), path)
        set_random_state(tensors["random"], self.device)
        self.position = Position(**state["position"])
        self.step_on_device.fill_(self.position.step)
        self.updates.names = tuple(state["names"])
        if self.updates.names:
            self._window().restore(tensors["window"]["values"])
        if state["best"]:
            best = {name: tensor.to(self.device) for name, tensor in tensors["best"].items()}
            self.best = Best(**state["best"], weights=best)
        self.folder.cut_metrics(state["metrics_bytes"])

    def context(self) -> Context:
        return Context(self.step_on_device, self.total_steps, len(self.train.split))

    def _epoch(self) -> None:
        """One epoch, or what is left of it."""
        epoch, start = divmod(self.position.step, len(self.train))
        for batch in self.train.epoch(epoch, start):
            values = self.updates(batch, self.context(), self.position.step)
            self.position.step += 1
            self.step_on_device += 1
            self._window().add(values)
            self.reporter.step()
            last = self.position.step == self.total_steps
            done = last or self.position.step % len(self.train) == 0
            if done or self._window().full:
                self._log(epoch + 1)
            if done:
                self._validate(epoch + 1)
            if time.perf_counter() - self.saved_at > _CHECKPOINT_SECONDS and not last:
                self._save()
            if self.stop_asked:
                self._save()
                raise RunStopped(self.folder.path, self.position.step)
            if last:
                return

    def _window(self) -> Window:
        if self.window is None:
            self.window = Window(
                self.options.log_every, len(self.updates.names), self.step_on_device.device
            )
        return self.window

    def _log(self, epoch: int) -> None:
        """Read the window, the one synchronisation, and write its line."""
        rows = self._window().read()
        first = self.position.step - len(rows)
        broken = first_broken(rows, self.updates.names)
        if broken:
            row, name, value = broken
            raise self._broke(f"{name} became {value} at step {first + row + 1}")
        self._remember()
        now = time.perf_counter()
        seconds, self.clock = now - self.clock, now
        images = len(rows) * self.options.batch_size
        self.position.train_seconds += seconds
        self.position.images += images
        terms = dict(zip(self.updates.names, means(rows), strict=True))
        rate = images / seconds
        factor = lr_factor(self.options.schedule, self.position.step - 1, self.total_steps)
        self.folder.append_metrics(
            {
                "kind": "train",
                "step": self.position.step,
                "epoch": epoch,
                "terms": terms,
                "lr": self.options.lr * factor,
                "images_per_second": round(rate, 1),
            }
        )
        self.reporter.window(Progress(self.position.step, self.total_steps, epoch, rate, terms))

    def _validate(self, epoch: int) -> None:
        terms = mean_terms(
            self.model, self.loss, self.validation, self.context(), seed=self.options.seed
        )
        record: dict[str, Any] = {
            "kind": "validation",
            "step": self.position.step,
            "epoch": epoch,
            # A validation loss that is no number is no reason to stop; JSON has no word for it.
            "terms": {k: v if math.isfinite(v) else None for k, v in terms.items()},
            "bits_per_dim": self._bits_per_dim(terms),
        }
        self.folder.append_metrics(record)
        self.reporter.validation(epoch, record)
        if self.options.patience is not None:
            self._compare(terms.get("elbo", -terms["objective"]))
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
        state = self.model.state_dict()
        norm = torch.nn.utils.get_total_norm(p.detach() for p in self.model.parameters())
        if not torch.isfinite(norm):
            raise self._broke(
                f"the weights stopped being finite after step {self.good_step}"
                if self.good
                else "the weights are not finite to begin with"
            )
        if self.good:
            for name, tensor in state.items():
                self.good[name].copy_(tensor)
        else:
            self.good = {name: tensor.detach().clone() for name, tensor in state.items()}
        self.good_step = self.position.step

    def _broke(self, what: str) -> TrainingError:
        save_weights(self.folder.weights, self.good)
        return TrainingError(
            f"training broke: {what}; the weights of step {self.good_step} are kept in "
            f"{self.folder.weights}; try a smaller --lr, or --grad-clip 1"
        )

    def _save(self) -> None:
        """A checkpoint, and the weights where everyone looks for them."""
        self._count_time()
        state = self.model.state_dict()
        window = {} if self.window is None else {"window": {"values": self.window.saved()}}
        save_checkpoint(
            self.folder.checkpoints,
            self.position.step,
            {
                "model": state,
                "loss": self.loss.state_dict(),
                "optimizers": optimizer_tensors(self.updates.optimizers),
                "random": random_state(self.device),
                **window,
                **({"best": self.best.weights} if self.best.weights else {}),
            },
            {
                "position": vars(self.position),
                "best": {"score": self.best.score, "epochs_since": self.best.epochs_since}
                if self.best.weights
                else None,
                "names": list(self.updates.names),
                "metrics_bytes": self.folder.metrics_bytes(),
            },
        )
        save_weights(self.folder.weights, state)
        self.saved_at = time.perf_counter()
        self.clock += self.saved_at - self.started

    def _count_time(self) -> None:
        now = time.perf_counter()
        self.position.wall_seconds += now - self.started
        self.started = now

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and a polite kill end the run after this step; a second Ctrl-C at once."""

        def ask(number: int, frame: FrameType | None) -> None:
            if self.stop_asked:
                raise KeyboardInterrupt
            self.stop_asked = True

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def check_batch_size(batch_size: int, examples: int, model: BaseVAE) -> None:
    """OptionError unless a batch of this size can be had, and the model can learn from it."""
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
