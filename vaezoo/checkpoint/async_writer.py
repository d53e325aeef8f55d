"""Checkpoints leave training's way: copied to the host, then written by a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Tensors = Mapping[str, Mapping[str, Tensor]]


class StagingBuffers:
    """Copies on the host, in buffers that are used again: pinned ones, where a GPU fills them."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, str], Tensor] = {}

    def take(self, tensors: Tensors, device: torch.device) -> dict[str, dict[str, Tensor]]:
        """The values as they are now. They stay until this is called again."""
        copies = {
            file: {name: self._copy(file, name, tensor) for name, tensor in part.items()}
            for file, part in tensors.items()
        }
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return copies

    def _copy(self, file: str, name: str, tensor: Tensor) -> Tensor:
        tensor = tensor.detach()
        buffer = self._buffers.get((file, name))
        if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
            # In the layout of the tensor: putting it in order is the writer's work.
            buffer = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
            self._buffers[file, name] = buffer
        return buffer.copy_(tensor, non_blocking=True)


class AsyncWriter:
    """Runs one job at a time in a thread; what it raises is raised here, at the next look."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def run(self, job: Callable[[], None]) -> None:
        """Begin a job, when the one before it is done."""
        self.wait()
        # A daemon: who stops at once does not wait for the disk.
        self._thread = threading.Thread(target=self._run, args=(job,), daemon=True)
        self._thread.start()

    def look(self) -> None:
        """Raise what a finished job raised."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Return when nothing is under way; raise what the job raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:  # whatever it is, it belongs to whoever began the job
            self._error = error
