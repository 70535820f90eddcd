"""Photos and clips painted by a fleet: the photos, and clips in steps, one after the other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence

from .fleet import Event, Fleet
from .pieces import Item, Kind, Piece, photo_pieces, piece_of, runs
from .worker import Tell

Progress = Callable[[str, int, int], None]  # a stage, and how many of its pieces are done

# After a clip has begun: its cuts are known, and what is missing.
_STEPS: tuple[tuple[str, Kind], ...] = (
    ("statistics of films", "gather"),
    ("segments of films", "paint"),
    ("films joined", "join"),
)


def paint_everywhere(
    items: Sequence[Item], fleet: Fleet, *, tell: Tell, progress: Progress
) -> None:
    """Paint photos and clips by the workers of a fleet.

    Args:
        items: to be painted, whatever has their targets' names.
        tell: told of every item "done" or "failed" once, and any number of times "note" before.
        progress: told of pieces as they are done.

    Raises:
        ClusterError: the cluster is gone, or can start no worker.
    """
    clips = [at for at, item in enumerate(items) if item.is_clip]
    # The beginnings of clips first: they take longest.
    pieces = [piece_of(items, [at], "begin") for at in clips]
    pieces += photo_pieces(items, fleet.workers)
    # Of each clip that is begun and has not failed: the numbers that each step is to do.
    plans: dict[int, dict[str, list[int]]] = {}
    for at, what, text in _stage("photos and cuts", pieces, fleet, progress):
        if what == "planned":
            plans[at] = {**json.loads(text), "join": [0]}
        else:
            tell(at, what, text)
    for name, kind in _STEPS:
        total = sum(len(plan[kind]) for plan in plans.values())
        pieces = [
            piece_of(items, [at], kind, *run)
            for at, plan in plans.items()
            for run in runs(plan[kind], total, fleet.workers)
        ]
        for at, what, text in _stage(name, pieces, fleet, progress):
            if what != "failed" or plans.pop(at, None) is not None:
                tell(at, what, text)


def _stage(name: str, pieces: Sequence[Piece], fleet: Fleet, progress: Progress) -> Iterator[Event]:
    if not pieces:
        return
    done = 0
    progress(name, 0, len(pieces))
    for told in fleet.spread(pieces):
        for event in told:
            if event[1] == "end":
                done += 1
            else:
                yield event
        progress(name, done, len(pieces))
