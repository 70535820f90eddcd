"""Files that are whole or absent: written under another name, flushed to the disk, then renamed."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

# What a file system says that cannot flush to its disk: some mounts of shares and of phones. The
# bytes are written all the same, only when is not known.
_CANNOT_FLUSH = {
    errno.EINVAL,
    errno.ENOSYS,
    errno.ENOTSUP,
    getattr(errno, "EOPNOTSUPP", errno.ENOTSUP),
}


@contextmanager
def whole_file(
    target: Path, *, folder: Path | None = None, replace: bool = True
) -> Generator[BinaryIO]:
    """A new file, open for writing, that takes `target`'s name when the block ends well.

    Until then it lies beside `target` as `.animebg-*.part`; a block that raises leaves nothing. A
    file that has the name already is replaced in one step, so that readers see the old or the new.

    Args:
        target: its folder must exist.
        folder: where the unfinished file lies instead, on the same disk.
        replace: False leaves a file that has got the name by then, and drops the new one.

    Raises:
        OSError: the file cannot be written, flushed or renamed.
    """
    with part_file(target, folder=folder, replace=replace) as part, part.open("x+b") as file:
        yield file
        file.flush()
        flush_to_disk(file.fileno())


@contextmanager
def part_file(target: Path, *, folder: Path | None = None, replace: bool = True) -> Generator[Path]:
    """As `whole_file`, for what writes by a path: the name that it is to write under.

    Nothing has that name yet. What is written there must be closed when the block ends.
    """
    name = f".animebg-{os.getpid()}-{secrets.token_hex(4)}.part"
    part = (folder or target.parent) / name
    try:
        yield part
        if replace or not os.path.lexists(target):
            os.replace(part, target)
        else:
            part.unlink()
    except BaseException:
        with suppress(OSError):  # the first error is the one to tell
            part.unlink(missing_ok=True)
        raise


def flush_to_disk(descriptor: int) -> None:
    """Wait until what was written is on the disk, where the file system can say.

    Without, a name could be on the disk before its bytes are, and be empty after a power cut.

    Raises:
        OSError: the disk is full, or broken: the bytes are not there.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_FLUSH:
            raise
