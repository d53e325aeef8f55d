"""Decoding of image files to uint8 arrays of one shape, one by one or many in threads.

Colour profiles are not applied. 16-bit values are scaled to 8 bits, grey is luma (ITU-R 601), and
images are resized by Pillow's antialiased bilinear filter, as by torchvision's Resize.
"""

from __future__ import annotations

import math
import mmap
import os
import stat
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from vaezoo.data.options import DecodeOptions
from vaezoo.errors import DataError
from vaezoo.runtime import report_progress

Append = Callable[[NDArray[np.uint8]], None]
"""Takes the next decoded images, uint8 [n, *shape]."""

VERSION = 1
"""The version of the decoding: images cached by another version are not used."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp"),
    *(".bmp", ".dib", ".gif", ".tif", ".tiff"),
)
"""Endings, in lower case, of the names of image files."""

BACKGROUND = {"black": 0, "grey": 128, "white": 255}

DRAFT_MARGIN = 2
"""A JPEG is decoded at a reduced size if that leaves this many times the pixels asked for."""

TINT = 8
"""Channels that differ by no more count as grey: JPEG changes grey images by that much."""

CHUNK_BYTES = 64 * 2**20
"""Decoded images are passed on when they have this many bytes together."""

TASK_IMAGES = 16
"""Images that a thread takes at once: one by one costs more than small images themselves."""

MAX_THREADS = 8

_LARGE = 16_000_000
"""Pixels. Larger images are decoded one at a time: one of 100 megapixels takes two gigabytes."""

_SIDEWAYS = (5, 6, 7, 8)
"""The orientations of EXIF data whose rows are the columns of the upright image."""

_SCAN = b"\xff\xda"
_MAX_SCANS = 1000
_MAX_SCANNED_PIXELS = 2_000_000_000
"""Pixels times scans of a JPEG: some seconds of work. Twenty scans are many."""

_BYTES_PER_PIXEL = 8
"""Of a file: four channels of 16 bits, not compressed."""

_EXTRA_BYTES = 1 << 24
"""Of a file, for what is no pixels: profiles, comments, a thumbnail."""


class UnreadableImageError(DataError):
    """An image file that cannot be decoded. reason: why, without the name of the file."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


def decode_image(
    path: Path, shape: tuple[int, int, int], options: DecodeOptions
) -> NDArray[np.uint8]:
    """Decode the first frame of an image file, upright and on the background, to uint8 [C, H, W].

    shape: (C, H, W), where C is 1 (grey) or 3 (RGB). A `center_crop` larger than the image takes
    the whole side. With fit=crop the largest centred part of the target's aspect ratio is resized.
    A JPEG that shrinks much is decoded at 1/2, 1/4 or 1/8 of its size first, unless center_crop is
    set; its values may then differ by a few levels from those of a full decoding.

    UnreadableImageError, in one line that names the file, whatever is wrong with the file.
    """
    return _decode(path, shape, options)[0]


def image_size(path: Path, options: DecodeOptions) -> tuple[int, int]:
    """The height and the width of an image file, upright. UnreadableImageError as above."""
    with _opened(path, options) as image:
        width, height = image.size
        return (width, height) if _is_sideways(image) else (height, width)


def _decode(
    path: Path, shape: tuple[int, int, int], options: DecodeOptions
) -> tuple[NDArray[np.uint8], bool]:
    """The image as `decode_image` gives it, and whether its file has more frames."""
    channels, height, width = shape
    has_more_frames = False
    if channels not in (1, 3):
        raise DataError(f"image files have 1 or 3 channels, not {channels}")
    with _opened(path, options) as image:
        with suppress(Exception):  # a damaged frame after the first one
            # An MPO is a JPEG with views of one scene, as phones make them.
            has_more_frames = image.format != "MPO" and getattr(image, "is_animated", False)
        if options.center_crop is None:
            _draft(image, (width, height), options)
        image.load()
        try:
            ImageOps.exif_transpose(image, in_place=True)
        except MemoryError:
            raise
        except Exception:
            pass  # damaged EXIF data raises errors of any kind, and is ignored
        flat = _flatten(image, "L" if channels == 1 else "RGB", BACKGROUND[options.background])
        pixels = np.asarray(_fit(flat, (width, height), options))
    result = np.ascontiguousarray(pixels.reshape(height, width, channels).transpose(2, 0, 1))
    return result, has_more_frames


