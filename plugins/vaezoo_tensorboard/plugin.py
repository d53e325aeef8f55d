"""Registration of the TensorBoard logger."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import LoggerSpec, hookimpl


@hookimpl
def register_loggers(register: Callable[[LoggerSpec], None]) -> None:
    register(
        LoggerSpec(
            name="tensorboard",
            target="vaezoo_tensorboard.logger:TensorBoardLogger",
            summary="Event files in the run folder for TensorBoard; needs vaezoo[tensorboard]",
        )
    )
