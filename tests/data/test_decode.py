"""Image files of every kind become the pixels that a viewer shows, or one clear error line."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from vaezoo.data.decode import (
    BACKGROUND,
    UnreadableImageError,
    _draft,
    _has_more_scans,
    _scale_16_bits,
    decode_image,
    is_grey,
    quiet_pillow,
)
from vaezoo.data.options import DecodeOptions
from vaezoo.errors import DataError

PLAIN = DecodeOptions()


def noise(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def smooth(height: int, width: int) -> NDArray[np.uint8]:
    """A colour gradient, which JPEG keeps well: [height, width, 3]."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [x * 255 / width, y * 255 / height, 255 - x * 200 / width]
    return np.stack(channels, axis=2).astype(np.uint8)


def decode(
    path: Path, shape: tuple[int, int, int], options: DecodeOptions = PLAIN
) -> NDArray[np.int64]:
    pixels = decode_image(path, shape, options)
    assert pixels.dtype == np.uint8
    assert pixels.shape == shape
    assert pixels.flags.c_contiguous
    return pixels.astype(np.int64)


def reason_for(path: Path, options: DecodeOptions = PLAIN) -> str:
    """Why it is refused, having made sure that the message is one line that names the file."""
    with pytest.raises(UnreadableImageError) as caught:
        decode_image(path, (3, 8, 8), options)
    assert str(caught.value) == f"{path}: {caught.value.reason}"
    assert "\n" not in caught.value.reason
    return caught.value.reason


@pytest.mark.parametrize(
    ("suffix", "how"),
    [
        (".png", {}),
        (".bmp", {}),
        (".tiff", {}),
        (".tif", {"compression": "tiff_lzw"}),
        (".webp", {"lossless": True}),
    ],
)
def test_lossless_formats_keep_every_pixel(tmp_path: Path, suffix: str, how: dict) -> None:
    pixels = noise(6, 9, 3)
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}", **how)
    assert (decode(tmp_path / f"a{suffix}", (3, 6, 9)) == pixels.transpose(2, 0, 1)).all()


def test_jpeg_is_close(tmp_path: Path) -> None:
    pixels = smooth(32, 48)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=98, subsampling=0)
    error = decode(tmp_path / "a.jpg", (3, 32, 48)) - pixels.transpose(2, 0, 1)
    assert np.abs(error).max() <= 6


def test_gif_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert decode(tmp_path / "a.gif", (3, 8, 8))[:, 4, 4].tolist() == [255, 0, 0]


