"""The entry point of the command `vaezoo`, also as `python -m vaezoo`."""

import os
import signal
import sys
from types import FrameType


def _interrupt(number: int, frame: FrameType | None) -> None:
    os.write(2, b"vaezoo: interrupted\n")
    os._exit(130)


def main() -> int:
    """Run the command line. Ctrl-C while modules are imported ends the process with one line."""
    # Not KeyboardInterrupt: it would be a traceback here, and some imports catch it.
    signal.signal(signal.SIGINT, _interrupt)
    from vaezoo.cli.main import main as run
    from vaezoo.runtime import is_crowded

    # OpenMP reads it when torch is imported. Threads that wait then sleep, and leave their CPUs to
    # those they wait for; on an idle machine this is slower (benchmarks/README.md).
    if "train" in sys.argv and "GOMP_SPINCOUNT" not in os.environ and is_crowded():
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return run()


if __name__ == "__main__":
    sys.exit(main())