def decode_all(
    paths: Sequence[Path], shape: tuple[int, int, int], options: DecodeOptions, append: Append
) -> tuple[list[tuple[int, str]], list[int]]:
    """Decode image files in threads, and pass them to `append` in order as uint8 [n, *shape].

    Returns (position in paths, reason) of each file that cannot be read, and the positions of those
    with more frames than the first, in order. Threads are enough, because Pillow releases Python's
    lock while it decodes.
    """
    unreadable: list[tuple[int, str]] = []
    animated: list[int] = []
    chunk = max(TASK_IMAGES, CHUNK_BYTES // math.prod(shape) // TASK_IMAGES * TASK_IMAGES)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with quiet_pillow(options), ThreadPoolExecutor(min(MAX_THREADS, cores or 1)) as pool:
        decode = partial(_decode_task, shape=shape, options=options)
        for start in range(0, len(paths), chunk):
            part = paths[start : start + chunk]
            report_progress("reading images", start, len(paths))
            tasks = [part[i : i + TASK_IMAGES] for i in range(0, len(part), TASK_IMAGES)]
            results = [result for task in pool.map(decode, tasks) for result in task]
            unreadable += [(start + i, r) for i, r in enumerate(results) if isinstance(r, str)]
            decoded = [(i, *r) for i, r in enumerate(results) if not isinstance(r, str)]
            animated += [start + i for i, _, has_more_frames in decoded if has_more_frames]
            if decoded:
                append(np.stack([image for _, image, _ in decoded]))
    return unreadable, animated


def _decode_task(
    paths: Sequence[Path], shape: tuple[int, int, int], options: DecodeOptions
) -> list[tuple[NDArray[np.uint8], bool] | str]:
    """Each image and whether it has more frames, or the reason why it cannot be read."""
    results: list[tuple[NDArray[np.uint8], bool] | str] = []
    for path in paths:
        try:
            results.append(_decode(path, shape, options))
        except UnreadableImageError as error:
            results.append(error.reason)
    return results


def is_grey(path: Path, options: DecodeOptions) -> bool:
    """Check at a reduced size whether an image has no colour. UnreadableImageError as above."""
    with _opened(path, options) as image:
        if image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I"):
            return True
        image.draft(None, (256, 256))
        image.load()
        flat = _flatten(image, "RGB", BACKGROUND[options.background])
        flat.thumbnail((256, 256), Image.Resampling.BOX)
        pixels = np.asarray(flat).astype(np.int16)
    return bool((pixels.max(axis=2) - pixels.min(axis=2)).max() <= TINT)


@contextmanager
def quiet_pillow(options: DecodeOptions) -> Iterator[None]:
    """Silence Pillow's warnings, and set its own limit of pixels to max_megapixels.

    The limit and the warning filters belong to the process: the first thread that enters sets them
    and the last one that leaves restores them. Code that decodes many images enters once around
    all of them.
    """
    global _users, _restore
    with _users_lock:
        if _users == 0:
            _restore = ExitStack()
            _restore.callback(setattr, Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
            _restore.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
            Image.MAX_IMAGE_PIXELS = 0
        limit = int(options.max_megapixels * 1e6)
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, limit)
        _users += 1
    try:
        yield
    finally:
        with _users_lock:
            _users -= 1
            if _users == 0:
                _restore.close()


_users_lock = threading.Lock()
_large_lock = threading.Lock()
_users = 0
_restore = ExitStack()


@contextmanager
def _opened(path: Path, options: DecodeOptions) -> Iterator[Image.Image]:
    """Open an image and check its header; errors here and in the block name the file."""
    try:
        with (
            quiet_pillow(options),
            _open_file(path, options) as file,
            Image.open(file, formats=FORMATS) as image,
        ):
            width, height = image.size
            if width * height > options.max_megapixels * 1e6:
                raise _RefusedError(_too_large(f"{width}×{height} pixels", options))
            max_scans = min(_MAX_SCANS, _MAX_SCANNED_PIXELS // max(1, width * height))
            if image.format in ("JPEG", "MPO") and _has_more_scans(path, max_scans):
                raise _RefusedError("it has more scans over its pixels than a photograph has")
            with _large_lock if width * height > _LARGE else nullcontext():
                yield image
    except Exception as error:  # Pillow raises errors of any kind
        raise UnreadableImageError(path, _explain(error, options)) from error


def _has_more_scans(path: Path, limit: int) -> bool:
    """Whether a JPEG has more scans than the limit: a progressive one may, in a few bytes each."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        count, found = 0, content.find(_SCAN)
        while found >= 0 and count <= limit:
            count, found = count + 1, content.find(_SCAN, found + 2)
    return count > limit


def _open_file(path: Path, options: DecodeOptions) -> BinaryIO:
    """Open a regular file that is not empty; opening a pipe would wait without end."""
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise _RefusedError("it is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise _RefusedError("it is not a regular file")
    if status.st_size == 0:
        raise _RefusedError("it is empty")
    if status.st_size > _BYTES_PER_PIXEL * options.max_megapixels * 1e6 + _EXTRA_BYTES:
        raise _RefusedError("its file is larger than an image of max_megapixels can be")
    return path.open("rb")


class _RefusedError(Exception):
    """A reason found here and not by Pillow."""


def _too_large(what: str, options: DecodeOptions) -> str:
    return f"{what} are more than max_megapixels {options.max_megapixels:g}"


def _explain(error: Exception, options: DecodeOptions) -> str:
    """Why an image could not be read, in a few words."""
    text = " ".join(str(error).split())
    if isinstance(error, _RefusedError):
        return text
    if isinstance(error, UnidentifiedImageError):
        return f"it is not a valid image ({', '.join(FORMATS)})"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return _too_large("its pixels", options)
    if isinstance(error, FileNotFoundError):
        return "it does not exist"
    if isinstance(error, MemoryError):
        return "there is not enough memory for it, or it is damaged"
    if isinstance(error, OSError) and error.errno is not None:
        return (error.strerror or text).lower()
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return "it is truncated"
    return f"it is damaged or of an unknown kind ({text[:100] or type(error).__name__})"


def _is_sideways(image: Image.Image) -> bool:
    """Whether the file holds the image on its side, as its EXIF data say; no, if damaged."""
    with suppress(Exception):
        return image.getexif().get(ExifTags.Base.Orientation) in _SIDEWAYS
    return False


def _draft(image: Image.Image, size: tuple[int, int], options: DecodeOptions) -> None:
    """Let a JPEG be decoded at a reduced size if it shrinks much. size: (width, height) upright."""
    if _is_sideways(image):
        size = size[1], size[0]
    scales = size[0] / image.width, size[1] / image.height
    if options.fit == "crop":
        scales = (max(scales),) * 2
    elif options.fit == "pad":
        scales = (min(scales),) * 2
    width, height = (DRAFT_MARGIN * scale for scale in scales)
    # Other formats ignore it.
    image.draft(None, (int(width * image.width) + 1, int(height * image.height) + 1))


def _flatten(image: Image.Image, mode: str, background: int) -> Image.Image:
    """Convert pixels of any mode to 8-bit "L" or "RGB", transparent ones on the background."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        image = _scale_16_bits(image)
    elif image.mode in ("I", "F"):
        raise _RefusedError("its values have 32 bits, and no range is known for them")
    if image.has_transparency_data:
        image = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        behind = Image.new("RGBA", image.size, (background, background, background, 255))
        image = Image.alpha_composite(behind, image).convert("RGB")
    elif image.mode not in ("L", "RGB"):
        # A palette or CMYK may hold colour; luma is defined on RGB.
        image = image.convert("L" if image.mode == "1" else "RGB")
    return image if image.mode == mode else image.convert(mode)


def _scale_16_bits(image: Image.Image) -> Image.Image:
    """0 to 65535 becomes 0 to 255; the value that PNG declares transparent stays so."""
    values = np.asarray(image).astype(np.int32)
    scaled = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        scaled.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return scaled


def _fit(image: Image.Image, size: tuple[int, int], options: DecodeOptions) -> Image.Image:
    """Crop and resize as the options say. size: (width, height)."""
    if options.center_crop is not None:
        # Rounded as by torchvision's CenterCrop.
        sides = [min(options.center_crop, side) for side in image.size]
        left, top = (round((n - side) / 2) for n, side in zip(image.size, sides, strict=True))
        image = image.crop((left, top, left + sides[0], top + sides[1]))
    if image.size == size:
        return image
    bilinear = Image.Resampling.BILINEAR
    if options.fit == "stretch":
        return image.resize(size, bilinear)
    if options.fit == "crop":
        return ImageOps.fit(image, size, bilinear)
    level = BACKGROUND[options.background]
    colour = level if image.mode == "L" else (level,) * 3
    # Just below one half: an odd row of background lies below the image, an odd column right of it.
    return ImageOps.pad(image, size, bilinear, colour, (0.4999, 0.4999))
