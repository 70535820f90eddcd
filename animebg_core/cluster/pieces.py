"""What is painted on many machines, in pieces: each is a row of a dataset, small ones together."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ..files.addresses import Address, Location, location

Kind = Literal["photos", "begin", "gather", "paint", "join"]

_BATCH_BYTES = 64 << 20  # of files that are painted as one piece: a driver hands out only so many
_BATCH_FILES = 32
_EACH = 4  # pieces a worker at least, where there are enough: or one is left with the last


@dataclass(frozen=True, slots=True)
class Item:
    """A photo or a clip to be painted, and the file to make of it."""

    source: Location
    target: Location
    is_clip: bool  # to be painted in steps: at addresses no worker sees another's


@dataclass(frozen=True, slots=True)
class Piece:
    """What one worker does at a time. A piece that is done twice does no harm.

    Attributes:
        id: its name in logs.
        kind: photos; or of a clip its beginning, the statistics of shots, segments, the joining.
        items: their numbers; one of a clip.
        sources, targets: of each item, as the file system has their names.
        stamps: of what has the targets' names already; see `stamp`.
        first, last: the shots ("gather") or the segments ("paint") of a clip that are meant.
    """

    id: str
    kind: Kind
    items: list[int]
    sources: list[bytes]
    targets: list[bytes]
    stamps: list[str]
    first: int = 0
    last: int = 0

    @property
    def paths(self) -> list[Item]:
        """The items again."""
        return [
            Item(
                location(os.fsdecode(source)), location(os.fsdecode(target)), self.kind != "photos"
            )
            for source, target in zip(self.sources, self.targets, strict=True)
        ]


def piece_of(
    items: Sequence[Item], chosen: Sequence[int], kind: Kind, first: int = 0, last: int = 0
) -> Piece:
    """The piece of the items with those numbers."""
    mine = [items[at] for at in chosen]
    return Piece(
        f"{kind}-{chosen[0]}-{first}",
        kind,
        list(chosen),
        [os.fsencode(item.source) for item in mine],
        [os.fsencode(item.target) for item in mine],
        [_before(item.target) for item in mine],
        first,
        last,
    )


def _before(path: Location) -> str:
    """`stamp`, for which an address that was not there is not asked once more."""
    return "" if isinstance(path, Address) and not path.exists() else stamp(path)


def stamp(path: Location) -> str:
    """What tells a file from one put in its place later; empty where there is none."""
    if isinstance(path, Address):
        return path.stamp()
    try:
        found = os.stat(path)
    except OSError:
        return ""
    return f"{found.st_ino}-{found.st_mtime_ns}"


def photo_pieces(items: Sequence[Item], workers: int) -> list[Piece]:
    """The photos: small files together, as long as there are several pieces for every worker."""
    photos = [at for at, item in enumerate(items) if not item.is_clip]
    most = max(1, min(_BATCH_FILES, len(photos) // (_EACH * workers)))
    pieces: list[Piece] = []
    held: list[int] = []
    room = _BATCH_BYTES
    for at in photos:
        size = _size(items[at].source)
        if held and (len(held) == most or size > room):
            pieces.append(piece_of(items, held, "photos"))
            held, room = [], _BATCH_BYTES
        held.append(at)
        room -= size
    return [*pieces, piece_of(items, held, "photos")] if held else pieces


def _size(path: Location) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0  # told of when it is read


def runs(numbers: Sequence[int], total: int, workers: int) -> Iterator[tuple[int, int]]:
    """First and last of shots or segments that are done in one go, of `total` in all films.

    Long ones, since each reads its film from the start: just enough for every worker.
    """
    each = max(1, math.ceil(total / (_EACH * workers)))
    for start in range(0, len(numbers), each):
        run = numbers[start : start + each]
        yield run[0], run[-1]
