"""What a command writes: one picture, numbered image files, arrays or a table, by the ending."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vaezoo import DataSpec
from vaezoo.errors import counted
from vaezoo.evaluation.pictures import as_images, describe_picture, drawn_range, to_rgb
from vaezoo.io import atomic_write, cannot_write

from .options import VALUES


class Output:
    """Examples to write. `arrays["x"]` has them, [n, *shape] or more leading dimensions.

    draw: writes one picture, and returns what it shows. arrays: of an .npz file, by their names;
    an .npy file has x alone. columns: of a table, before the values of x, a row for each example.
    """

    def __init__(
        self,
        data: DataSpec,
        draw: Callable[[Path], str],
        arrays: Mapping[str, Tensor],
        columns: Mapping[str, Sequence[Any]],
    ) -> None:
        self.data, self.draw, self.columns = data, draw, columns
        self.arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in arrays.items()}

    def write(self, out: Path) -> tuple[tuple[float, float] | None, str]:
        """Write it. Returns what is black and white, None but for images; and what was written."""
        ending = out.suffix.lower()
        if ending and ending not in VALUES:
            return drawn_range(self.data), self.draw(out)
        x = self.arrays["x"]
        if not ending:
            images = x.reshape(-1, *self.data.shape)
            return drawn_range(self.data), self._write_folder(out, images)
        if ending == ".npz":
            atomic_write(out, lambda path: _save(path, lambda file: np.savez(file, **self.arrays)))
            shapes = [f"{name} {list(array.shape)}" for name, array in self.arrays.items()]
            return None, f"arrays {', '.join(shapes)}"
        if ending == ".npy":
            atomic_write(out, lambda path: _save(path, lambda file: np.save(file, x)))
            return None, f"an array {list(x.shape)}"
        return None, self._write_table(out, x.reshape(-1, self.data.numel))

    def _write_table(self, out: Path, x: NDArray[Any]) -> str:
        header = [*self.columns, *(f"x_{i}" for i in range(x.shape[1]))]

        def write(path: Path) -> None:
            with path.open("w", encoding="utf-8", newline="") as file:
                table = csv.writer(file, lineterminator="\n")
                table.writerow(header)
                for number, values in enumerate(x.tolist()):
                    known = [column[number] for column in self.columns.values()]
                    table.writerow([*known, *(f"{value:.9g}" for value in values)])

        atomic_write(out, write)
        return f"columns {', '.join([*self.columns, f'x_0 to x_{x.shape[1] - 1}'])}"

    def _write_folder(self, folder: Path, x: NDArray[Any]) -> str:
        """One PNG for each example, of its own size; the folder appears when it is complete."""
        import torch

        pixels = to_rgb(as_images(torch.from_numpy(x), self.data), scale=1).numpy()
        temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        try:
            temporary.mkdir()
            for number, image in enumerate(pixels):
                found = Image.fromarray(image)
                grey = self.data.channels <= 2
                (found.convert("L") if grey else found).save(temporary / f"{number:04}.png")
            for path in folder.glob("*.png"):  # the command has seen that they are numbered
                path.unlink()
            temporary.replace(folder)
        except OSError as error:
            raise cannot_write(folder, error) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        names = f"0000.png to {len(pixels) - 1:04}.png" if len(pixels) > 1 else "0000.png"
        text = f"{counted(len(pixels), 'file')}, {names}"
        legend = describe_picture(self.data)
        return f"{text}; {legend}" if legend else text


def _save(path: Path, save: Callable[[Any], None]) -> None:
    with path.open("wb") as file:  # by name, numpy would add an ending
        save(file)
