"""The program: `python -m layerprobe`, and the console script."""

from __future__ import annotations

import signal
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line; see `layerprobe.cli`."""
    # Until it has handlers of its own, which takes a moment, Ctrl-C ends it in silence, as SIGTERM does.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from layerprobe.cli import main as run

    run()


if __name__ == "__main__":
    main()
