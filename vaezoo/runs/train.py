"""Start and resume training runs: load data, build, train, evaluate, write the results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from vaezoo.checkpoint.folder import RUN_FORMAT, RunFolder, check_absent
from vaezoo.checkpoint.format import Progress, list_checkpoints, save_weights
from vaezoo.config import RunConfig, check_resumable
from vaezoo.data.augment import check_augment
from vaezoo.data.base import GivenData, Splits, Standardizer
from vaezoo.data.loader import BatchLoader
from vaezoo.data.spec import DataSpec
from vaezoo.distributed import local_only, rank, world_size
from vaezoo.distributed.launch import (
    barrier,
    local_rank0_first,
    may_restart,
    on_rank0_broadcast,
    process_group,
    resolve_runtime,
    was_restarted,
)
from vaezoo.errors import (
    DataError,
    OptionError,
    RunError,
    TrainingError,
    counted,
    on_command_line,
    python_names,
)
from vaezoo.evaluation.evaluate import Evaluation, evaluate, select_metrics
from vaezoo.evaluation.findings import Finding, find_problems
from vaezoo.evaluation.pictures import save_examples
from vaezoo.evaluation.plots import save_curves
from vaezoo.io import write_json
from vaezoo.losses.base import loss_of
from vaezoo.models.base import BaseVAE
from vaezoo.plugins.registry import registry
from vaezoo.runs.build import (
    build_model,
    check_data,
    check_given,
    check_same_data,
    check_shape,
    read_data,
)
from vaezoo.runs.evaluation import draw_samples, eval_context, eval_loader
from vaezoo.runs.initialize import copy_weights, describe_copy, restore_start
from vaezoo.runs.run import Run
from vaezoo.runtime import listen_to_progress
from vaezoo.runtime.device import (
    Runtime,
    device_name,
    move_module,
    resolve_device,
    seeded,
    set_threads,
    tune_malloc,
    versions,
)
from vaezoo.training.crash import save_on_error
from vaezoo.training.loggers import ProgressCallback, attach_loggers, check_loggers
from vaezoo.training.signals import SignalHandler
from vaezoo.training.trainer import Trainer, check_batch_size

_RECONSTRUCTIONS = 32
_SAMPLES = 64
_DIVERGED = 0.1
"""The part of an untrained model's loss by which a loss above it shows that training diverged."""


def start_run(
    config: RunConfig,
    out: Path | None,
    callback: ProgressCallback,
    *,
    auto_resume: bool = False,
    given: GivenData | None = None,
) -> Run:
    """Train with this configuration into a new run folder.

    auto_resume: resume the run at `out` if it has begun, and only open it if it has finished.
    given: the data, where it comes from Python.

    Errors in the options, the data or the folder are raised before anything is written. A run that
    fails before its first log line leaves nothing behind.

    All processes that torchrun started train together. If torchrun starts them again after one was
    lost, the run at `out` is resumed.
    """
    if auto_resume and out is None:
        raise OptionError("--auto-resume: give --out, where the run is found again")
    if may_restart() and out is None:
        raise OptionError("torchrun --max-restarts: give --out, where the job finds its run again")
    with process_group(config.train.device), listen_to_progress(callback.on_progress):
        restarted = out is not None and was_restarted()

        def has_begun(out: Path) -> bool:
            if auto_resume:
                return RunFolder(out).config.exists()
            return restarted and _is_run_of(config, out)

        if out is not None and on_rank0_broadcast(lambda: has_begun(out)):
            if on_rank0_broadcast(lambda: _has_finished(config, out)):
                return Run(out, str(resolve_device(config.train.device)), given=given)
            return resume_run(out, config, callback, given)
        return _start(config, out, callback, given)