def test_the_content_counts_and_not_the_name(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert decode(tmp_path / "a.jpg", (3, 8, 8))[:, 0, 0].tolist() == [1, 2, 3]


def test_grey_is_luma_and_grey_images_fill_three_channels(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (200, 100, 50)).save(tmp_path / "colour.png")
    luma = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    assert abs(decode(tmp_path / "colour.png", (1, 8, 8)) - luma).max() < 1
    grey = noise(8, 8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert (decode(tmp_path / "grey.png", (3, 8, 8)) == grey).all()
    assert (decode(tmp_path / "grey.png", (1, 8, 8)) == grey).all()


def test_palette_one_bit_and_cmyk(tmp_path: Path) -> None:
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([9, 9, 9, 10, 200, 30])
    palette.save(tmp_path / "palette.png")
    assert decode(tmp_path / "palette.png", (3, 8, 8))[:, 2, 2].tolist() == [10, 200, 30]

    bits = noise(8, 8) > 127
    Image.fromarray(bits).save(tmp_path / "bits.png")
    assert (decode(tmp_path / "bits.png", (1, 8, 8))[0] == bits * 255).all()

    for name in ("ink.jpg", "ink.tif"):
        Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / name)
        red = decode(tmp_path / name, (3, 16, 16))[:, 8, 8]
        assert np.abs(red - [255, 0, 0]).max() <= 3, name


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bits_are_scaled_and_not_clipped(tmp_path: Path, name: str) -> None:
    levels = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(levels).save(tmp_path / name)
    expected = np.round(levels / 257).astype(np.int64)
    assert expected[0, 0] == 0
    assert expected[-1, -1] == 255
    assert (decode(tmp_path / name, (1, 8, 8))[0] == expected).all()
    assert (decode(tmp_path / name, (3, 8, 8)) == expected).all()


def test_big_endian_16_bits(tmp_path: Path) -> None:
    levels = (np.arange(64, dtype=np.uint16) * 1000).reshape(8, 8)
    Image.frombytes("I;16B", (8, 8), levels.astype(">u2").tobytes()).save(tmp_path / "a.tif")
    assert (decode(tmp_path / "a.tif", (1, 8, 8))[0] == np.round(levels / 257)).all()


@pytest.mark.parametrize("background", sorted(BACKGROUND))
def test_transparent_pixels_show_the_background(tmp_path: Path, background: str) -> None:
    options = DecodeOptions(background=background)
    level = {"black": 0, "grey": 128, "white": 255}[background]
    rgba = np.zeros((8, 8, 4), dtype=np.uint8)
    rgba[:, :4] = (200, 100, 0, 128)  # half covered; the right half is clear
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    Image.fromarray(rgba[..., [0, 3]]).save(tmp_path / "la.png")
    Image.fromarray(rgba).save(tmp_path / "rgba.webp", lossless=True, exact=True)

    half = [v * 128 / 255 + level * 127 / 255 for v in (200, 100, 0)]
    for name in ("rgba.png", "rgba.webp"):
        pixels = decode(tmp_path / name, (3, 8, 8), options)
        assert np.abs(pixels[:, 4, 1] - half).max() <= 1.5, name
        assert pixels[:, 4, 6].tolist() == [level] * 3, name
    grey = decode(tmp_path / "la.png", (1, 8, 8), options)
    assert abs(grey[0, 4, 1] - half[0]) <= 1.5
    assert grey[0, 4, 6] == level

    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.paste(1, (4, 0, 8, 8))
    for name in ("palette.gif", "palette.png"):
        palette.save(tmp_path / name, transparency=1)
        pixels = decode(tmp_path / name, (3, 8, 8), options)
        assert pixels[:, 4, 1].tolist() == [255, 0, 0], name
        assert pixels[:, 4, 6].tolist() == [level] * 3, name

    levels = np.full((8, 8), 65535, dtype=np.uint16)
    levels[:, 4:] = 700
    Image.fromarray(levels).save(tmp_path / "16.png", transparency=700)
    deep = decode(tmp_path / "16.png", (1, 8, 8), options)[0]
    assert (deep[4, 1], deep[4, 6]) == (255, level)


UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored, 1),
}
"""What EXIF's orientations ask of whoever shows the image, on arrays [height, width]."""


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp", "a.jpg"])
def test_exif_orientation_is_applied(tmp_path: Path, name: str, orientation: int) -> None:
    stored = smooth(16, 24)
    exif = Image.Exif()
    exif[0x0112] = orientation
    how = {"lossless": True} if name == "a.webp" else {}
    how |= {"quality": 100, "subsampling": 0} if name == "a.jpg" else {}
    Image.fromarray(stored).save(tmp_path / name, exif=exif, **how)
    expected = UPRIGHT[orientation](stored).astype(np.int64)
    found = decode(tmp_path / name, (3, *expected.shape[:2])).transpose(1, 2, 0)
    assert np.abs(found - expected).max() <= (4 if name == "a.jpg" else 0)


def with_square(tmp_path: Path) -> Path:
    """White, 40 high and 80 wide, with a red square at rows 10 to 20, columns 50 to 60."""
    pixels = np.full((40, 80, 3), 255, dtype=np.uint8)
    pixels[10:20, 50:60] = (255, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "square.png")
    return tmp_path / "square.png"


@pytest.mark.parametrize(
    ("options", "rows", "columns"),
    [
        # the centre 40 columns (20 to 60), at half the size
        (DecodeOptions(fit="crop"), (5, 10), (15, 20)),
        (DecodeOptions(fit="stretch"), (5, 10), (12.5, 15)),
        # a quarter of the size, below 5 rows of background
        (DecodeOptions(fit="pad"), (7.5, 10), (12.5, 15)),
        # columns 25 to 55, rows 5 to 35, at two thirds of the size
        (DecodeOptions(center_crop=30), (10 / 3, 10), (50 / 3, 20)),
        # the whole height (40) and the centre 60 columns, then the centre 40 of these
        (DecodeOptions(center_crop=60), (5, 10), (15, 20)),
        (DecodeOptions(center_crop=60, fit="stretch"), (5, 10), (40 / 3, 50 / 3)),
    ],
)
def test_an_off_centre_square_lands_where_it_should(
    tmp_path: Path,
    options: DecodeOptions,
    rows: tuple[float, float],
    columns: tuple[float, float],
) -> None:
    redness = 255 - decode(with_square(tmp_path), (3, 20, 20), options)[1]
    weight = redness / redness.sum()
    centre = np.arange(20) + 0.5
    assert (weight.sum(1) * centre).sum() == pytest.approx(sum(rows) / 2, abs=0.25)
    assert (weight.sum(0) * centre).sum() == pytest.approx(sum(columns) / 2, abs=0.25)
    area = (rows[1] - rows[0]) * (columns[1] - columns[0])
    assert redness.sum() / 255 == pytest.approx(area, rel=0.12)


