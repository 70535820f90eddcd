"""A worker: holds a painter, and takes pieces. It runs in a process of its own, on any machine."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch

from .. import __version__
from ..errors import AnimeBGError, first_line
from ..painter import Memory, Painter
from .pieces import Item, Piece, stamp

if TYPE_CHECKING:
    from ..film.film import FilmRun

_TRIES = 3  # of what its worker died of each time
_FEW_SHOTS = 5  # their key frames are fewer than a segment's: not worth a round of their own
_LOST = "its worker died each time: too little memory, or a crash in a library"

# Told of the number of an item: "done", "failed", "note" or "planned", and a text.
Tell = Callable[[int, str, str], None]


class Kit(Protocol):
    """How items are painted. Every worker is sent it, so it must survive pickling.

    Attributes:
        version: of the package that made it.
        folder: where relative paths start.
    """

    @property
    def version(self) -> str: ...  # noqa: D102 - see above
    @property
    def folder(self) -> str: ...  # noqa: D102 - see above

    def painter(self, device: str) -> Painter:
        """A painter on "cpu", "cuda" or "mps".

        Raises:
            AnimeBGError: there can be none here.
        """
        ...

    def photos(self, items: Sequence[tuple[int, Item]], painter: Painter, tell: Tell) -> None:
        """Paint photos, and tell of each what became of it."""
        ...

    def clip(self, item: Item, painter: Painter) -> FilmRun:
        """A clip, neither begun nor resumed.

        Raises:
            AnimeBGError: it cannot be read.
        """
        ...

    def reason(self, item: Item, error: BaseException) -> str:
        """Why a clip came to nothing, in a line."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """What a worker has of its machine.

    Attributes:
        device: "cpu", "cuda" or "mps".
        threads: of torch.
        sharers: how many workers share the memory of the device.
    """

    device: str
    threads: int
    sharers: int


class Worker:
    """Does pieces for as long as it lives; what is wrong with one is told, and the next comes."""

    def __init__(self, kit: Kit, place: Place, begun: Callable[[str], int]) -> None:
        """Args:
        begun: called when something is begun; says for the how many-th time that is.
        """
        self._kit, self._begun = kit, begun
        self._film: tuple[Item, FilmRun] | None = None  # the last one
        self._wrong = ""
        with suppress(OSError):  # paths may be absolute
            os.chdir(kit.folder)
        torch.set_num_threads(place.threads)
        if kit.version != __version__:
            self._wrong = f"a worker has AnimeBG {__version__}, and {kit.version} sent it here"
            return
        try:
            painter = kit.painter(place.device)
        except (AnimeBGError, OSError, RuntimeError, MemoryError) as error:
            self._wrong = f"a worker cannot start: {first_line(error) or type(error).__name__}"
            return
        self._painter = replace(painter, memory=_Share(painter.memory, place.sharers))

    def do(self, piece: Piece, tell: Tell) -> None:
        """Do a piece, and tell what became of it. Of clips only "join" comes to "done"."""
        todo: list[tuple[int, Item]] = []
        for number, item, before in zip(piece.items, piece.paths, piece.stamps, strict=True):
            if not _made(item, before):
                todo.append((number, item))
            elif piece.kind in ("photos", "join"):
                tell(number, "done", "")  # by a worker that died before it could tell
        tries = self._begun(piece.id)
        if self._wrong:
            for number, _ in todo:
                tell(number, "failed", self._wrong)
        elif piece.kind != "photos":
            for number, item in todo:
                if tries > _TRIES:
                    tell(number, "failed", _LOST)
                else:
                    self._step(piece, number, item, tell)
        elif tries == 1:
            self._kit.photos(todo, self._painter, tell)
        else:
            # One of them may be what killed the worker before: each for itself.
            for number, item in todo:
                if self._begun(f"{piece.id}/{number}") > _TRIES:
                    tell(number, "failed", _LOST)
                else:
                    self._kit.photos([(number, item)], self._painter, tell)

    def _step(self, piece: Piece, number: int, item: Item, tell: Tell) -> None:
        """A step of a clip."""
        try:
            self._steps(piece, number, item, tell)
        except (AnimeBGError, OSError, MemoryError, RuntimeError) as error:
            self._film = None
            tell(number, "failed", self._kit.reason(item, error))

    def _steps(self, piece: Piece, number: int, item: Item, tell: Tell) -> None:
        if piece.kind == "begin":
            film = self._kit.clip(item, self._painter)
            begun = film.begin()
            for note in (*film.notes, *begun):
                tell(number, "note", note)
            self._film = item, film
            if len(film.shots()) <= _FEW_SHOTS:
                film.gather(film.shots())
            plan = {"frames": film.frames, "gather": film.shots(), "paint": film.missing()}
            tell(number, "planned", json.dumps(plan))
            return
        if self._film is None or self._film[0] != item:
            film = self._kit.clip(item, self._painter)
            film.resume()
            self._film = item, film
        film = self._film[1]
        if piece.kind == "gather":
            film.gather([n for n in film.shots() if piece.first <= n <= piece.last])
        elif piece.kind == "paint":
            film.paint([n for n in film.missing() if piece.first <= n <= piece.last])
        else:
            for note in film.join():
                tell(number, "note", note)
            tell(number, "done", "")


def _made(item: Item, before: str) -> bool:
    """Its file has been put in its place since the piece was made.

    Of numbered pictures nothing can be told by one name, and they may be joined again.
    """
    return stamp(item.target) not in ("", before)


class _Share:
    """The memory of a device of which each of several workers takes an equal part."""

    def __init__(self, memory: Memory, sharers: int) -> None:
        self._memory, self._sharers = memory, sharers

    def free(self) -> int | None:
        """See `Memory`."""
        free = self._memory.free()
        return None if free is None else free // self._sharers

    def reserve(self, count: int) -> None:
        """See `Memory`."""
        self._memory.reserve(count)

    def exhausted(self, error: BaseException) -> bool:
        """See `Memory`."""
        return self._memory.exhausted(error)

    def release(self) -> None:
        """See `Memory`."""
        self._memory.release()


class RowWorker:
    """A `Worker` as Ray Data calls it: pieces in, tables of what is to be told out."""

    def __init__(self, sent: list[Any], ledger: Any, place: Place) -> None:
        """Args:
        sent: a reference to the kit, in a list so that it is fetched here: as an argument by
            itself it would be lost to an actor that is started again.
        ledger: an actor that counts.
        """
        ray: Any = importlib.import_module("ray")

        def begun(name: str) -> int:
            try:
                return int(ray.get(ledger.begun.remote(name)))
            except ray.exceptions.RayError:
                return 1  # it died too

        self._worker = Worker(cast(Kit, ray.get(sent[0])), place, begun)

    def __call__(self, table: Any) -> Any:
        """One piece a row, as `Piece` has its columns."""
        arrow: Any = importlib.import_module("pyarrow")
        told: list[tuple[int, str, bytes]] = []

        def tell(item: int, what: str, text: str) -> None:
            told.append((item, what, text.encode("utf-8", "surrogateescape")))

        rows: list[dict[str, Any]] = table.to_pylist()
        for row in rows:
            piece = Piece(**row)
            self._worker.do(piece, tell)
            told.append((-1, "end", piece.id.encode()))
        names = (("item", arrow.int64()), ("what", arrow.string()), ("text", arrow.binary()))
        columns = [list(column) for column in zip(*told, strict=True)]
        return arrow.table(columns, schema=arrow.schema(names))
