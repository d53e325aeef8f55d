"""Pictures: every image at its place, at any number and size."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image, ImageSequence
from torchvision.transforms.functional import pil_to_tensor

from vaezoo.data.spec import DataSpec, DataStatistics, Domain
from vaezoo.errors import DataError
from vaezoo.evaluation.pictures import (
    as_images,
    describe_picture,
    describe_range,
    draw_rows,
    drawn_range,
    save_examples,
    save_grid,
    save_rows,
    save_sequences,
    to_rgb,
    value_range,
)
from vaezoo.evaluation.plots import COLORS, Series, draw_signals, save_bars, save_lines


def colors(path: Path) -> list[int]:
    """How many pixels there are of each level that a test has put there: 10, 20, 30, ..."""
    pixels = pil_to_tensor(Image.open(path))[0].flatten().bincount(minlength=256)
    return [int(pixels[level]) for level in range(10, 110, 10)]


def flat_images(count: int, size: tuple[int, int] = (64, 64)) -> torch.Tensor:
    levels = torch.arange(10, 10 * count + 10, 10) / 255
    return levels.view(-1, 1, 1, 1).expand(-1, 1, *size)


@pytest.mark.parametrize("count", [1, 3, 8, 10])
def test_a_grid_shows_each_image_whole(tmp_path: Path, count: int) -> None:
    path = tmp_path / "grid.png"
    save_grid(path, flat_images(count))
    shown = colors(path)
    area = shown[0]
    assert area > 0
    assert shown == [area] * count + [0] * (10 - count)


def test_pairs_stand_above_one_another(tmp_path: Path) -> None:
    path = tmp_path / "pairs.png"
    above, below = flat_images(3), flat_images(3) + 100 / 255
    save_grid(path, above, below, columns=2)
    pixels = pil_to_tensor(Image.open(path))[0]
    for level in (10, 20, 30):
        rows, columns = (pixels == level).nonzero().T
        partner_rows, partner_columns = (pixels == level + 100).nonzero().T
        assert partner_columns.unique().tolist() == columns.unique().tolist()
        assert partner_rows.min() > rows.max()
    first, third = ((pixels == level).nonzero()[:, 0] for level in (110, 30))
    assert third.min() > first.max()  # the second pair of rows is below the first


GAP = 2
"""Pixels around each image; pairs of rows stand twice that further apart."""


def pixels_of(picture: Image.Image) -> torch.Tensor:
    return pil_to_tensor(picture.convert("RGB"))[0]


@pytest.mark.parametrize(("count", "columns"), [(3, 4), (4, 2), (7, 3)])
def test_each_image_of_a_grid_is_at_its_place(tmp_path: Path, count: int, columns: int) -> None:
    height, width = 80, 640 // columns
    save_grid(tmp_path / "grid.png", flat_images(count, (height, width)), columns=columns)
    found = pixels_of(Image.open(tmp_path / "grid.png"))
    rows, across = -(-count // columns), min(count, columns)
    expected = torch.full((rows * (height + GAP) + GAP, across * (width + GAP) + GAP), 140)
    for number in range(count):
        top = GAP + number // columns * (height + GAP)
        left = GAP + number % columns * (width + GAP)
        expected[top : top + height, left : left + width] = 10 * (number + 1)
    assert torch.equal(found.int(), expected.int())


def test_pairs_of_rows_stand_further_apart_than_their_rows(tmp_path: Path) -> None:
    x = flat_images(4, (80, 320))
    save_grid(tmp_path / "pairs.png", x, x + 100 / 255, columns=2)
    column = pixels_of(Image.open(tmp_path / "pairs.png"))[:, GAP]
    expected = []
    for level in (10, 110, None, 30, 130):
        expected += [140] * 2 * GAP if level is None else [140] * GAP + [level] * 80
    assert column.tolist() == [*expected, *[140] * GAP]


def test_small_images_are_enlarged_by_a_whole_number() -> None:
    x = torch.rand(2, 3, 20, 30)
    assert to_rgb(x).shape == (2, 60, 90, 3)
    assert to_rgb(x, scale=2).shape == (2, 40, 60, 3)
    assert to_rgb(torch.rand(1, 1, 48, 8)).shape == (1, 48, 8, 3)
    levels = to_rgb(x)[:, ::3, ::3]
    assert torch.equal(levels, (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1))


@pytest.mark.parametrize("channels", [4, 5, 12])
def test_of_more_channels_the_first_three_are_red_green_and_blue(channels: int) -> None:
    x = torch.rand(3, channels, 48, 8)
    assert torch.equal(to_rgb(x), to_rgb(x[:, :3]))


def test_two_channels_stand_side_by_side() -> None:
    x = torch.rand(3, 2, 48, 8)
    left, right = to_rgb(x).split(8, dim=2)
    assert torch.equal(left, to_rgb(x[:, :1]))
    assert torch.equal(right, to_rgb(x[:, 1:]))


@pytest.mark.parametrize(
    ("shape", "domain", "said"),
    [
        ((3, 8, 8), "unit", ""),
        ((2, 8, 8), "unit", "channel 1 is left, channel 2 right"),
        ((12, 8, 8), "unit", "red, green and blue are channels 1, 2 and 3 of 12"),
        ((1, 12, 8, 8), "unit", "slices 2, 4, 6, 8, 10, 12 of 12 along the depth"),
        ((1, 2, 8, 8), "unit", "slices 1, 2 of 2 along the depth"),
        ((1, 8, 8), "real", "black is -3, white is 9"),
        ((2, 8, 8), "real", "channel 2 right; black and white are 3 std from a channel's mean"),
        ((2, 8), "real", ""),
    ],
)
def test_it_says_what_a_picture_shows(shape: tuple[int, ...], domain: Domain, said: str) -> None:
    n = shape[0]
    found = DataStatistics(mean=(5.0,) * n, std=(2.0,) * n, minimum=-3.0, maximum=9.0)
    data = DataSpec(shape=shape, domain=domain, statistics=found if domain == "real" else None)
    assert describe_picture(data).endswith(said)
    assert bool(said) == bool(describe_picture(data))
    # Each channel in its own range has no two values that are black and white.
    own = "std" in said
    assert (drawn_range(data) is None) == (own or data.ndim == 1)


def test_slices_stand_in_the_order_of_the_depth(tmp_path: Path) -> None:
    """Slice n of a volume has the value n / 12: 1, 3, 5, ... from left to right."""
    volume = (torch.arange(12.0) / 12).view(1, 1, 12, 1, 1).expand(2, 1, 12, 4, 5)
    data = DataSpec(shape=(1, 12, 4, 5))
    across, down = as_images(volume, data), as_images(volume, data, 3, axis=-2)
    assert across.shape == (2, 1, 4, 35)
    assert across[0, 0, 0, ::6].mul(12).tolist() == pytest.approx([1, 3, 5, 7, 9, 11])
    assert down.shape == (2, 1, 14, 5)
    assert (across[..., 5::6] == 0.5).all()
    assert down[0, 0, ::5, 0].mul(12).tolist() == pytest.approx([2, 6, 10])
    path = tmp_path / "volumes.png"
    assert save_examples(path, data, volume, volume).startswith("slices 2, 4,")
    with Image.open(path) as picture:
        assert picture.width > 2 * 30


def test_channels_in_other_units_are_all_seen() -> None:
    """Channels around 0 and around 5000 both go from black to white."""
    statistics = DataStatistics(mean=(0.0, 5e3), std=(1.0, 100.0), minimum=-3.0, maximum=5300.0)
    data = DataSpec(shape=(2, 1, 3), domain="real", statistics=statistics)
    x = torch.tensor([[[-3.0, 0.0, 3.0]], [[4700.0, 5000.0, 5300.0]]])[None]
    assert torch.allclose(as_images(x, data), torch.tensor([0.0, 0.5, 1.0]).double())
    as_they_are = DataStatistics(mean=(0.0,) * 2, std=(1.0,) * 2, minimum=-3.0, maximum=5300.0)
    assert drawn_range(replace(data, statistics=as_they_are)) == (-3.0, 5300.0)


def axes_of(
    monkeypatch: pytest.MonkeyPatch, panels: list[tuple[str, torch.Tensor]], *names: str
) -> tuple[list[Any], list[str]]:
    """The axes that are shown, and the other texts, of the figure that is drawn."""
    drawn: list[Any] = []
    original = Figure.savefig

    def savefig(figure: Figure, *args: Any, **options: Any) -> None:
        drawn.append(figure)
        original(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    assert draw_signals(panels, names).startswith(b"\x89PNG")
    (figure,) = drawn
    return [axes for axes in figure.axes if axes.axison], [figure.get_supxlabel()]


def test_curves_of_an_original_and_its_reconstruction(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(3, 2, 2, 7) * torch.tensor([1.0, 100.0]).view(1, 1, 2, 1)
    axes, said = axes_of(monkeypatch, [("", each) for each in x], "original", "reconstruction")
    assert len(axes) == 3 * 2  # an example in each column, a channel in each row
    assert said == ["2 channels, from top to bottom"]
    for number, one in enumerate(axes):
        channel, example = divmod(number, 3)
        drawn = [line.get_ydata().tolist() for line in one.get_lines()]
        assert drawn == [pytest.approx(curve.tolist()) for curve in x[example, :, channel]]
        low, high = one.get_ylim()
        assert low < x[:, :, channel].min() < x[:, :, channel].max() < high
        assert high - low < 1.2 * float(x[:, :, channel].max() - x[:, :, channel].min())
    legend = axes[0].figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["original", "reconstruction"]


def test_many_signals_and_channels_are_drawn_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    axes, said = axes_of(monkeypatch, [(f"$z{n}_", torch.randn(1, 12, 5)) for n in range(18)])
    assert len(axes) == 8 * 4
    assert said == ["8 of 18 examples; channels 1 to 4 of 12, from top to bottom"]
    assert {one.get_title(loc="left") for one in axes} - {""} == {f"$z{n}_" for n in range(8)}


@pytest.mark.filterwarnings("error")
def test_broken_signals_are_drawn_too(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.tensor([[[1.0, math.nan, math.inf]], [[3.0, 1e30, 2.0]]])
    (one,), _ = axes_of(monkeypatch, [("", x)])
    assert one.get_lines()[0].get_ydata().tolist()[0] == 1.0
    axes_of(monkeypatch, [("", torch.full((1, 1, 4), math.nan))])


def test_what_has_no_picture(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="vectors of 5 values: there are no pictures"):
        save_examples(tmp_path / "a.png", DataSpec(shape=(5,)), torch.rand(2, 5))
    data = DataSpec(shape=(1, 5))
    with pytest.raises(DataError, match=r"give a name that ends in \.png"):
        save_sequences(tmp_path / "a.gif", data, [torch.rand(2, 1, 5)], [""])
    assert not [*tmp_path.iterdir()]
    save_sequences(tmp_path / "a.png", data, [torch.rand(2, 1, 5)], ["z3  0.5 nats"])
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_rows_without_names_start_at_the_left_and_names_stand_before_theirs() -> None:
    x = flat_images(2, (48, 48))
    bare, named = (draw_rows([x, x], names) for names in (["", ""], ["a name", "b"]))
    assert bare.size == (2 * 50 + GAP, 2 * 50 + GAP)
    assert named.height == bare.height
    before = named.width - bare.width
    assert before > 20
    assert named.crop((before, 0, *named.size)).tobytes() == bare.tobytes()
    written = (pixels_of(named)[:, :before] < 150).any(1).nonzero().flatten()
    middles = [GAP + 24, GAP + 50 + 24]
    assert all(min(abs(int(y) - middle) for middle in middles) < 10 for y in written)
    assert all((written - middle).abs().min() < 3 for middle in middles)


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_an_animation_goes_forwards_and_back_without_end(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"moves.{ending}"
    save_rows(path, [flat_images(4, (48, 48))], [""])
    with Image.open(path) as animation:
        assert animation.info["loop"] == 0
        levels = []
        for frame in range(animation.n_frames):
            animation.seek(frame)
            levels.append(int(pixels_of(animation)[25, 25]))
    assert levels == pytest.approx([10, 20, 30, 40, 30, 20], abs=2)


@given(
    count=st.integers(1, 9),
    channels=st.integers(1, 4),
    height=st.integers(1, 130),
    width=st.integers(1, 130),
)
def test_any_images(tmp_path_factory: pytest.TempPathFactory, **shape: int) -> None:
    path = tmp_path_factory.mktemp("any") / "grid.png"
    x = torch.rand(shape["count"], shape["channels"], shape["height"], shape["width"])
    x.view(-1)[0] = float("nan")
    save_grid(path, x)
    Image.open(path).verify()


def real_data(minimum: float, maximum: float, domain: Literal["unit", "real"] = "real") -> DataSpec:
    statistics = DataStatistics(mean=(0.0,), std=(1.0,), minimum=minimum, maximum=maximum)
    return DataSpec(shape=(1, 8, 8), domain=domain, statistics=statistics)


@pytest.mark.parametrize(("scale", "offset"), [(255.0, 0.0), (2.0, -1.0), (1000.0, 5000.0)])
def test_real_values_look_like_the_same_images_in_0_to_1(scale: float, offset: float) -> None:
    x = torch.arange(256).view(4, 1, 8, 8) / 255
    data = real_data(offset, scale + offset)
    assert (to_rgb(scale * x + offset, shown=value_range(data)).int() - to_rgb(x)).abs().max() <= 1
    outside = torch.tensor([offset - scale, offset + 3 * scale]).view(2, 1, 1, 1).expand(2, 1, 8, 8)
    black, white = to_rgb(outside, shown=value_range(data))
    assert int(black.max()) == 0
    assert int(white.min()) == 255


def test_the_range_of_real_values_is_that_of_the_data() -> None:
    assert value_range(real_data(-3.0, 4.0)) == (-3.0, 4.0)
    assert value_range(real_data(2.0, 2.0)) == (2.0, 3.0)  # a constant has no range
    assert value_range(real_data(-3.0, 4.0, "unit")) == (0.0, 1.0)
    assert value_range(DataSpec(shape=(1, 8, 8), domain="real")) == (0.0, 1.0)
    assert describe_range((0.0, 1.0)) == ""
    assert describe_range((-1.0, 1.0)) == "black is -1, white is 1"
    assert describe_range((-1e-7, 300.0)) == "black is 0, white is 300"
    assert describe_range((1e-13, 300.0)) == "black is 0, white is 300"


@pytest.mark.parametrize(
    ("low", "high", "hinted"), [(0, 255, True), (3, 200, True), (0, 300, False), (-1, 255, False)]
)
def test_a_hint_for_values_that_look_like_8_bit_levels(
    low: float, high: float, hinted: bool
) -> None:
    assert ("uint8" in describe_range((low, high))) is hinted


def test_a_picture_of_real_values_has_a_line_about_them(tmp_path: Path) -> None:
    x = flat_images(3)
    save_grid(tmp_path / "unit.png", x)
    save_grid(tmp_path / "real.png", 7 * x, shown=(0.0, 7.0))
    unit, real = (Image.open(tmp_path / name) for name in ("unit.png", "real.png"))
    assert real.height > unit.height
    assert real.crop((0, 0, *unit.size)).tobytes() == unit.tobytes()
    below = pil_to_tensor(real.crop((0, unit.height, real.width, real.height)))
    assert below.min() < 100 < 200 < below.max()  # dark letters on a light ground


def test_charts_survive_what_training_brings(tmp_path: Path) -> None:
    path = tmp_path / "charts.png"
    nothing = Series("nothing", [(1, float("nan")), (2, float("inf"))])
    flat = Series("flat", [(0, 3.0), (1, 3.0)])
    one = Series("one", [(5, 7.0)], markers=True)
    many = Series("many", [(i, float(i % 7)) for i in range(20_000)])
    assert save_lines(path, {"a": [nothing], "b": [flat, one], "c": [many]})
    Image.open(path).verify()
    assert not save_lines(tmp_path / "no.png", {})
    assert not (tmp_path / "no.png").exists()


def test_bars_are_as_long_as_their_values(tmp_path: Path) -> None:
    path = tmp_path / "bars.png"
    name = "a/very/long/way/to/a/model/of/ones/own/my_$vae_$.py:MyVAE"
    bars = [(name, 300.0), ("_half", 150.0), ("none", 0.0)]
    assert save_bars(path, {"a": bars, "b": [("x", 0.0)]})
    pixels = pil_to_tensor(Image.open(path)).int()
    blue = (pixels[:3] - torch.tensor(COLORS[0]).view(3, 1, 1)).abs().amax(0) < 8
    lengths = blue.sum(1)
    inside = lengths > 0
    edges = (inside[1:] != inside[:-1]).nonzero()[:, 0].tolist()
    assert len(edges) == 4  # two bars and no more: a value of 0 has none
    first, half = (float(lengths[edges[i] + 1 : edges[i + 1]].median()) for i in (0, 2))
    assert first > 40
    assert half == pytest.approx(first / 2, abs=2)
    assert not save_bars(tmp_path / "no.png", {})


def test_moving_pictures_go_there_and_back(tmp_path: Path) -> None:
    images = torch.linspace(0, 1, 5).view(5, 1, 1, 1).expand(5, 1, 8, 8)
    for ending in ("gif", "webp"):
        path = tmp_path / f"moves.{ending}"
        save_rows(path, [images, images.flip(0)], ["up", "down"])
        with Image.open(path) as moving:
            frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(moving)]
        assert len(frames) == 8
        assert frames[1].tobytes() == frames[7].tobytes()
        assert frames[0].tobytes() != frames[4].tobytes()


def test_a_still_picture_has_all_rows_and_images(tmp_path: Path) -> None:
    images = torch.tensor([10, 20, 30]).view(3, 1, 1, 1).expand(3, 1, 64, 64) / 255
    picture = draw_rows([images, images[:2]], ["a", ""])
    counts = {color[0]: n for n, color in picture.getcolors(1 << 20) or () if len(set(color)) == 1}
    assert [counts[level] for level in (10, 20, 30)] == [2 * 64**2, 2 * 64**2, 64**2]