def resume_run(
    path: Path, config: RunConfig, callback: ProgressCallback, given: GivenData | None = None
) -> Run:
    """Resume a run from its newest valid checkpoint, or from the beginning if it has none.

    config: the run's, or one that trains longer. given: as in start_run. RunError if another
    process trains the run.
    """
    with process_group(config.train.device), listen_to_progress(callback.on_progress):
        runtime = resolve_runtime(config.train.device, config.train.precision)
        is_writer = runtime.rank == 0
        folder = RunFolder.existing(path) if is_writer else RunFolder(path, is_writer=False)
        if folder.is_writer:
            folder.check_own()
        metadata = folder.read_metadata() if folder.is_writer else {}
        if metadata.get("imported"):
            raise RunError(f"{path} was imported: train another run from it, by --init-from {path}")
        check_given(metadata, path, given)
        with folder.lock(), seeded(config.train.seed, runtime.device):
            splits, model = _load(config, given, Run(path).data_spec if folder.is_writer else None)
            if folder.is_writer:
                check_same_data(metadata, splits)
                if config.train.init_from and not list_checkpoints(folder.checkpoints):
                    restore_start(model, folder)  # the trainer broadcasts rank 0's weights
            stops = SignalHandler()
            with stops.caught():
                trainer = _make_trainer(config, model, splits, folder, runtime, callback, stops)
                trainer.resume()
                if on_rank0_broadcast(lambda: trainer.done and folder.summary.exists()):
                    steps = counted(trainer.progress.step, "step")
                    if trainer.progress.step < trainer.total_steps:
                        why = f"ran out of patience after {steps}: give more --patience to go on"
                    else:
                        why = f"has finished its {steps}: give more --epochs or --steps to go on"
                    raise OptionError(f"{path} {why}")
                if trainer.progress.step > trainer.total_steps:
                    steps = counted(trainer.progress.step, "step")
                    raise OptionError(
                        f"{path} has {steps} already, and these options end it at step "
                        f"{trainer.total_steps:,}: give more --epochs or --steps"
                    )
                if folder.is_writer:
                    # They are written again when the run ends.
                    folder.summary.unlink(missing_ok=True)
                    folder.traceback.unlink(missing_ok=True)
                folder.write_start(config.to_yaml(), metadata)
                return _train(trainer, config, splits, given)


def _is_run_of(config: RunConfig, out: Path) -> bool:
    """Whether the folder holds a run with exactly this configuration."""
    try:
        return RunFolder(out).config.read_text(encoding="utf-8") == config.to_yaml()
    except (OSError, ValueError):
        return False


def _has_finished(config: RunConfig, out: Path) -> bool:
    """Whether a run is complete. OptionError unless it can be resumed with this configuration."""
    run = Run(out, "cpu")
    check_resumable(run.config, config)
    old, new = run.config.train, config.train
    longer = (old.epochs, old.steps, old.patience) != (new.epochs, new.steps, new.patience)
    return run.folder.summary.exists() and not longer


def _start(
    config: RunConfig, out: Path | None, callback: ProgressCallback, given: GivenData | None
) -> Run:
    if out is not None:
        on_rank0_broadcast(lambda: check_absent(out))
    runtime = resolve_runtime(config.train.device, config.train.precision)
    with seeded(config.train.seed, runtime.device):
        splits, model = _load(config, given)
        data = {**splits.record(), "given": None if given is None else given.type_name}
        metadata = run_record(config, data)
        if source := config.train.init_from:  # the trainer broadcasts rank 0's weights
            parts = config.train.init_parts
            metadata["init"] = on_rank0_broadcast(lambda: copy_weights(model, source, parts))

        def save_start(folder: RunFolder) -> None:
            if metadata["init"]:
                save_weights(folder.init, model.state_dict())

        stops = SignalHandler()
        with stops.caught():
            name = f"{config.components.model.name}-{config.components.data.name}"
            values = config.to_yaml(), metadata, save_start
            folder = on_rank0_broadcast(lambda: RunFolder.create(out, name, *values))
            if rank() != 0:
                folder = RunFolder(folder.path, is_writer=False)
            with folder.lock():
                try:
                    trainer = _make_trainer(config, model, splits, folder, runtime, callback, stops)
                    notes = [f"weights: {line}" for line in describe_copy(metadata["init"])]
                    return _train(trainer, config, splits, given, notes)
                except BaseException as error:
                    if folder.is_writer and not folder.has_progress:
                        folder.remove()
                        if isinstance(error, TrainingError):
                            error.args = (f"{error} (nothing was logged yet: no run is kept)",)
                    raise


