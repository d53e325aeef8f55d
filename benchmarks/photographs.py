"""Make a folder of JPEG photographs of one size out of any folder of images, for the benchmarks.

Small sources are enlarged: what is measured is the cost of opening files of that size.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--size", type=int, nargs=2, default=(400, 300))
    args = parser.parse_args()
    paths = sorted(args.source.rglob("*.jpg"))[: args.count]
    args.target.mkdir(parents=True)
    for number, path in enumerate(paths):
        with Image.open(path) as image:
            large = image.convert("RGB").resize(tuple(args.size), Image.Resampling.BICUBIC)
        large.save(args.target / f"{number:06d}.jpg", quality=90)
    print(f"{len(paths)} images in {args.target}")


if __name__ == "__main__":
    main()
