"""Trainings of a style killed at random moments: they go on, and end with the same weights.

    python -m benchmarks.own_style --kills 20 [--drawing 12]

With a small random network and pictures made up for it; how near a style comes to a truth that is
known: `python -m training.truth`. A few kills run in the suite (tests/test_own_style.py).
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from animebg_core.cli import main as command
from animebg_core.training import data, drawing, own

from ._common import oracle
from ._forks import ended, fork, killed


def _pictures(folder: Path, seed: int) -> Path:
    folder.mkdir()
    draw = np.random.default_rng(seed)
    for number in range(20):
        small = Image.fromarray(draw.integers(0, 256, (6, 9, 3), np.uint8))
        small.resize((96, 64), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


def kills(count: int, seed: int, more: list[str]) -> tuple[int, int]:
    """After `count` kills that hit trainings, how many of these went on, and how many wrongly.

    Args:
        more: options of `animebg train`.
    """
    chance = random.Random(seed)
    hit = goes = wrong = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        start = folder / "start.safetensors"
        save_file(oracle.random_lite_state((8, 12, 8), 1), start)
        frames, photos = _pictures(folder / "frames", 1), _pictures(folder / "photos", 2)
        fixed = ["train", str(frames), "--photos", str(photos), "--start", str(start)]
        fixed += [*more, "--device", "cpu", "-o"]
        began = time.monotonic()
        assert ended(fork(lambda: command([*fixed, str(folder / "whole.safetensors")]))) == 0
        lasts = time.monotonic() - began
        whole = load_file(folder / "whole.safetensors")
        number = 0
        while hit < count:
            target = folder / f"{number}.safetensors"
            train = partial(command, [*fixed, str(target)])
            pid = fork(train)
            time.sleep(chance.uniform(0, lasts))
            if killed(pid) == -signal.SIGKILL:
                hit += 1
                if hit < count and chance.random() < 0.5:  # killed again where it goes on
                    continue
                status = ended(fork(train))
                made = load_file(target)
                same = all(torch.equal(made[name], whole[name]) for name in whole)
                # 2: it was finished, and killed while it ended.
                wrong += status not in (0, 2) or not same or own.state_folder(target).exists()
                goes += 1
            else:
                lasts *= 0.8  # it was over before: the machine is less busy now
            number += 1
    return goes, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--drawing", type=int, default=0, metavar="STEPS", help="after the palette")
    args = parser.parse_args()
    torch.set_num_threads(1)  # a pool of threads does not live on in a forked child
    data._WINDOWS = (((48, 32), (64, 96)),)  # pyright: ignore[reportPrivateUsage]
    own.PALETTE_STEPS, own.SAVE_SECONDS = 30, 0.0
    drawing.DRAWING_STEPS, own.LOOK_EVERY = args.drawing, 4
    more = ["--hours", "1"] if args.drawing else []
    goes, wrong = kills(args.kills, args.seed, more)
    print(f"{args.kills} kills, {goes} trainings that went on: {wrong} ended otherwise")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
