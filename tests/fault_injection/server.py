"""Runs `vaezoo` in processes of their own, quickly: torch is imported once, then it forks.

One JSON object a line on stdin asks for a process, one on stdout answers when it has begun.
Nothing is computed here before a fork: threads of torch's would not come along.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import faults


def main() -> None:
    import matplotlib.backends.backend_agg  # noqa: F401 (what the first plot would import)

    import vaezoo.cli.main
    import vaezoo.cli.train
    import vaezoo.evaluation.plots
    import vaezoo.runs.train  # noqa: F401
    from vaezoo.plugins.registry import registry

    registry()
    print(json.dumps({"ready": os.getpid()}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        if "wait" in job:
            _, status, usage = os.wait4(job["wait"], 0)
            code = os.waitstatus_to_exitcode(status)
            print(json.dumps({"code": code, "kib": usage.ru_maxrss}), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            _child(job)
        print(json.dumps({"pid": pid}), flush=True)


def _child(job: dict[str, Any]) -> None:
    folder = Path(job["folder"])
    code = 70
    try:
        os.setsid()
        for number, name in ((1, "stdout"), (2, "stderr")):
            file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(file, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(job["environment"])
        for name, args in job["faults"]:
            getattr(faults, name)(**args)
        from vaezoo.cli.main import main as vaezoo

        code = vaezoo(job["args"])
        sys.stdout.flush()
        if job["counts"]:
            (folder / "counts.json").write_text(json.dumps(faults.counts))
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
