"""How long training waits for a checkpoint, against how long writing one takes.

    python tests/fault_injection/blocked.py --millions 50 --json FILE

Builds a dense model of about so many million parameters with its optimizer's state, and saves it as
the trainer does: copied on the host, written by a thread. For comparison the same is written while
the caller waits.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "plugins")]

import torch  # noqa: E402

from vaezoo.checkpoint.format import optimizer_tensors, save_checkpoint  # noqa: E402
from vaezoo.training.checkpoints import AsyncWriter, StagingBuffers  # noqa: E402

ROUNDS = 5
WIDTH = 1000


def measure(millions: float, device: str) -> dict[str, object]:
    layers = max(1, round(millions * 1e6 / WIDTH**2))
    net = torch.nn.Sequential(*[torch.nn.Linear(WIDTH, WIDTH) for _ in range(layers)]).to(device)
    optimizer = torch.optim.Adam(net.parameters(), fused=device != "mps")
    net(torch.randn(4, WIDTH, device=device)).square().mean().backward()
    optimizer.step()
    tensors = {"model": net.state_dict(), "optimizers": optimizer_tensors([optimizer])}
    size = sum(t.numel() * t.element_size() for part in tensors.values() for t in part.values())
    buffers, writer = StagingBuffers(), AsyncWriter()
    blocked, written = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for round_ in range(ROUNDS + 1):
            begun = time.perf_counter()
            taken = buffers.copy(tensors, torch.device(device))
            writer.run(_job(folder, round_, taken))
            blocked.append(time.perf_counter() - begun)
            writer.wait()
            written.append(time.perf_counter() - begun)
    return {
        "parameters": sum(p.numel() for p in net.parameters()),
        "bytes": size,
        "device": device,
        "blocked_first_seconds": round(blocked[0], 3),
        "blocked_seconds": round(statistics.median(blocked[1:]), 3),
        "written_seconds": round(statistics.median(written[1:]), 3),
    }


def _job(
    folder: Path, step: int, tensors: dict[str, dict[str, torch.Tensor]]
) -> Callable[[], None]:
    return lambda: save_checkpoint(folder, step, tensors, {"score": None}, keep=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--millions", type=float, default=50.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    found = json.dumps(measure(args.millions, args.device), indent=2)
    if args.json is not None:
        args.json.write_text(found + "\n")
    print(found)


if __name__ == "__main__":
    main()
