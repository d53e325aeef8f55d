"""Crops of the colour photographs that scikit-image ships, as a folder of PNG files.

They are few pictures, so that models of them learn these pictures and not photographs in general.
Crops for training are from the left three quarters of each picture, those held out from the rest.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

PICTURES = ("astronaut", "chelsea", "coffee", "rocket", "stereo_motorcycle", "retina")


def write_crops(folder: Path, side: int, *, train: int = 4000, held_out: int = 2000) -> None:
    """folder/train/PICTURE/*.png and folder/test/...: at random places, the same each time."""
    if folder.exists():
        return
    pictures = [getattr(data, name)() for name in PICTURES]
    pictures = [found[0] if isinstance(found, tuple) else found for found in pictures]
    draw = np.random.default_rng(0)
    partial = folder.with_name(f"{folder.name}.partial")
    for split, count in (("train", train), ("test", held_out)):
        for i in range(count):
            name, picture = PICTURES[i % len(PICTURES)], pictures[i % len(PICTURES)]
            height, width = picture.shape[:2]
            border = 3 * width // 4
            low, high = (0, border) if split == "train" else (border, width)
            top = draw.integers(0, height - side + 1)
            left = draw.integers(low, high - side + 1)
            (partial / split / name).mkdir(parents=True, exist_ok=True)
            crop = picture[top : top + side, left : left + side]
            Image.fromarray(crop).save(partial / split / name / f"{i:05d}.png")
    partial.rename(folder)