def _load(
    config: RunConfig, given: GivenData | None, kept: DataSpec | None = None
) -> tuple[Splits, BaseVAE]:
    """The data and the untrained model on the CPU, checked against each other and the options.

    kept: the run's data spec, if it exists; its statistics are used again.
    """
    if config.components.data.shape is not None:
        check_shape(config.components, config.components.data.shape)
    splits = local_rank0_first(lambda: read_data(config.components.data, config.data, given))
    if on_rank0_broadcast(lambda: splits.fingerprint) != splits.fingerprint:
        raise DataError("the data of this machine differs from the data of rank 0")
    splits = replace(splits, spec=on_rank0_broadcast(lambda: kept or splits.spec))
    check_loggers(config.train.log)
    check_augment(config.data.augment, splits.spec)
    resizable = "image_size" in type(config.data).model_fields
    check_data(config.components, splits.spec, resizable=resizable)
    # Weights are drawn on the CPU, so that they are the same for every device.
    model = build_model(config, splits.spec)
    size, accumulate = config.train.batch_size, config.train.accumulate
    check_batch_size(size, len(splits.train), model, world_size(), accumulate)
    loss = loss_of(model)
    reason = model.single_process_reason or loss.single_process_reason
    if reason and world_size() > 1:
        name = config.components.model.name
        raise OptionError(f"{name} is trained by one process only: {reason}")
    if config.train.shard and loss.no_shard_reason:
        raise OptionError(f"--shard: its layers must stay full: {loss.no_shard_reason}")
    if accumulate > 1 and loss.no_accumulate_reason:
        raise OptionError(f"--accumulate: the loss needs full batches: {loss.no_accumulate_reason}")
    return splits, model


def _make_trainer(
    config: RunConfig,
    model: BaseVAE,
    splits: Splits,
    folder: RunFolder,
    runtime: Runtime,
    callback: ProgressCallback,
    stops: SignalHandler,
) -> Trainer:
    loss = loss_of(model)
    for module in (model, loss):
        move_module(module, runtime.device)
    if config.train.threads is not None:
        set_threads(config.train.threads)
    tune_malloc()

    def rebuild() -> BaseVAE:
        again = build_model(config, splits.spec)
        return move_module(again, runtime.device)

    return Trainer(
        model,
        loss,
        train=BatchLoader(
            splits.train,
            batch_size=config.train.batch_size,
            device=runtime.device,
            spec=splits.spec,
            binarize=config.data.binarize,
            augment=config.data.augment,
            seed=config.train.seed,
        ),
        validation=eval_loader(config, splits, "validation", runtime.device),
        options=config.train,
        folder=folder,
        runtime=runtime,
        callback=callback if folder.is_writer else ProgressCallback(),
        stops=stops,
        rebuild=rebuild,
    )


