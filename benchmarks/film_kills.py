"""Films killed at random moments: each goes on, and ends in the same film, byte for byte.

    python -m benchmarks.film_kills --kills 100

One film of 60 small frames, two shots and sound, painted by a small random network in segments of
8 frames. A few kills run in the suite (tests/test_film.py).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
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
from ._forks import ended, fork

SEGMENT, FRAMES, CUT = 8, 60, 37


@dataclass
class Found:
    """What became of a film that was killed again and again.

    Attributes:
        kills: that hit a run.
        films: completed after one kill or several.
        wrong: films that differ from the one never interrupted, or left something behind.
        again: the most frames that a kill made a later run paint again.
        late: kills of films of which 85% were kept, all of which the next run kept.
    """

    kills: int = 0
    films: int = 0
    wrong: int = 0
    again: int = 0
    late: int = 0


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
            time.sleep(chance.uniform(0, lasts))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            killed = ended(pid) == -signal.SIGKILL
            found.wrong += target.exists() and target.read_bytes() != expected
            if not killed:
                lasts *= 0.9  # it was over before: the machine is less busy now
            elif not target.exists():
                found.kills += 1
                painted = log.stat().st_size if log.exists() else 0
                after = _segments(kept)
                found.wrong += not before <= after  # one that was whole is gone
                frames = sum(min(SEGMENT, FRAMES - SEGMENT * number) for number in after - before)
                found.again = max(found.again, painted - frames)
                if len(after) * SEGMENT >= 0.85 * FRAMES:
                    found.late += 1
                if found.kills < count and chance.random() < 0.5:
                    continue  # killed again where it goes on
                begun = after
                log.unlink(missing_ok=True)
                found.wrong += ended(fork(run)) != 0 or target.read_bytes() != expected
                painted = log.stat().st_size if log.exists() else 0
                rest = FRAMES - sum(min(SEGMENT, FRAMES - SEGMENT * k) for k in begun)
                # Two frames before the first missing one are painted to steady it.
                found.wrong += painted > rest + 2
                found.wrong += kept.exists()
                found.films += 1
            if target.exists():
                target.unlink()
    return found


def _segments(folder: Path) -> set[int]:
    return {int(path.stem.split("-")[1]) for path in folder.glob("segment-*.mkv")}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)  # a pool of threads does not live on in a forked child
    work.SEGMENT = SEGMENT
    found = kills(args.kills, args.seed)
    print(f"{found.kills} kills, {found.films} films that went on, {found.wrong} wrong")
    print(f"painted again after a kill: {found.again} frames at most, in segments of {SEGMENT}")
    print(f"killed with 85% or more kept: {found.late}")
    return int(found.wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
