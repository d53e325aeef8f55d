"""An image file becomes a uint8 array of one shape.

Colour profiles are not applied. Values of 16 bits are scaled to 8, grey is luma (ITU-R 601), and
sizes change by Pillow's antialiased bilinear filter, as torchvision's Resize does it.
"""

from __future__ import annotations

import mmap
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from vaezoo.data.options import DecodeOptions
from vaezoo.errors import DataError

VERSION = 1
"""Of the decoding: stores decoded by another version are not used."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff")
)
"""Endings, in lower case, of the names of image files."""

BACKGROUND = {"black": 0, "grey": 128, "white": 255}
DRAFT_MARGIN = 2
"""A JPEG is decoded small when that leaves at least this many times the pixels asked for."""

TINT = 8
"""Channels that differ by no more are grey: what JPEG makes of a grey image."""

_LARGE = 16_000_000
"""Pixels. Larger images are decoded one at a time: one of 100 megapixels takes two gigabytes."""

_SCAN = b"\xff\xda"
_MOST_SCANS = 1000
_MOST_WORK = 2_000_000_000
"""Pixels times scans of a JPEG: some seconds. Twenty scans are many."""

_BYTES = 8
"""Of a file for each pixel: four channels of 16 bits, not packed."""

_BYTES_BESIDE = 1 << 24
"""Of a file for what is no pixels: profiles, comments, a small image inside."""

_EXIF_ORIENTATION = 0x0112
_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImageError(DataError):
    """An image file that cannot be decoded. reason: why, without the name of the file."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


def decode_image(
    path: Path, shape: tuple[int, int, int], options: DecodeOptions
) -> NDArray[np.uint8]:
    """The first frame of an image file, upright, on the background, as uint8 [C, H, W] = shape.

    C is 1 (grey) or 3 (RGB). `center_crop` larger than the image takes what there is. For fit=crop
    the largest centred part of the target's proportions is resized, so no side is padded. A JPEG
    that shrinks a lot is decoded at 1/2, 1/4 or 1/8 of its size first, unless center_crop is set:
    its values may then differ by a few levels from those of a full decoding.

    UnreadableImageError, one line that names the file, whatever is wrong with the file.
    """
    channels, height, width = shape
    if channels not in (1, 3):
        raise DataError(f"image files have 1 or 3 channels, not {channels}")
    with _opened(path, options) as image:
        turn = _turn_of(image)
        if options.center_crop is None:
            _draft(image, (height, width) if turn in _SIDEWAYS else (width, height), options)
        image.load()
        if image.format == "TIFF":
            turn = _turn_of(image)  # none is left where Pillow turned it when it loaded it
        flat = _flatten(image, "L" if channels == 1 else "RGB", BACKGROUND[options.background])
        if turn is not None:
            flat = flat.transpose(turn)
        pixels = np.asarray(_fit(flat, (width, height), options))
    return np.ascontiguousarray(pixels.reshape(height, width, channels).transpose(2, 0, 1))


def is_grey(path: Path, options: DecodeOptions) -> bool:
    """Whether an image file holds no colour; looked at in small. UnreadableImageError as above."""
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
    """Pillow without its warnings, and with max_megapixels for its own limit.

    That limit and the filters of warnings belong to the process, so they change when the first
    thread comes in and change back when the last one goes out. Whoever decodes many images enters
    once around them all.
    """
    global _inside, _restore
    with _entrance:
        if _inside == 0:
            _restore = ExitStack()
            _restore.callback(setattr, Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
            _restore.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
            Image.MAX_IMAGE_PIXELS = 0
        limit = int(options.max_megapixels * 1e6)
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, limit)
        _inside += 1
    try:
        yield
    finally:
        with _entrance:
            _inside -= 1
            if _inside == 0:
                _restore.close()


_entrance = threading.Lock()
_one_at_a_time = threading.Lock()
_inside = 0
_restore = ExitStack()
_SIDEWAYS = (_TURN[5], _TURN[6], _TURN[7], _TURN[8])


