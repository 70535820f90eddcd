"""The `animebg` command from its first moment on, before any library is loaded."""

from __future__ import annotations

import signal


def main() -> int:
    """Run the command line of this process; returns the exit status.

    Interrupted while the libraries load, which takes seconds, the process ends by the signal at
    once: raised in their midst, an exception would come out as any other, or as none.
    """
    raised = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else: somebody's own
    if raised:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from animebg_core.cli import main as run

    if raised:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return run()
