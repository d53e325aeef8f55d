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
    # A thread that waits for one without a CPU sleeps soon, and leaves its own CPU to it. libgomp
    # reads this when torch is imported. benchmarks/README.md has the figures.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # Not KeyboardInterrupt: it would be a traceback here, and some imports catch it.
    signal.signal(signal.SIGINT, _interrupt)
    from vaezoo.cli.main import main as run

    signal.signal(signal.SIGINT, signal.default_int_handler)
    return run()


if __name__ == "__main__":
    sys.exit(main())
