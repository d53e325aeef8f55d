"""Many image files decoded in threads, with bounded memory."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vaezoo.data.cache import Append
from vaezoo.data.decode import UnreadableImageError, decode_image, quiet_pillow
from vaezoo.data.options import DecodeOptions

CHUNK_BYTES = 64 * 2**20
"""Decoded images are handed on once they are this large together."""

TASK = 16
"""Images that a thread takes at once: small ones cost less than handing them out one by one."""

MOST_THREADS = 8


def decode_all(
    paths: Sequence[Path], shape: tuple[int, int, int], options: DecodeOptions, append: Append
) -> list[tuple[int, str]]:
    """Decode image files in order, handing what can be read to `append` as uint8 [n, *shape].

    Returns what cannot be read, in order: (position in paths, reason). Pillow works outside of
    Python's lock while it decodes, so threads are enough.
    """
    unreadable: list[tuple[int, str]] = []
    chunk = max(TASK, CHUNK_BYTES // math.prod(shape) // TASK * TASK)
    threads = min(MOST_THREADS, _cores())
    with quiet_pillow(options), ThreadPoolExecutor(threads) as pool:
        decode = partial(_decode_task, shape=shape, options=options)
        for start in range(0, len(paths), chunk):
            part = paths[start : start + chunk]
            tasks = [part[i : i + TASK] for i in range(0, len(part), TASK)]
            results = [result for task in pool.map(decode, tasks) for result in task]
            unreadable += [
                (start + i, result) for i, result in enumerate(results) if isinstance(result, str)
            ]
            images = [result for result in results if not isinstance(result, str)]
            if images:
                append(np.stack(images))
    return unreadable


def _decode_task(
    paths: Sequence[Path], shape: tuple[int, int, int], options: DecodeOptions
) -> list[NDArray[np.uint8] | str]:
    """Each image, or why it cannot be read."""
    results: list[NDArray[np.uint8] | str] = []
    for path in paths:
        try:
            results.append(decode_image(path, shape, options))
        except UnreadableImageError as error:
            results.append(error.reason)
    return results


def _cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