def test_padding_is_background_on_both_sides(tmp_path: Path) -> None:
    Image.new("RGB", (40, 20), (10, 20, 30)).save(tmp_path / "a.png")
    pixels = decode(tmp_path / "a.png", (3, 20, 20), DecodeOptions(fit="pad", background="grey"))
    assert (pixels[:, :5] == 128).all()
    assert (pixels[:, 15:] == 128).all()
    assert (pixels[:, 5:15] == np.array([10, 20, 30])[:, None, None]).all()


@pytest.mark.parametrize(
    ("size", "before"), [((20, 10), (0, 5)), ((10, 20), (5, 0)), ((9, 20), (5, 0))]
)
def test_padding_is_even_and_an_odd_line_is_below_or_right(
    tmp_path: Path, size: tuple[int, int], before: tuple[int, int]
) -> None:
    Image.new("L", size, 200).save(tmp_path / "a.png")
    pixels = decode(tmp_path / "a.png", (1, 20, 20), DecodeOptions(fit="pad", background="black"))
    rows, columns = (pixels[0] == 200).nonzero()
    left, top = before
    assert (columns.min(), columns.max() + 1) == (left, left + size[0])
    assert (rows.min(), rows.max() + 1) == (top, top + size[1])


def test_shrinking_is_antialiased(tmp_path: Path) -> None:
    stripes = np.zeros((64, 64), dtype=np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "a.png")
    assert np.abs(decode(tmp_path / "a.png", (1, 8, 8)) - 127.5).max() < 16


@pytest.mark.parametrize("fit", ["crop", "stretch", "pad"])
def test_a_jpeg_decoded_small_is_nearly_the_same(tmp_path: Path, fit: str) -> None:
    Image.fromarray(smooth(515, 777)).save(tmp_path / "a.jpg", quality=98, subsampling=0)
    with Image.open(tmp_path / "a.jpg") as image:
        image.save(tmp_path / "a.png")
    shape, options = (3, 20, 30), DecodeOptions(fit=fit)
    error = decode(tmp_path / "a.jpg", shape, options) - decode(tmp_path / "a.png", shape, options)
    assert np.abs(error).max() <= 6


@pytest.mark.parametrize("fit", ["crop", "stretch", "pad"])
def test_a_jpeg_that_shrinks_much_is_decoded_at_an_eighth(tmp_path: Path, fit: str) -> None:
    Image.new("RGB", (1600, 1600)).save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        _draft(image, (20, 20), DecodeOptions(fit=fit))
        assert image.size == (200, 200)


def test_a_jpeg_decoded_small_and_turned_keeps_its_detail(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.repeat(noise(1, 64), 512, axis=0)  # its columns become the rows
    Image.fromarray(stored).save(tmp_path / "a.jpg", quality=98, exif=exif)
    expected = np.rot90(stored, -1)[:, ::64].astype(np.int64)
    error = decode(tmp_path / "a.jpg", (1, 64, 8), DecodeOptions(fit="stretch"))[0] - expected
    assert np.abs(error).max() <= 6


def test_broken_files_say_why(tmp_path: Path) -> None:
    Image.fromarray(noise(64, 64, 3)).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("this is not an image\n" * 50)
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    assert "truncated" in reason_for(tmp_path / "cut.jpg")
    assert "empty" in reason_for(tmp_path / "empty.png")
    assert "not a valid image" in reason_for(tmp_path / "text.png")
    assert "folder" in reason_for(tmp_path / "folder.png")
    assert "not a regular file" in reason_for(tmp_path / "pipe.png")
    assert "does not exist" in reason_for(tmp_path / "absent.png")


def test_denied_permission_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")

    def refuse(self: Path, mode: str = "r") -> None:  # tests may run as root, who may read all
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert "permission denied" in reason_for(tmp_path / "a.png")


def test_values_without_a_range_are_refused(tmp_path: Path) -> None:
    Image.fromarray(noise(8, 8).astype(np.float32)).save(tmp_path / "a.tif")
    assert "no range" in reason_for(tmp_path / "a.tif")


def test_too_many_pixels_are_refused_by_the_header_alone(tmp_path: Path) -> None:
    Image.new("1", (3000, 2000)).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "header.png").write_bytes(data[:60])  # cut: decoding it would say truncated
    small = DecodeOptions(max_megapixels=5.9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "3000×2000" in reason_for(tmp_path / "header.png", small)
        assert "max_megapixels" in reason_for(tmp_path / "a.png", DecodeOptions(max_megapixels=1))
    assert decode(tmp_path / "a.png", (1, 8, 8)).max() == 0


def test_max_megapixels_replaces_pillows_own_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (100, 100), 7).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with quiet_pillow(PLAIN):
            assert (decode(tmp_path / "a.png", (1, 8, 8)) == 7).all()
            assert Image.MAX_IMAGE_PIXELS == 100_000_000
        assert Image.MAX_IMAGE_PIXELS == 1000
        with quiet_pillow(DecodeOptions(max_megapixels=0.0001)):
            assert Image.MAX_IMAGE_PIXELS == 100
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_other_channel_counts_are_refused(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="1 or 3 channels, not 4"):
        decode_image(tmp_path / "a.png", (4, 8, 8), PLAIN)


