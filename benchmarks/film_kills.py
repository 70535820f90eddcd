"""Films killed at random moments: each goes on, and ends in the same film, byte for byte.

    python -m benchmarks.film_kills --kills 100

One film of 60 small frames, two shots and sound, painted by a small random network in segments of
8 frames. A few kills run in the suite (tests/test_film.py).
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from animebg_core.cli import main as command
from animebg_core.film import work
from animebg_core.film.film import FilmRun  # noqa: F401 - loaded before children are forked
from animebg_core.film.looks import Looks

from ._common import oracle
from ._forks import ended, fork, killed

SEGMENT, FRAMES, CUT = 8, 60, 37
LATE = 0.85  # of the frames


@dataclass
class Found:
    """What became of a film that was killed again and again.

    Attributes:
        kills: that hit a run.
        films: completed after one kill or several.
        wrong: what must not happen, a line each.
        again: the most frames that a kill made a later run paint again.
        late: kills when 85% were kept, all of which the next run kept.
    """

    kills: int = 0
    films: int = 0
    wrong: list[str] = field(default_factory=list[str])
    again: int = 0
    late: int = 0

    def check(self, right: bool, what: str) -> None:
        if not right:
            self.wrong.append(what)


def _source(path: Path) -> Path:
    import clips  # of the tests, which _common has made importable

    draw = np.random.default_rng(1)
    wide = draw.integers(0, 65536, (2, 12, 60, 3)).repeat(4, 1).repeat(4, 2).astype(np.uint16)
    frames = [wide[int(k >= CUT), :, k : k + 96] for k in range(FRAMES)]
    return clips.make_clip(path, frames, pixels="yuv444p", sound=clips.Sound("aac"))


def _counted(log: Path, run: Callable[[], int]) -> int:
    """`run`, with a byte in `log` for every frame that it begins to paint."""
    paint = Looks.paint
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def counting(self: Looks, shot: int, scene: work.NDArray) -> work.NDArray:
        os.write(file, b".")
        return paint(self, shot, scene)

    Looks.paint = counting
    return run()


def kills(count: int, seed: int) -> Found:
    """Kill runs of one film until `count` kills have hit one."""
    chance, found = random.Random(seed), Found()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        network, log = folder / "tiny.safetensors", folder / "log"
        save_file(oracle.random_state((4, 6, 8), 1), network)
        fixed = ["stylize", str(_source(folder / "in.mkv")), "--style", str(network)]
        fixed += ["--device", "cpu", "--overwrite", "-o"]
        target, whole = folder / "film.mp4", folder / "whole.mp4"
        kept = folder / ".film.mp4.animebg"
        began = time.monotonic()
        assert ended(fork(partial(command, [*fixed, str(whole)]))) == 0
        lasts = time.monotonic() - began
        expected = whole.read_bytes()
        run = partial(_counted, log, partial(command, [*fixed, str(target)]))
        while found.kills < count:
            before = _segments(kept)
            log.unlink(missing_ok=True)
            pid = fork(run)
            if chance.random() < 0.3:  # near the end
                until = time.monotonic() + 10 * lasts
                while _frames(_segments(kept)) < LATE * FRAMES and time.monotonic() < until:
                    time.sleep(0.002)
                time.sleep(chance.uniform(0, 0.15 * lasts))
            else:
                time.sleep(chance.uniform(0, lasts))
            hit = killed(pid) == -signal.SIGKILL
            if target.exists():  # it was over before
                found.check(target.read_bytes() == expected, "a film under its name is not whole")
                lasts *= 1 if hit else 0.9
                shutil.rmtree(kept, ignore_errors=True)  # killed while it removed that
                target.unlink()
                continue
            found.check(hit, "a run ended without a film")
            found.kills += 1
            after = _segments(kept)
            found.check(before <= after, "a segment that was whole is gone")
            found.again = max(found.again, _painted(log) - _frames(after - before))
            found.late += _frames(after) >= LATE * FRAMES
            if found.kills < count and chance.random() < 0.5:
                continue  # killed again where it goes on
            log.unlink(missing_ok=True)
            found.check(ended(fork(run)) == 0, "a resumed run failed")
            found.check(target.read_bytes() == expected, "a resumed film differs")
            # Two frames before the first that is missing are painted again to steady it.
            rest = FRAMES - _frames(after)
            found.check(_painted(log) <= rest + 2, "what was kept was painted again")
            found.check(not kept.exists(), "something was left behind")
            found.films += 1
            target.unlink()
    return found


def _segments(folder: Path) -> set[int]:
    return {int(path.stem.split("-")[1]) for path in folder.glob("segment-*.mkv")}


def _frames(segments: set[int]) -> int:
    return sum(min(SEGMENT, FRAMES - SEGMENT * number) for number in segments)


def _painted(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)  # a pool of threads does not live on in a forked child
    work.SEGMENT = SEGMENT
    found = kills(args.kills, args.seed)
    print(f"{found.kills} kills, {found.films} films that went on, {len(found.wrong)} wrong")
    print(f"painted again after a kill: {found.again} frames at most, in segments of {SEGMENT}")
    print(f"killed with 85% or more kept: {found.late}", *found.wrong, sep="\n")
    return int(bool(found.wrong))


if __name__ == "__main__":
    sys.exit(main())
