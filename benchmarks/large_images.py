"""Memory and time of large images: a training step, and encoding and decoding whole or in tiles.

    python benchmarks/large_images.py [--sizes 256,512] [--hidden 32,64,128,128]

The model is autoencoder_kl with the factor 8 and random weights, one image at a time. Each row runs
in a process of its own. Memory is what the work adds to the process (on a GPU: the most that is
allocated). The table goes to results/large_images-DEVICE.md, the numbers to .json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

import torch
from harness import RESULTS, device_of_this_machine, peak_bytes, short_name

import vaezoo
from vaezoo import EncoderDecoderVAE
from vaezoo.runtime.device import resolve_device
from vaezoo_tokenizers.tiled import decode_tiled, encode_tiled

ROWS = {
    "training step": {},
    "training step, --activation-checkpointing": {"activation_checkpointing": True},
    "training step, bf16": {"precision": "bf16"},
    "training step, bf16, --activation-checkpointing": {
        "precision": "bf16",
        "activation_checkpointing": True,
    },
    "encode and decode": {},
    "encode and decode, in tiles of 16×16 positions": {"tile": 16},
}


def peak(device: torch.device) -> int:
    is_cuda = device.type == "cuda"
    return torch.cuda.max_memory_allocated(device) if is_cuda else peak_bytes()


def run_row(name: str, size: int, hidden: tuple[int, ...]) -> dict[str, Any]:
    """What one row measures, in this process."""
    options: dict[str, Any] = dict(ROWS[name])
    tile, precision = options.pop("tile", None), options.pop("precision", "fp32")
    device = resolve_device("auto")
    model = vaezoo.create_model("autoencoder_kl", (3, size, size), hidden=hidden, **options)
    assert isinstance(model, EncoderDecoderVAE)
    x = torch.rand(1, 3, size, size)
    if name.startswith("training"):
        step = vaezoo.make_train_step(
            model, steps=10, num_examples=100, device=str(device), precision=precision
        )
        x = x.to(device)
        before = peak(device)
        for _ in range(2):  # the second one has the optimizer's state
            begun = time.perf_counter()
            float(step(x)["loss"])
    else:
        model, x = model.to(device).eval(), x.to(device)
        begun, before = time.perf_counter(), peak(device)
        with torch.no_grad():
            if tile is None:
                model.decode(model.encode(x).mean)
            else:
                z = encode_tiled(model, x, tile=(tile, tile), overlap=tile // 2).mean
                decode_tiled(model, z, tile=(tile, tile), overlap=tile // 2)
        if device.type == "cuda":
            torch.cuda.synchronize()
    seconds = time.perf_counter() - begun
    return {"bytes": peak(device) - before, "seconds": seconds}


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| image | work | memory, MiB | seconds |", "| --- | --- | --- | --- |"]
    for row in rows:
        lines.append(
            f"| {row['size']}×{row['size']} | {row['work']} | {row['bytes'] / 2**20:,.0f} "
            f"| {row['seconds']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="256,512")
    parser.add_argument("--hidden", default="32,64,128,128")
    parser.add_argument("--row", help="one row in this process, as JSON")
    args = parser.parse_args()
    hidden = tuple(map(int, args.hidden.split(",")))
    if args.row:
        print(json.dumps(run_row(args.row, int(args.sizes), hidden)))
        return
    rows = []
    for size in args.sizes.split(","):
        for name in ROWS:
            command = [sys.executable, __file__, "--row", name, "--sizes", size]
            command += ["--hidden", args.hidden]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            rows.append({"size": int(size), "work": name, **json.loads(done.stdout)})
            print(rows[-1], flush=True)
    device = device_of_this_machine()
    stem = RESULTS / f"large_images-{short_name(device)}"
    record = {"device": device, "hidden": hidden, "rows": rows}
    stem.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    stem.with_suffix(".md").write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