def test_16_bits_become_the_nearest_of_256_levels() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    levels = np.asarray(_scale_16_bits(Image.fromarray(values))).astype(int)
    assert (np.abs(levels * 257 - values.astype(int)) <= 128).all()


@pytest.mark.parametrize("scans", [0, 1, 2, 7])
def test_scans_of_a_jpeg_are_counted(tmp_path: Path, scans: int) -> None:
    path = tmp_path / "many.jpg"
    path.write_bytes(b"start" + b"\xff\xda of lines " * scans)
    found = [_has_more_scans(path, limit) for limit in (scans - 1, scans, scans + 1)]
    assert found == [True, False, False]


def test_a_jpeg_has_a_thousand_scans_at_most(tmp_path: Path) -> None:
    path = tmp_path / "many.jpg"
    Image.new("L", (8, 8)).save(path)
    one = path.read_bytes()
    path.write_bytes(one + b"\xff\xda" * 999)
    decode(path, (1, 8, 8))
    path.write_bytes(one + b"\xff\xda" * 1000)
    assert "more scans" in reason_for(path)


def test_a_file_may_be_as_large_as_its_pixels_uncompressed_and_16_mebibytes(
    tmp_path: Path,
) -> None:
    path = tmp_path / "large.png"
    Image.new("L", (8, 8)).save(path)
    options = DecodeOptions(max_megapixels=0.01)
    most = 8 * 10_000 + 16 * 2**20
    os.truncate(path, most)
    decode(path, (1, 8, 8), options)
    os.truncate(path, most + 1)
    assert "file is larger" in reason_for(path, options)


def test_is_grey(tmp_path: Path) -> None:
    grey = np.repeat(smooth(400, 600)[..., :1], 3, axis=2)
    Image.fromarray(grey).save(tmp_path / "grey.jpg", quality=60)
    spot = grey.copy()
    spot[100:110, 100:110] = (255, 0, 0)
    Image.fromarray(spot).save(tmp_path / "spot.png")
    Image.fromarray(grey[..., 0]).save(tmp_path / "l.png")
    clear = np.zeros((8, 8, 4), dtype=np.uint8)
    clear[:4] = (255, 0, 0, 0)  # red that nobody sees
    Image.fromarray(clear).save(tmp_path / "clear.png")
    for name, tint in (("rounding.png", 4), ("sepia.png", 20)):
        Image.new("RGB", (8, 8), (100 + tint, 100, 100)).save(tmp_path / name)
    names = ["grey.jpg", "l.png", "clear.png", "rounding.png"]
    assert [is_grey(tmp_path / name, PLAIN) for name in names] == [True] * 4
    assert [is_grey(tmp_path / name, PLAIN) for name in ("spot.png", "sepia.png")] == [False] * 2
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(UnreadableImageError, match="not a valid image"):
        is_grey(tmp_path / "text.png", PLAIN)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_gives_pixels_or_one_line_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged"
    suffix = data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"]))
    Image.fromarray(noise(9, 9, 3)).save(path, format=suffix)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    options = DecodeOptions(max_megapixels=1)
    try:
        shape = decode_image(path, (3, 8, 8), options).shape
    except UnreadableImageError:
        reason_for(path, options)
    else:
        assert shape == (3, 8, 8)
