"""Copies of tensors in host memory, and a thread that writes them while training continues."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Tensors = Mapping[str, Mapping[str, Tensor]]


class StagingBuffers:
    """Host buffers for copies of tensors, kept for the next copy; pinned for tensors on a GPU."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, str], Tensor] = {}

    def copy(self, tensors: Tensors, device: torch.device) -> dict[str, dict[str, Tensor]]:
        """Copy the values of tensors, by file and name. The next call overwrites the copies."""
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
            # The memory format of the tensor: the writer makes it contiguous.
            buffer = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
            self._buffers[file, name] = buffer
        return buffer.copy_(tensor, non_blocking=True)


class AsyncWriter:
    """Runs one job at a time in a thread. An error of the job is raised by the next call here."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def run(self, job: Callable[[], None]) -> None:
        """Start a job when the one before it is done."""
        self.wait()
        # A daemon, so that a process that stops at once does not wait for the disk.
        self._thread = threading.Thread(target=self._run, args=(job,), daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise the error of a finished job. Does not wait."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Wait for the job to finish, and raise its error."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:  # any error: `wait` raises it
            self._error = error