@contextmanager
def _opened(path: Path, options: DecodeOptions) -> Iterator[Image.Image]:
    """The image, its header read and its size sane; failures here and in the block are told."""
    try:
        with (
            quiet_pillow(options),
            _open_file(path, options) as file,
            Image.open(file, formats=FORMATS) as image,
        ):
            width, height = image.size
            if width * height > options.max_megapixels * 1e6:
                raise _RefusedError(_too_large(options, f"{width}×{height} pixels"))
            most = min(_MOST_SCANS, _MOST_WORK // max(1, width * height))
            if image.format == "JPEG" and _has_more_scans(path, most):
                raise _RefusedError("it goes over its pixels more often than a photograph would")
            with _one_at_a_time if width * height > _LARGE else nullcontext():
                yield image
    except Exception as error:  # Pillow raises whatever it likes
        raise UnreadableImageError(path, _explain(error, options)) from error


def _has_more_scans(path: Path, most: int) -> bool:
    """Whether a JPEG goes over its pixels more often: a progressive one may, in some bytes each."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        count, place = 0, content.find(_SCAN)
        while place >= 0 and count <= most:
            count, place = count + 1, content.find(_SCAN, place + 2)
    return count > most


def _open_file(path: Path, options: DecodeOptions) -> BinaryIO:
    """A regular file that is not empty: opening a pipe would wait for ever."""
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise _RefusedError("it is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise _RefusedError("it is not a regular file")
    if status.st_size == 0:
        raise _RefusedError("it is empty")
    if status.st_size > _BYTES * options.max_megapixels * 1e6 + _BYTES_BESIDE:
        raise _RefusedError("its file is larger than an image of max_megapixels can be")
    return path.open("rb")


class _RefusedError(Exception):
    """A reason found here and not in Pillow."""


def _too_large(options: DecodeOptions, what: str) -> str:
    return f"{what} are more than max_megapixels {options.max_megapixels:g}"


def _explain(error: Exception, options: DecodeOptions) -> str:
    """Why an image could not be read, in a few words."""
    text = " ".join(str(error).split())
    if isinstance(error, _RefusedError):
        return text
    if isinstance(error, UnidentifiedImageError):
        return f"it is not a sound image ({', '.join(FORMATS)})"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return _too_large(options, "its pixels")
    if isinstance(error, FileNotFoundError):
        return "it does not exist"
    if isinstance(error, MemoryError):
        return "there is not enough memory for it, or it is damaged"
    if isinstance(error, OSError) and error.errno is not None:
        return (error.strerror or text).lower()
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return "it is truncated"
    return f"it is damaged or of an unknown kind ({text[:100] or type(error).__name__})"


def _turn_of(image: Image.Image) -> Image.Transpose | None:
    """What brings the image upright, as its EXIF data has it. Damaged EXIF says nothing."""
    try:
        return _TURN.get(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # Pillow raises whatever it likes here too
        return None


def _draft(image: Image.Image, size: tuple[int, int], options: DecodeOptions) -> None:
    """Have a JPEG decoded small if it shrinks a lot. size: (width, height) as the file has it."""
    across, down = size[0] / image.width, size[1] / image.height
    if options.fit == "crop":
        across = down = max(across, down)
    elif options.fit == "pad":
        across = down = min(across, down)
    margin = DRAFT_MARGIN
    # Other formats take no notice.
    wanted = (int(margin * across * image.width) + 1, int(margin * down * image.height) + 1)
    image.draft(None, wanted)


def _flatten(image: Image.Image, mode: str, background: int) -> Image.Image:
    """Any kind of pixels as 8-bit "L" or "RGB", transparent ones on the background."""
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
        image = _crop_center(image, options.center_crop)
    if image.size == size:
        return image
    bilinear = Image.Resampling.BILINEAR
    if options.fit == "stretch":
        return image.resize(size, bilinear)
    if options.fit == "pad":
        scale = min(size[0] / image.width, size[1] / image.height)
        inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        behind = BACKGROUND[options.background]
        canvas = Image.new(image.mode, size, behind if image.mode == "L" else (behind,) * 3)
        corner = ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2)
        canvas.paste(image.resize(inner, bilinear), corner)
        return canvas
    scale = max(size[0] / image.width, size[1] / image.height)
    part = (min(image.width, size[0] / scale), min(image.height, size[1] / scale))
    left, top = (image.width - part[0]) / 2, (image.height - part[1]) / 2
    return image.resize(size, bilinear, box=(left, top, left + part[0], top + part[1]))


def _crop_center(image: Image.Image, side: int) -> Image.Image:
    """This many pixels square, or what there is of them; rounded as torchvision's CenterCrop."""
    width, height = min(side, image.width), min(side, image.height)
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))
