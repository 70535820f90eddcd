"""What it costs to give work to many processes, and whether it outlives them.

`overhead`: rows that sleep as long as a painting takes, by 1 and 2 workers, against one process.
`fleet`: more workers than this machine can hold, for what one driver can hand out.
`kills`: jobs whose worker, cluster or driver is killed at a random moment, and that are run again.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from animebg_core import load_generator
from animebg_core.cli import main as animebg
from animebg_core.cli import many
from animebg_core.cluster.fleet import fleet
from animebg_core.cluster.pieces import Item, Piece, piece_of
from animebg_core.cluster.worker import Tell
from animebg_core.film.film import FilmRun
from animebg_core.painter import Painter
from benchmarks._common import ROOT, oracle, print_header, print_table, save_file

_KILLED = ("worker", "driver", "cluster")


@dataclass(frozen=True)
class Counted(many.Kit):
    """Writes down what is painted, by which process, before it is painted."""

    log: str = ""
    seconds: float = 0.0  # that a photo takes at least

    def photos(self, items: Sequence[tuple[int, Item]], painter: Painter, tell: Tell) -> None:
        """One after the other."""
        for at, item in items:
            self._write(item.target.name)
            time.sleep(self.seconds)
            super().photos([(at, item)], painter, tell)

    def clip(self, item: Item, painter: Painter) -> FilmRun:
        """Its segments one after the other."""
        run = super().clip(item, painter)
        paint = run.paint

        def counted(missing: Sequence[int]) -> None:
            for number in missing:
                self._write(f"{item.target.name} {number}")
                paint([number])

        run.paint = counted
        return run

    def _write(self, what: str) -> None:
        with open(self.log, "a", encoding="utf-8") as log:
            log.write(f"{os.getpid()} {what}\n")


@dataclass(frozen=True)
class Sleeping(many.Kit):
    """Paints nothing, for so many seconds a photo; tells in which process, and when."""

    seconds: float = 0.0

    def photos(self, items: Sequence[tuple[int, Item]], painter: Painter, tell: Tell) -> None:
        """Sleep."""
        for at, _ in items:
            began = time.monotonic()
            time.sleep(self.seconds)
            tell(at, "done", f"{os.getpid()} {began} {time.monotonic()}")


# --- Overhead and the limit of a driver ---


def overhead(network: Path, seconds: float, rows: int, workers: int, batch: int) -> list[str]:
    """A row of the table: what a photo takes beyond its own time, once the workers run."""
    look = {"strength": 1.0, "painting_size": 0, "detail": "photo", "colour": 1.0}
    args = argparse.Namespace(style="random", precision="auto", memory_limit=None, **look)
    kit = Sleeping(args, [(load_generator(network), 1.0)], None, os.getcwd(), seconds=seconds)
    items = [Item(Path(f"{at}.png"), Path(f"absent/{at}.png"), False) for at in range(rows)]
    pieces = [
        piece_of(items, range(at, min(at + batch, rows)), "photos") for at in range(0, rows, batch)
    ]
    began = time.monotonic()
    spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with fleet(f"local:{workers}", kit, device="cpu") as crew:
        connected = time.monotonic() - began
        for told in crew.spread(pieces):
            for _, what, text in told:
                if what == "done":
                    pid, *span = text.split()
                    spans[pid].append((float(span[0]), float(span[1])))
    first = min(start for own in spans.values() for start, _ in own) - began
    # Of each worker, from the beginning of its first photo to the end of its last.
    spent = sum(max(end for _, end in own) - min(s for s, _ in own) for own in spans.values())
    more = spent / rows - seconds
    return [
        str(workers),
        f"{seconds:g}",
        str(batch),
        str(rows),
        f"{1000 * more:.0f}",
        f"{more / seconds:.1%}",
        f"{connected:.1f}",
        f"{first:.1f}",
    ]


def driver_limit(rows: int, processes: int, threads: int, seconds: float) -> list[str]:
    """Rows that sleep, by processes that each run several: to the driver it is so many workers."""

    class Sleeper:
        """Needs no torch, so that many have room."""

        def __call__(self, table: Any) -> Any:
            time.sleep(seconds)
            return table.select(["id"])

    args = argparse.Namespace()
    kit = many.Kit(args, [], None, os.getcwd())
    items = [Item(Path("a.png"), Path("absent/a.png"), False)]
    pieces = [
        Piece(**{**asdict(piece_of(items, [0], "photos")), "id": str(k)}) for k in range(rows)
    ]
    with fleet("local:2", kit, device="cpu"):
        data: Any = importlib.import_module("ray.data")
        began = time.monotonic()
        table = data.from_items([asdict(piece) for piece in pieces], override_num_blocks=rows)
        made = time.monotonic() - began
        ended = table.map_batches(
            Sleeper,
            batch_size=1,
            batch_format="pyarrow",
            compute=data.ActorPoolStrategy(
                size=processes, max_concurrent_calls_per_actor=threads,
                enable_true_multi_threading=True,
            ),
            num_cpus=1.8 / processes,
        )  # fmt: skip
        times = [time.monotonic() for _ in ended.iter_batches(batch_size=None)]
    # Without the start of the workers and the last ones' end.
    low, high = len(times) // 10, 9 * len(times) // 10
    rate = (high - low) / (times[high] - times[low])
    return [str(processes * threads), str(rows), f"{seconds:g}", f"{made:.1f}", f"{rate:.0f}",
            f"{processes * threads / seconds:.0f}"]  # fmt: skip


# --- Kills ---


def make_job(folder: Path, photos: int, film: bool) -> list[str]:
    """Photos, bad ones among them, and a film with three cuts; the arguments to paint them."""
    folder.mkdir(parents=True)
    for number in range(photos):
        cells = np.random.default_rng(number).integers(0, 256, (24, 32, 3), np.uint8)
        Image.fromarray(cells).save(
            folder / f"{number}.{('png', 'jpg', 'tif', 'webp')[number % 4]}"
        )
    (folder / "cut.jpg").write_bytes((folder / "1.jpg").read_bytes()[:300])
    (folder / "none.png").write_bytes(b"no picture")
    if film:
        make_film(folder / "film.mkv")
    network = folder.parent / "net.safetensors"
    save_file(oracle.random_state((4, 8, 12), 1), network)
    return ["stylize", str(folder), "--style", str(network), "--device", "cpu"]


def make_film(path: Path) -> None:
    """Four shots of 20 frames, with sound."""
    from clips import Sound, make_clip

    frames: list[np.ndarray] = []
    for seed in range(4):
        cells = np.random.default_rng(seed).integers(0, 65536, (9, 26, 3), np.uint16)
        wide = cells.repeat(4, 0).repeat(4, 1)
        frames += [wide[:, k : k + 64] for k in range(20)]
    make_clip(path, frames, pixels="yuv444p", sound=Sound("aac"))


def job(log: str, seconds: str, *args: str) -> int:
    """`animebg ARGS`, in which what is painted is written down."""
    many.Kit = partial(Counted, log=log, seconds=float(seconds))
    return animebg(args)


@contextlib.contextmanager
def running(log: Path, args: Sequence[str], seconds: float) -> Iterator[subprocess.Popen[bytes]]:
    """A process of its own that runs `job`."""
    command = [sys.executable, "-m", "benchmarks.cluster", "job", str(log), str(seconds), *args]
    errors = log.with_suffix(".err")
    with errors.open("ab") as file:
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=file)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def killed(
    folder: Path, args: Sequence[str], wanted: Path, what: Sequence[str], chance: random.Random
) -> tuple[str, int]:
    """A job in which each of `what` is killed, run until it is done.

    Returns:
        "right" or what is wrong, and how many pieces were painted more than once.
    """
    folder.mkdir(parents=True)
    log, out = folder / "log", folder / "out"
    args = [*args, "-o", str(out), "--ray", "local:2"]
    with running(log, args, 0.2) as child:
        for victim in what:
            before = len(written(log))
            after = before + chance.randint(1, 6)
            while child.poll() is None and len(written(log)) < after:
                time.sleep(0.02)
            time.sleep(chance.uniform(0, 0.4))
            for pid in victims(victim, child.pid, written(log)[before:]):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        status = child.wait(timeout=240)
    if what[-1] == "worker" and status != 1:  # for the bad photos: another takes its place
        return f"WRONG: status {status} after a worker died", 0
    with running(log, args, 0) as child:
        status = child.wait(timeout=240)
    if status != 1:
        return f"WRONG: status {status} when run again", 0
    names = {path.name for path in wanted.iterdir()}
    there = {path.name for path in out.iterdir() if not path.name.startswith(".animebg-")}
    if there != names:
        return f"WRONG: {sorted(there ^ names)}", 0
    for name in names:
        if (out / name).read_bytes() != (wanted / name).read_bytes():
            return f"WRONG: {name} is another", 0
    times = Counter(line.split(maxsplit=1)[1] for line in written(log))
    return "right", sum(count - 1 for name, count in times.items() if name not in _BAD)


_BAD = ("cut.jpg", "none.png")  # tried again by every run


def written(log: Path) -> list[str]:
    """The lines that are whole."""
    return log.read_text("utf-8").splitlines() if log.exists() else []


def victims(what: str, driver: int, lines: Sequence[str]) -> list[int]:
    """The processes to kill."""
    if what == "worker":
        return [int(line.split()[0]) for line in lines[-1:]]
    if what == "driver":
        return [driver]
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, rest = path.read_text("utf-8").split(") ")
            if name.endswith("(raylet") and int(rest.split()[1]) == driver:
                found.append(int(path.parent.name))
    return found


def kills(
    count: int, seed: int, seconds: float, film: bool = True, each: int = 1
) -> Counter[tuple[str, str, int]]:
    """Jobs killed and run again: what was killed, what came of it, pieces painted again.

    Args:
        count: kills.
        seconds: after which none is begun.
        each: kills a job: workers, and at last a worker, the driver or the cluster.
    """
    end, chance = time.monotonic() + seconds, random.Random(seed)
    found: Counter[tuple[str, str, int]] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        args = make_job(Path(scratch, "in"), 16, film)
        wanted = Path(scratch, "wanted")
        with contextlib.redirect_stdout(None), contextlib.redirect_stderr(None):
            animebg([*args, "-o", str(wanted)])
        for number in range(0, count, each):
            if time.monotonic() > end:
                break
            last = _KILLED[number // each % len(_KILLED)]
            what = ["worker"] * (min(each, count - number) - 1) + [last]
            result, again = killed(Path(scratch, str(number)), args, wanted, what, chance)
            found[", ".join(what), result, again] += 1
            print(f"{number + len(what)}: {', '.join(what)}: {result}, {again} again", flush=True)
    return found


def main() -> int:
    if sys.argv[1:2] == ["job"]:
        return job(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("overhead", "fleet", "kills"))
    parser.add_argument("--rows", type=int, default=0, help="(default: 40, or 10000 of a fleet)")
    parser.add_argument("--workers", default="1,2", help="of overhead (default: 1,2)")
    parser.add_argument("--processes", type=int, default=20, help="of a fleet, 25 threads each")
    parser.add_argument("--count", type=int, default=50, help="kills")
    parser.add_argument("--each", type=int, default=1, help="kills a job (default: 1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop then, if not before")
    args = parser.parse_args()
    print_header("ray")
    if args.what == "overhead":
        with tempfile.TemporaryDirectory() as scratch:
            network = Path(scratch, "net.safetensors")
            save_file(oracle.random_state((2, 3, 4), 1), network)
            print_table(
                ("workers", "seconds a photo", "photos a row", "photos", "more a photo, ms",
                 "share", "to a cluster, s", "to the first photo, s"),
                [
                    overhead(network, seconds, (args.rows or 40) * batch, int(workers), batch)
                    for workers in args.workers.split(",")
                    for seconds, batch in ((1.0, 1), (0.1, 1), (0.1, 8))
                ],
            )  # fmt: skip
    elif args.what == "fleet":
        rows = args.rows or 10_000
        print_table(
            ("workers", "rows", "seconds a row", "rows made in, s", "rows a second", "most"),
            [driver_limit(rows, args.processes, 25, seconds) for seconds in (1.0, 5.0)],
        )
    else:
        found = kills(args.count, args.seed, 60 * args.minutes, each=args.each)
        for (victim, result, again), number in sorted(found.items()):
            print(f"{number:4} x {victim}: {result}, {again} painted again")
        return int(any(result != "right" for _, result, _ in found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
