"""Work that Ctrl-C need not wait for: in threads that end with the process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent import futures
from typing import TypeVar

Result = TypeVar("Result")


def begin(work: Callable[[], Result]) -> futures.Future[Result]:
    """Start `work` in a thread of its own.

    A daemon, unlike those of an executor, for which Python waits at its end: a read from a mount
    that hangs may never come back.
    """
    future: futures.Future[Result] = futures.Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - handed over to whoever waits
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def finish(future: futures.Future[Result]) -> Result:
    """What came of it; meanwhile signals are answered, on Windows too."""
    while not future.done():
        futures.wait([future], timeout=0.2)
    return future.result()
