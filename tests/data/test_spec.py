"""Tests of DataSpec over ranks, and of what an InputSpec says about data that it refuses."""

from __future__ import annotations

import pytest

from vaezoo.data.spec import DataSpec, DataStatistics
from vaezoo.errors import DataError, VaezooError
from vaezoo.plugins.specs import InputSpec

SHAPES = {
    (5,): "vectors of 5 values",
    (2, 256): "signals of 2×256",
    (12, 32, 31): "images of 12×32×31",
    (1, 16, 32, 33): "volumes of 1×16×32×33",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_each_rank(shape: tuple[int, ...]) -> None:
    data = DataSpec(shape=shape)
    assert (data.channels, *data.spatial_shape) == shape
    assert data.ndim == len(shape) - 1
    assert data.is_image == (data.ndim == 2)
    assert data.describe() == SHAPES[shape]
    assert DataSpec.from_dict({**data.to_dict(), "shape": [*shape], "class_names": []}) == data
    if data.is_image:
        assert (data.height, data.width) == (32, 31)
    else:
        for name in ("height", "width"):
            with pytest.raises(ValueError, match="values to unpack"):
                getattr(data, name)


@pytest.mark.parametrize("shape", [(), (0, 3), (1, 2, 3, 4, 5), (2, 2.0)])
def test_no_shape_of_data(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shape"):
        DataSpec(shape=shape)


def test_log_det_counts_the_values_of_each_channel() -> None:
    statistics = DataStatistics(mean=(0.0, 0.0), std=(2.0, 0.5), minimum=0.0, maximum=1.0)
    for spatial in ((), (7,), (3, 5), (2, 3, 4)):
        spec = DataSpec(shape=(2, *spatial), domain="real", statistics=statistics)
        assert spec.log_det == pytest.approx(0.0)
    wide = DataStatistics(mean=(0.0,), std=(2.718281828459045,), minimum=0.0, maximum=1.0)
    assert DataSpec(shape=(1, 2, 3, 4), domain="real", statistics=wide).log_det == pytest.approx(24)


@pytest.mark.parametrize(
    ("takes", "shape", "said"),
    [
        (InputSpec(), (7,), "takes images, and this data is vectors of 7 values"),
        (InputSpec(ndims=(0, 1)), (3, 8, 8), "takes vectors or signals, and this data is images"),
        (InputSpec(ndims=(0, 1, 2)), (1, 4, 4, 4), "takes vectors, signals or images, and this"),
        (InputSpec(ndims=(1,), min_size=8), (2, 7), "takes signals of 8 or more, not 7"),
        (InputSpec(min_size=8), (2, 9, 7), "takes images of 8×8 or more, not 9×7"),
        (InputSpec(ndims=(3,), max_size=8), (1, 9, 8, 8), "volumes of 8×8×8 or less, not 9×8×8"),
        (InputSpec(ndims=(1,), channels=(1, 3)), (2, 64), "takes 1 or 3 channels, not 2"),
        (InputSpec(shape=(3, 8, 8)), (3, 8, 9), "takes images of 3×8×8, and this data is images"),
        (InputSpec(shape=(5,)), (3, 8, 9), "vectors of 5 values, and this data is images of 3×8×9"),
        (InputSpec(labels=True), (3, 8, 9), "needs class labels"),
    ],
)
def test_one_line_says_what_is_accepted(
    takes: InputSpec, shape: tuple[int, ...], said: str
) -> None:
    with pytest.raises(DataError) as caught:
        takes.check(DataSpec(shape=shape), "it")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_fits_is_accepted() -> None:
    for shape in ((5,), (2, 8), (1, 8, 9), (3, 8, 8, 8)):
        InputSpec(ndims=(0, 1, 2, 3), min_size=8).check(DataSpec(shape=shape), "it")
        InputSpec(shape=shape).check(DataSpec(shape=shape), "it")
    InputSpec(ndims=(0, 2), channels=(1, 3)).check(DataSpec(shape=(5,)), "it")


def test_descriptions() -> None:
    assert InputSpec(min_size=8).describe() == "images from 8×8, any number of channels"
    assert InputSpec(ndims=(0,)).describe() == "vectors"
    assert InputSpec(shape=(3, 8, 8)).describe() == "images of 3×8×8"
    both = InputSpec(ndims=(1, 3), min_size=4, max_size=9, channels=(1, 3), labels=True)
    assert both.describe() == (
        "signals from 4 to 9 or volumes from 4×4×4 to 9×9×9, 1 or 3 channels, with class labels"
    )


@pytest.mark.parametrize("ndims", [(), (4,), (-1, 2)])
def test_no_numbers_of_dimensions(ndims: tuple[int, ...]) -> None:
    with pytest.raises(VaezooError, match="ndims"):
        InputSpec(ndims=ndims)