def _train(
    trainer: Trainer,
    config: RunConfig,
    splits: Splits,
    given: GivenData | None,
    notes: Sequence[str] = (),
) -> Run:
    """Train to the end, evaluate, and write the results. notes: lines for the user at the start."""
    components, device = config.components, trainer.runtime.device
    title = f"{components.model.name} on {components.data.name}, {device}"
    if world_size() > 1:
        title += f", {world_size()} processes"
    trainer.callback.on_train_start(title, trainer.total_steps, trainer.progress.step)
    for line in (*(f"data: {line}" for line in (splits.description, *splits.notes)), *notes):
        trainer.callback.on_note(line if on_command_line.get() else python_names(line))
    with save_on_error(trainer):
        try:
            note = trainer.callback.on_note
            with attach_loggers(trainer.folder, config.train.log, config.to_dict(), note):
                progress = trainer.fit()
        finally:
            trainer.callback.on_train_end()
        with trainer.interruptible(alone=True):  # its checkpoint is saved
            model = trainer.model.eval()
            context = eval_context(model, config, splits, seed=config.train.seed)
            evaluation = evaluate(context, select_metrics(["default"]))
            findings = _training_findings(trainer, evaluation)
            if trainer.folder.is_writer:
                summary = _summary(trainer, evaluation, progress)
                with local_only():
                    if not any(finding.kind == "divergence" for finding in findings):
                        findings += find_problems(context, evaluation)
                    summary["findings"] = [asdict(finding) for finding in findings]
                    _draw_pictures(trainer, config, splits)
                # The summary comes last: it shows that the run is complete.
                write_json(trainer.folder.summary, summary)
            barrier()
    return Run(trainer.folder.path, str(device), given=given)


def _training_findings(trainer: Trainer, evaluation: Evaluation) -> list[Finding]:
    """Whether training diverged or skipped steps. All processes must call this."""
    found, r2 = [], evaluation.reconstruction_r2
    lr = f"train again with --lr {min(trainer.options.lr / 10, 1e-3):g}"
    if r2 is None or r2 < 0.05:  # else it learned something, and the losses need not be computed
        loss, start = trainer.validation_loss(), trainer.validation_loss(untrained=True)
        if not loss <= start + _DIVERGED * abs(start):
            message = f"training diverged: the validation loss (the negative ELBO) is {loss:.4g}, "
            message += f"and that of an untrained model {start:.4g}: {lr}"
            found.append(Finding("divergence", loss if math.isfinite(loss) else None, message))
    if (skipped := trainer.progress.skipped) and (guard := trainer.train_step.guard):
        message = f"{skipped:,} of {trainer.progress.step:,} steps were skipped: {guard.reason}"
        advice = f": {lr}" if guard.skip_nonfinite else ""
        found.append(Finding("skipped_steps", skipped, message + advice))
    return found


def _draw_pictures(trainer: Trainer, config: RunConfig, splits: Splits) -> None:
    folder, model, test = trainer.folder, trainer.model, splits.test
    save_curves(folder.curves, folder.read_metrics())
    if splits.spec.ndim:
        index = torch.linspace(0, len(test) - 1, min(_RECONSTRUCTIONS, len(test))).long()
        batch = eval_loader(config, splits, "test", trainer.runtime.device).batch(index)
        inverse = Standardizer(splits.spec).to(batch.x.device).inverse
        reconstructions = inverse(model.reconstruct(batch.x, batch.y))
        save_examples(folder.reconstructions, splits.spec, inverse(batch.x), reconstructions)
        samples = draw_samples(model, _SAMPLES, seed=config.train.seed)
        save_examples(folder.samples, splits.spec, samples)


def _summary(trainer: Trainer, evaluation: Evaluation, progress: Progress) -> dict[str, Any]:
    """The content of summary.json."""
    rate = progress.images / progress.train_seconds if progress.train_seconds else 0.0
    return {
        **evaluation.to_dict(),
        "images_per_second": round(rate, 1),
        "wall_seconds": round(progress.wall_seconds, 2),
        "steps": progress.step,
        "device": device_name(trainer.runtime.device),
        "processes": world_size(),
        "precision": trainer.runtime.precision,
        "parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        "versions": versions(),
    }


def run_record(config: RunConfig, data: Mapping[str, Any]) -> dict[str, Any]:
    """The content of run.json: where the parts of the run come from. data: its record."""
    origins: dict[str, dict[str, Any]] = {}
    for section, spec in config.components.specs().items():
        plugin = registry().plugin(spec)
        origins[section] = {
            "name": spec.name,
            "plugin": plugin.name,
            "distribution": plugin.distribution,
            "version": plugin.version,
        }
    origins["data"] |= data
    return {"format": RUN_FORMAT, **origins, "init": None, "versions": versions()}
