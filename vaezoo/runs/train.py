"""From a configuration to a finished run folder: load, build, train, measure, draw."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import vaezoo
from vaezoo.checkpoint.folder import NullRunFolder, RunFolder, check_absent
from vaezoo.config import RunConfig
from vaezoo.data.base import Splits
from vaezoo.data.loader import BatchLoader
from vaezoo.distributed import local_only, rank, world_size
from vaezoo.distributed.launch import (
    barrier,
    local_rank0_first,
    may_restart,
    on_rank0_broadcast,
    process_group,
    was_restarted,
)
from vaezoo.errors import DataError, OptionError
from vaezoo.evaluation.evaluate import Evaluation, default_metrics, evaluate
from vaezoo.evaluation.pictures import save_grid, save_pairs
from vaezoo.evaluation.plots import save_curves
from vaezoo.io import read_json, write_json
from vaezoo.losses.base import loss_of
from vaezoo.models.base import BaseVAE
from vaezoo.plugins.registry import registry
from vaezoo.plugins.specs import Spec
from vaezoo.runs.build import build_model, load_splits
from vaezoo.runs.run import Run, check_same_data, draw_samples, eval_context, test_batches
from vaezoo.runtime.device import (
    device_name,
    resolve_device,
    resolve_precision,
    tune_malloc,
)
from vaezoo.runtime.seed import seeded
from vaezoo.training.batch_size import check_batch_size
from vaezoo.training.callback import ProgressCallback
from vaezoo.training.crash import save_on_error
from vaezoo.training.loggers import check_loggers, writing
from vaezoo.training.signals import SignalHandler
from vaezoo.training.state import Progress
from vaezoo.training.trainer import Trainer

_EVALUATION_BATCH = 256
_PICTURED = 32
_SAMPLED = 64


def start_run(config: RunConfig, out: Path | None, callback: ProgressCallback) -> Run:
    """Train by a configuration into a new run folder.

    Whatever is wrong with the options, the data or the folder is told before anything is written;
    a run that fails before its first log line leaves nothing behind.

    By all processes that torchrun started, where it did. When it starts them again after one was
    lost, the run at `out` goes on.
    """
    if may_restart() and out is None:
        raise OptionError("torchrun --max-restarts: give --out, where the job finds its run again")
    with process_group(config.train.device):
        goes_on = out is not None and was_restarted()
        if out is not None and on_rank0_broadcast(lambda: goes_on and _is_of_this_job(out, config)):
            if on_rank0_broadcast(RunFolder(out).summary.exists):  # one was lost when all was done
                return Run(out, str(resolve_device(config.train.device)))
            return _resume(out, config, callback)
        return _start(config, out, callback)


def resume_run(path: Path, config: RunConfig, callback: ProgressCallback) -> Run:
    """Go on with a run from its newest sound checkpoint, or from the beginning if it has none.

    config: the run's, or one that trains longer. RunError when another process trains it.
    """
    with process_group(config.train.device):
        return _resume(path, config, callback)


def _is_of_this_job(out: Path, config: RunConfig) -> bool:
    """Whether a run of this very configuration stands there."""
    try:
        return RunFolder(out).config.read_text(encoding="utf-8") == config.to_yaml()
    except (OSError, ValueError):
        return False


def _start(config: RunConfig, out: Path | None, callback: ProgressCallback) -> Run:
    if out is not None:
        on_rank0_broadcast(lambda: check_absent(out))
    device = resolve_device(config.train.device)
    precision = resolve_precision(config.train.precision, device)
    with seeded(config.train.seed, device):
        splits, model = _prepare(config, device)
        stops = SignalHandler()
        with stops.caught():
            folder = _new_folder(config, out, splits)
            with folder.lock():
                try:
                    trainer = _trainer(config, model, splits, folder, precision, callback, stops)
                    return _train(trainer, config, splits)
                except BaseException:
                    if not folder.has_progress:
                        folder.remove()
                    raise


def _new_folder(config: RunConfig, out: Path | None, splits: Splits) -> RunFolder:
    """Made by the first process; the others are told where it is."""
    made: list[RunFolder] = []

    def make() -> str:
        name = f"{config.components.model.name}-{config.components.data.name}"
        made.append(RunFolder.create(out, name, config.to_yaml(), _record(config, splits)))
        return str(made[0].path)

    path = on_rank0_broadcast(make)
    return made[0] if made else NullRunFolder(Path(path))


def _resume(path: Path, config: RunConfig, callback: ProgressCallback) -> Run:
    folder = RunFolder.existing(path) if rank() == 0 else NullRunFolder(path)
    if folder.is_writer:
        folder.check_own()
    record = read_json(folder.metadata) if folder.is_writer else {}
    device = resolve_device(config.train.device)
    precision = resolve_precision(config.train.precision, device)
    with folder.lock(), seeded(config.train.seed, device):
        splits, model = _prepare(config, device)
        if folder.is_writer:
            check_same_data(record, splits)
        stops = SignalHandler()
        with stops.caught():
            trainer = _trainer(config, model, splits, folder, precision, callback, stops)
            trainer.resume()
            if on_rank0_broadcast(lambda: trainer.done and folder.summary.exists()):
                raise OptionError(_why_done(trainer, path))
            if folder.is_writer:
                # What stands at the end of a run stands there again when it has come to its end.
                folder.summary.unlink(missing_ok=True)
                folder.traceback.unlink(missing_ok=True)
            folder.write_start(config.to_yaml(), record)
            return _train(trainer, config, splits)


def _why_done(trainer: Trainer, path: Path) -> str:
    steps = f"{trainer.progress.step:,} steps"
    if trainer.progress.step < trainer.total_steps:
        return f"{path} ran out of patience after {steps}: give more --patience to go on"
    return f"{path} has finished its {steps}: give more --epochs or --steps to go on"


def _prepare(config: RunConfig, device: torch.device) -> tuple[Splits, BaseVAE]:
    splits = local_rank0_first(lambda: load_splits(config.components.data, config.data))
    if on_rank0_broadcast(lambda: splits.fingerprint) != splits.fingerprint:
        raise DataError("the data of this machine is not that of the first one")
    check_loggers(config.train.log)
    if config.data.flip and not splits.spec.is_image:
        raise DataError("--flip mirrors images, and this data is vectors")
    # Weights are drawn on the CPU: the same ones on every device.
    model = build_model(config.components, config.model, config.loss, splits.spec)
    check_batch_size(config.train.batch_size, len(splits.train), model)
    loss = loss_of(model)
    why_not = model.single_process_reason or loss.single_process_reason
    if why_not and world_size() > 1:
        raise OptionError(
            f"{config.components.model.name} is trained by one process only: {why_not}"
        )
    if config.train.shard and loss.no_shard_reason:
        raise OptionError(f"--shard: its layers must stay whole: {loss.no_shard_reason}")
    return splits, model


def _trainer(
    config: RunConfig,
    model: BaseVAE,
    splits: Splits,
    folder: RunFolder,
    precision: str,
    callback: ProgressCallback,
    stops: SignalHandler,
) -> Trainer:
    device = resolve_device(config.train.device)
    loss = loss_of(model)
    for module in (model, loss):
        module.to(device).to(memory_format=torch.channels_last)
    tune_malloc()

    def rebuild() -> BaseVAE:
        again = build_model(config.components, config.model, config.loss, splits.spec)
        return again.to(device).to(memory_format=torch.channels_last)

    return Trainer(
        model,
        loss,
        train=BatchLoader(
            splits.train,
            batch_size=config.train.batch_size,
            device=device,
            binarize=config.data.binarize,
            flip=config.data.flip,
            seed=config.train.seed,
        ),
        validation=BatchLoader(
            splits.validation,
            batch_size=_EVALUATION_BATCH,
            device=device,
            binarize=config.data.binarize,
        ),
        options=config.train,
        folder=folder,
        precision=precision,
        callback=callback if folder.is_writer else ProgressCallback(),
        stops=stops,
        rebuild=rebuild,
    )


def _train(trainer: Trainer, config: RunConfig, splits: Splits) -> Run:
    title = f"{config.components.model.name} on {config.components.data.name}, {trainer.device}"
    if world_size() > 1:
        title += f", {world_size()} processes"
    trainer.callback.on_train_start(title, trainer.total_steps, trainer.progress.step)
    with save_on_error(trainer):
        try:
            with writing(trainer.folder, config, trainer.callback.on_note):
                progress = trainer.fit()
        finally:
            trainer.callback.on_train_end()
        with trainer.interruptible():
            _measure(trainer, config, splits, progress)
    barrier()
    return Run(trainer.folder.path, str(trainer.device))


def _measure(trainer: Trainer, config: RunConfig, splits: Splits, progress: Progress) -> None:
    """The numbers and pictures of a trained model; the numbers are found by all processes."""
    model, count = trainer.model.eval(), world_size()
    setting = eval_context(model, config, splits, trainer.device, seed=config.train.seed)
    evaluation = evaluate(setting, default_metrics())
    if trainer.folder.is_writer:
        with local_only():
            _leave(trainer, config, splits, progress, evaluation, count)


def _leave(
    trainer: Trainer,
    config: RunConfig,
    splits: Splits,
    progress: Progress,
    evaluation: Evaluation,
    count: int,
) -> None:
    """Pictures and numbers in the folder; the summary last: it says that all is there."""
    folder, model = trainer.folder, trainer.model
    test = test_batches(config, splits, trainer.device)
    save_curves(folder.curves, folder.read_metrics())
    if splits.spec.is_image:
        shown = torch.linspace(0, len(splits.test) - 1, min(_PICTURED, len(splits.test)))
        batch = test.batch(shown.long())
        save_pairs(folder.reconstructions, batch.x, model.reconstruct(batch.x, batch.y))
        save_grid(folder.samples, draw_samples(model, _SAMPLED, seed=config.train.seed))
    write_json(
        folder.summary,
        {
            **evaluation.to_dict(),
            **_speed(progress),
            "device": device_name(trainer.device),
            "processes": count,
            "precision": trainer.precision,
            "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "versions": versions(),
        },
    )


def _speed(progress: Progress) -> dict[str, Any]:
    rate = progress.images / progress.train_seconds if progress.train_seconds else 0.0
    return {
        "images_per_second": round(rate, 1),
        "wall_seconds": round(progress.wall_seconds, 2),
        "steps": progress.step,
    }


def versions() -> dict[str, str]:
    """What a run's numbers may depend on."""
    names = ("torchvision", "numpy", "safetensors")
    return {
        "vaezoo": vaezoo.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,  # with the build it is, which its package's version leaves out
        **{name: version(name) for name in names},
    }


def _record(config: RunConfig, splits: Splits) -> dict[str, Any]:
    """run.json: what the run was made from, so that it can be told when a piece is missing."""
    components = config.components
    return {
        "model": _made_by(components.model),
        "loss": _made_by(components.loss),
        "data": {**_made_by(components.data), **splits.record()},
        "versions": versions(),
    }


def _made_by(spec: Spec) -> dict[str, str]:
    plugin = registry().plugin(spec)
    return {
        "name": spec.name,
        "plugin": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
    }
