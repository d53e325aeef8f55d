"""Make a folder of JPEG photographs of one size out of any folder of images, for the benchmarks.

    python benchmarks/photographs.py [SOURCE] -o TARGET [--count 2000]

Small sources are enlarged: what is measured is the cost of opening files of that size. Without
SOURCE the pictures are drawn: coloured noise that is smooth, of about the size of a photograph's
file.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image


def drawn(count: int) -> Iterator[Image.Image]:
    random = np.random.default_rng(0)
    for _ in range(count):
        yield Image.fromarray(random.integers(0, 256, (48, 64, 3), dtype=np.uint8))


def opened(source: Path, count: int) -> Iterator[Image.Image]:
    for path in sorted(source.rglob("*.jpg"))[:count]:
        with Image.open(path) as image:
            yield image.convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, nargs="?")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="TARGET")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--size", type=int, nargs=2, default=(400, 300))
    args = parser.parse_args()
    args.out.mkdir(parents=True)
    number = 0
    for image in opened(args.source, args.count) if args.source else drawn(args.count):
        large = image.resize(tuple(args.size), Image.Resampling.BICUBIC)
        large.save(args.out / f"{number:06d}.jpg", quality=90)
        number += 1
    print(f"{number} images in {args.out}")


if __name__ == "__main__":
    main()
