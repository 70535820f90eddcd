"""Files that are whole or absent: written under another name, flushed to the disk, then renamed."""

from __future__ import annotations

import errno
import io
import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

# What a file system says that cannot flush to its disk: some mounts of shares and of phones. The
# bytes are written all the same, only when is not known.
_CANNOT_FLUSH = {
    errno.EINVAL,
    errno.ENOSYS,
    errno.ENOTSUP,
    getattr(errno, "EOPNOTSUPP", errno.ENOTSUP),
}


class _Writer(io.BufferedRandom):
    """A file that is written through Python alone, which raises when a write comes short.

    An encoder in C that is shown the descriptor writes to it itself, and Pillow's drop what did
    not fit: on a full disk the file would be cut and nobody told.
    """

    def fileno(self) -> int:
        """None is shown."""
        raise io.UnsupportedOperation("written through Python alone")


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
        OSError: the file cannot be written in full, flushed or renamed, or `target` is a pipe or a
            device, which is no file to take the place of.
    """
    with (
        part_file(target, folder=folder, replace=replace) as part,
        part.open("x+b", buffering=0) as raw,
        _Writer(cast(io.RawIOBase, raw)) as file,
    ):
        yield cast(BinaryIO, file)


@contextmanager
def part_file(target: Path, *, folder: Path | None = None, replace: bool = True) -> Generator[Path]:
    """As `whole_file`, for what writes by a path: the name that it is to write under.

    Nothing has that name yet. What is written there must be closed when the block ends.
    """
    name = f".animebg-{os.getpid()}-{secrets.token_hex(4)}.part"
    part = (folder or target.parent) / name
    if os.path.exists(target) and not os.path.isfile(target):
        raise FileExistsError(errno.EEXIST, "it is no regular file", str(target))
    try:
        yield part
        _flush_to_disk(part)
        if replace or not os.path.lexists(target):
            os.replace(part, target)
        else:
            part.unlink()
    except BaseException:
        with suppress(OSError):  # the first error is the one to tell
            part.unlink(missing_ok=True)
        raise


def _flush_to_disk(path: Path) -> None:
    """Wait until a file is on the disk, where the file system can say.

    Without, its name could be on the disk before its bytes are, and be empty after a power cut.
    """
    with path.open("r+b") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in _CANNOT_FLUSH:
                raise
