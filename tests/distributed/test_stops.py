"""Signals that come after the last step stop all processes of a job, and the run can be resumed."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch.distributed as dist

import vaezoo
from fork_server import ForkServer
from vaezoo.runs.train import resume_run
from vaezoo.training.loggers import ProgressCallback

JOB = """
import sys, time
from pathlib import Path
import vaezoo.runs.train as training
from vaezoo.cli.main import main
from vaezoo.distributed import rank
from vaezoo.models.base import BaseVAE

def wait(*args, **options):
    Path(f"waits-{rank()}").touch()
    while True:
        time.sleep(0.01)

place, *line = sys.argv[1:]
if place == "prior":
    BaseVAE.fit_sampler = wait
else:
    training._summary = wait  # on rank 0
sys.exit(main(line))
"""
LINE = "train vanilla --examples 120 --test 24 --image-size 16 --network mlp --hidden 8 "
LINE += "--latent-dim 4 --batch-size 16 --steps 4 --device cpu --out run"


@pytest.mark.parametrize("place", ["prior", "evaluation"])
def test_a_signal_after_the_last_step_stops_all_processes(
    in_tmp: Path, torch_server: ForkServer, place: str
) -> None:
    """Rank 0 works and the other waits for it: it is in a collective, where no signal is heard."""
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(server.port)}
    world |= {"TORCHELASTIC_USE_AGENT_STORE": "True"}
    running = [
        torch_server.start(
            [sys.executable, "-c", JOB, place, *LINE.split()],
            env={**os.environ, **world, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    while not Path("waits-0").exists():
        assert [process.poll() for process in running] == [None, None]
        time.sleep(0.01)
    time.sleep(0.2)  # the other comes to where it waits
    for process in running:
        os.kill(process.pid, signal.SIGTERM)
    printed = [process.communicate(timeout=60) for process in running]
    assert [process.returncode for process in running] == [143, 143], printed
    assert "stopped after step 4; to go on: vaezoo train --resume" in printed[0][1]
    assert not Path("run/summary.json").exists()
    resume_run(Path("run"), vaezoo.load_run("run").config, ProgressCallback())
    assert vaezoo.load_run("run").summary["steps"] == 4
