"""What the command says: results to standard output, everything else to standard error."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import shutil
import signal
import sys
import threading
import time
import unicodedata
import warnings
from collections.abc import Generator as Yields
from contextlib import contextmanager
from types import FrameType

_USUAL_COLUMNS = 80
_lost = threading.Event()  # results that nobody could be told of


class Bar:
    """How far it is, on the last line of a terminal; nothing where standard error is none.

    Its own, since the packages that draw bars (tqdm, rich) are not among those that the pack may
    ask a host for, and tqdm's takes as few columns for a wide character as for a narrow one.
    """

    def __init__(self) -> None:
        self.visible = sys.stderr is not None and sys.stderr.isatty()
        self._began: tuple[float, float] | None = None  # time and share when first shown
        self._drawn = 0.0

    def show(self, share: float, text: str) -> None:
        """Draw `share`, 0 to 1, `text` and the time left; at most ten times a second."""
        now = time.monotonic()
        if not self.visible or now - self._drawn < 0.1:
            return
        self._drawn = now
        self._began = self._began or (now, share)
        spent, gained = now - self._began[0], share - self._began[1]
        left = ""
        if spent > 1 and gained > 0:  # before, it is a guess
            seconds = round(spent / gained * (1 - share))
            left = f", {datetime.timedelta(seconds=seconds)} left"
        line = f"[{'#' * int(share * 20):20}] {text}{left}"
        width = _columns() - 1
        line = fitting(line, width)
        _write(f"\r{line}{' ' * (width - columns_of(line))}")


class DownloadBar(Bar):
    """The `progress` of a download; says that there is one when it begins."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self._announced = False

    def __call__(self, done: int, total: int) -> None:
        """`done` of `total` bytes have come."""
        if not self._announced:
            self._announced = True
            say(f"downloading {self._name}, {total / 1e6:.0f} MB")
        self.show(done / total, f"{done / 1e6:.0f} of {total / 1e6:.0f} MB")
        if done >= total:
            clear_line()


@contextmanager
def messages(verbose: bool) -> Yields[None]:
    """The package's log, and warnings of libraries, as lines on standard error."""
    if not verbose:
        # Read when the hub's library loads; it would tell of every attempt at a connection.
        os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    handler = _LogHandler()
    log = logging.getLogger("animebg_core")
    log.addHandler(handler)
    log.setLevel(logging.DEBUG if verbose else logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _say_warning
            yield
    finally:
        log.removeHandler(handler)


def printable(text: str) -> str:
    """`text` on one line, without what would steer a terminal: control characters as escapes."""
    joiners = "\u200c\u200d"  # parts of names in several scripts, and of emoji
    return "".join(
        character
        if unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
        or character in joiners
        else character.encode("unicode_escape").decode()
        for character in text
    )


def columns_of(text: str) -> int:
    """How many columns of a terminal `text` takes: East Asian and emoji characters take two."""
    return sum(map(_columns_of_one, text))


def _columns_of_one(character: str) -> int:
    if character == "\ufe0f":  # the one before it is shown as an emoji, which is wide
        return 1
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def fitting(text: str, columns: int) -> str:
    """As much of the printable `text` as has room in so many columns."""
    text, used = printable(text), 0
    for at, character in enumerate(text):
        used += _columns_of_one(character)
        if used > columns:
            return text[:at]
    return text


def _columns() -> int:
    """Of the terminal that the bar is on: standard output may be a file, or another one."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or _USUAL_COLUMNS
    except (OSError, ValueError, AttributeError):
        return shutil.get_terminal_size().columns


def _say_warning(message: Warning | str, *details: object) -> None:
    say(f"warning: {message}")


class _LogHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


@contextmanager
def orderly_end() -> Yields[None]:
    """While this holds, SIGTERM ends the run as Ctrl-C does: nothing half written stays."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def say(text: str) -> None:
    """One line to standard error."""
    clear_line()
    _write("animebg: " + printable(" ".join(str(text).splitlines())) + "\n")


def clear_line() -> None:
    """Take the bar away."""
    if sys.stderr is not None and sys.stderr.isatty():
        _write(f"\r{'':{_columns() - 1}}\r")


def _write(text: str) -> None:
    """Write to standard error, if there is one and anybody reads it: no reason to stop working."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:
            sys.stderr.write(text)
            sys.stderr.flush()


def result(line: str) -> None:
    """One line to standard output; when it can take no more, the work goes on without."""
    try:
        if sys.stdout is not None and sys.stdout.isatty():
            line = printable(line)
        try:
            print(line, flush=True)
        except UnicodeEncodeError:
            # A name that the terminal cannot show, or that is no valid text.
            print(line.encode("ascii", "backslashreplace").decode(), flush=True)
    except BrokenPipeError:
        _drop_output()  # whoever read it has seen enough
    except OSError as error:
        _drop_output()
        _lost.set()
        say(f"standard output cannot be written ({error.strerror}); the work goes on without")


def results_lost() -> bool:
    """Whether standard output could not take all results, for another reason than a closed pipe."""
    return _lost.is_set()


def _drop_output() -> None:
    """Lead standard output nowhere, so that Python's last flush at exit finds nothing wrong."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
