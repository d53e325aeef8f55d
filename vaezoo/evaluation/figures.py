"""What a notebook shows of a run: figures of matplotlib, and a description in HTML."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from PIL import Image
from torch import Tensor

from vaezoo.errors import DataError
from vaezoo.evaluation.latents import pca_plane
from vaezoo.evaluation.plots import (
    COLORS,
    FAINT,
    GRID,
    add_legend,
    add_plot,
    draw_curves,
    hex_color,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PICTURE_PIXELS = 300
"""Longest side of a picture in HTML."""
_MOST_CLASSES = len(COLORS)


def picture_figure(write: Callable[[Path], object]) -> Figure:
    """A figure with a picture. write: writes it as a PNG of this name."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "picture.png")
        write(path)
        with Image.open(path) as picture:
            pixels = picture.convert("RGB")
    figure = new_figure(pixels.width / 100, pixels.height / 100)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(pixels, interpolation="nearest")
    axes.set_axis_off()
    return shown(figure)


def curves_figure(history: Iterable[Mapping[str, Any]]) -> Figure:
    """The terms of the loss over the training steps. DataError if nothing was logged yet."""
    figure = draw_curves(history)
    if figure is None:
        raise DataError("nothing was logged yet: there are no curves")
    return shown(figure)


def latents_figure(points: Tensor, labels: Tensor | None, names: Sequence[str]) -> Figure:
    """Latents, [n, values], by their two principal components; colours are classes, if few.

    labels: class numbers, [n], -1 where unknown. names: of the classes.
    """
    plane, fractions = pca_plane(points)
    parts = fractions[: points.shape[1]]  # one value has no second component
    figure = new_figure(6.4, 4.8)
    panel = add_plot(figure, "Latents by their principal components", 1, 1, 1)
    panel.set(aspect="equal", xticks=[], yticks=[])
    panel.spines[:].set_color(GRID)
    said = [f"component {n}: {part:.0%} of the variance" for n, part in enumerate(parts, 1)]
    panel.set_xlabel(said[0], color=FAINT, fontsize=9)
    panel.set_ylabel("".join(said[1:]), color=FAINT, fontsize=9)
    found = [] if labels is None else sorted({*labels.tolist()})
    groups = found if len(found) <= _MOST_CLASSES else []
    handles = []
    for number, group in enumerate(groups or [None]):
        own = plane if group is None or labels is None else plane[labels == group]
        x, y = own.T.tolist()
        handles.append(panel.scatter(x, y, s=9, c=hex_color(COLORS[number]), linewidths=0))
    if groups:
        known = [names[int(g)] if 0 <= g < len(names) else "unknown" for g in groups]
        add_legend(panel, handles, known, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return shown(figure)


def shown(figure: Figure) -> Figure:
    """The figure, as a notebook shows it also where pyplot was not imported."""

    def png() -> bytes:
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()

    figure._repr_png_ = png  # type: ignore[attr-defined]
    return figure


def to_html(text: str, pictures: Mapping[str, Path]) -> str:
    """A text with small pictures, as HTML. A picture that is missing or damaged is left out.

    The text is escaped, and pictures are encoded again, because a run folder may hold anything.
    """
    parts = [f"<div><p>{html.escape(text)}</p>"]
    for name, path in pictures.items():
        with suppress(OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            with Image.open(path, formats=["PNG"]) as picture:
                small = picture.convert("RGB")
            small.thumbnail((_PICTURE_PIXELS, _PICTURE_PIXELS))
            buffer = BytesIO()
            small.save(buffer, format="PNG")
            data = base64.b64encode(buffer.getvalue()).decode()
            source = f'src="data:image/png;base64,{data}"'
            title = html.escape(name)
            parts.append(f'<img {source} alt="{title}" title="{title}" style="margin: 4px">')
    return "".join([*parts, "</div>"])
