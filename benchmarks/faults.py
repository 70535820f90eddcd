"""Damaged files and killed processes, many of them: nothing crashes, hangs or is half-made.

    python -m benchmarks.faults pictures --count 10000
    python -m benchmarks.faults checkpoints --count 10000
    python -m benchmarks.faults kills --count 1000

Everything is drawn from --seed. A quick slice of each runs in the suite (tests/test_campaigns.py).
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import hashlib
import io
import math
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image, features
from safetensors.torch import save_file

from animebg_core.cli import main as command
from animebg_core.errors import AnimeBGError
from animebg_core.files.photos import read_photo
from animebg_core.network.checkpoint import load_checkpoint

from ._common import oracle
from ._forks import ended, fork, killed

SECONDS = 10  # a file that takes longer hangs
MEMORY = 2 << 30  # bytes of address space that one file may take beside what is there before
_TOGETHER = 100  # files to a forked child
_CODE = ("os.system", "os.exec", "os.spawn", "os.posix_spawn", "subprocess.Popen", "pty.spawn")


# --- Mutations ---


def mutated(data: bytes, chance: random.Random) -> bytes:
    """`data` with one kind of damage: flipped bits, a cut, blocks swapped, or a size that lies."""
    damaged = bytearray(data)
    kind = chance.randrange(5)
    if kind == 0:
        for _ in range(chance.choice((1, 2, 8, 64))):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
    elif kind == 1:
        del damaged[chance.randrange(len(damaged)) :]
    elif kind == 2:
        size = chance.randrange(1, max(2, len(damaged) // 4))
        one, two = (chance.randrange(max(1, len(damaged) - size)) for _ in range(2))
        first, second = damaged[one : one + size], damaged[two : two + size]
        damaged[one : one + size], damaged[two : two + size] = second, first
    elif kind == 3:
        # Sizes stand in the first bytes of most formats.
        at = chance.randrange(min(len(damaged) - 4, 256))
        lie = chance.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x10000, chance.getrandbits(32)))
        struct.pack_into(chance.choice("<>") + "I", damaged, at, lie)
        if damaged.startswith(b"\x89PNG"):  # a lie that the checksum vouches for
            struct.pack_into(">I", damaged, 29, zlib.crc32(damaged[12:29]))
    else:
        at = chance.randrange(len(damaged))
        damaged[at:at] = chance.randbytes(chance.randrange(1, 40))
    return bytes(damaged)


def pictures() -> dict[str, bytes]:
    """Small whole pictures in every format that this Pillow writes, by suffix."""
    cells = np.random.default_rng(0).integers(0, 256, (6, 8, 4), np.uint8)
    image = Image.fromarray(cells).resize((48, 36))
    deep = Image.fromarray(np.arange(48 * 36, dtype=np.uint16).reshape(36, 48))
    exif = Image.Exif()
    exif[274], exif[315] = 6, "somebody"
    kinds: dict[str, tuple[Image.Image, str, dict[str, object]]] = {
        "png": (image, "PNG", {"exif": exif}),
        "grey16.png": (deep, "PNG", {}),
        "palette.png": (image.quantize(16), "PNG", {"bits": 4}),
        "jpg": (image.convert("RGB"), "JPEG", {"exif": exif}),
        "progressive.jpg": (image.convert("RGB"), "JPEG", {"progressive": True}),
        "cmyk.jpg": (image.convert("CMYK"), "JPEG", {}),
        "tif": (image, "TIFF", {"exif": exif}),
        "lzw.tif": (image, "TIFF", {"compression": "tiff_lzw"}),
        "grey16.tif": (deep, "TIFF", {}),
        "webp": (image, "WEBP", {"exif": exif}),
        "bmp": (image.convert("RGB"), "BMP", {}),
        "gif": (image.convert("P"), "GIF", {}),
        "ppm": (image.convert("RGB"), "PPM", {}),
        "tga": (image, "TGA", {"compression": "tga_rle"}),
        "ico": (image.resize((32, 32)), "ICO", {"sizes": [(32, 32)]}),
        "qoi": (image, "QOI", {}),
        "pcx": (image.convert("RGB"), "PCX", {}),
        "jp2": (image, "JPEG2000", {}),
    }
    if features.check("avif"):
        kinds["avif"] = (image, "AVIF", {})
    made: dict[str, bytes] = {}
    for suffix, (picture, kind, options) in kinds.items():
        file = io.BytesIO()
        with contextlib.suppress(OSError, KeyError, ValueError):  # this Pillow does not write it
            picture.save(file, kind, **options)
            made[suffix] = file.getvalue()
    return made


def checkpoints() -> dict[str, bytes]:
    """A small network in every way that checkpoints are saved, by suffix."""
    made: dict[str, bytes] = {}
    state = oracle.random_state((2, 3, 4), 1)
    for suffix, new in (("zip.pth", True), ("old.pth", False)):
        file = io.BytesIO()
        torch.save(state, file, _use_new_zipfile_serialization=new)
        made[suffix] = file.getvalue()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.safetensors")
        save_file(state, path)
        made["safetensors"] = path.read_bytes()
    return made


# --- Files, one after the other in forked children ---


def campaign(
    whole: dict[str, bytes],
    read: Callable[[Path], object],
    count: int,
    seed: int,
    seconds: float = math.inf,
) -> collections.Counter[str]:
    """What became of `count` mutated files, or of those that `seconds` sufficed for: "read",
    "refused: KIND", or what must not happen.
    """
    end = time.monotonic() + seconds
    found: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        for suffix, data in whole.items():
            path = Path(folder, f"whole.{suffix}")
            path.write_bytes(data)
            read(path)  # what is whole must be read, and what is loaded late is loaded now
        number = 0
        while number < count and time.monotonic() < end:
            results = list(
                _child(whole, read, folder, number, min(count, number + _TOGETHER), seed)
            )
            found.update(outcome for _, outcome in results)
            number += len(results)
    return found


def _file(whole: dict[str, bytes], number: int, seed: int) -> tuple[str, bytes]:
    chance = random.Random(f"{seed} {number}")
    suffix = chance.choice(sorted(whole))
    return suffix, mutated(whole[suffix], chance)


def _child(
    whole: dict[str, bytes],
    read: Callable[[Path], object],
    folder: str,
    start: int,
    stop: int,
    seed: int,
) -> Iterator[tuple[int, str]]:
    """Outcomes of files `start` to `stop`; the last is of the file at which the child died."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _serve(whole, read, Path(folder), range(start, stop), seed, writing)
    os.close(writing)
    done = start
    with os.fdopen(reading) as lines:
        for line in lines:
            yield done, line.strip()
            done += 1
    _, status = os.waitpid(pid, 0)
    if done < stop:
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        kind = "HANG" if number == signal.SIGALRM else f"CRASH (signal {number})"
        yield done, f"{kind}: file {done} of seed {seed}"


def _serve(
    whole: dict[str, bytes],
    read: Callable[[Path], object],
    folder: Path,
    numbers: range,
    seed: int,
    writing: int,
) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ran: list[str] = []
    sys.addaudithook(lambda event, _: ran.append(event) if event.startswith(_CODE) else None)
    for number in numbers:
        suffix, data = _file(whole, number, seed)
        path = folder / f"{os.getpid()}.{suffix}"
        path.write_bytes(data)
        signal.alarm(SECONDS)  # not caught: whatever the code below does, it ends
        try:
            read(path)
            outcome = "read"
        except AnimeBGError as error:
            plain = "\n" not in str(error)
            outcome = f"refused: {type(error).__name__}" if plain else "NOT ONE LINE"
        except BaseException as error:  # noqa: BLE001 - that is what is looked for
            outcome = f"RAISED {type(error).__name__}: file {number} of seed {seed}"
        signal.alarm(0)
        if ran:
            outcome = f"CODE RAN ({ran[0]}): file {number} of seed {seed}"
            ran.clear()
        path.unlink()
        os.write(writing, f"{outcome}\n".encode())
    os._exit(0)


def failures(found: collections.Counter[str]) -> list[str]:
    """Those outcomes that must not happen."""
    return [outcome for outcome in found if outcome != "read" and not outcome.startswith("refused")]


# --- Kills ---


def killed_folder_run(folder: Path, network: Path, chance: random.Random) -> str:
    """A folder run killed at a random moment, and run again."""
    photos, out = folder / "in", folder / "out"
    photos.mkdir(parents=True)
    for number in range(4):
        cells = np.random.default_rng(number).integers(0, 256, (24, 32, 3), np.uint8)
        Image.fromarray(cells).save(photos / f"{number}.{('png', 'jpg', 'tif', 'webp')[number]}")
    args = ["stylize", str(photos), "-o", str(out), "--style", str(network), "--device", "cpu"]
    began = time.monotonic()
    _killed(lambda: command(args), chance.uniform(0, _Pace.folder))
    wrong = [path for path in _named(out) if not _is_whole(path)]
    if wrong:
        return f"HALF A FILE: {wrong[0].name}"
    began = time.monotonic()
    status = ended(fork(lambda: command(args)))
    _Pace.folder = max(_Pace.folder, min(2.0, time.monotonic() - began))
    whole = sorted(path.name for path in _named(out)) == sorted(os.listdir(photos))
    return "right" if status == 0 and whole and all(map(_is_whole, _named(out))) else "WRONG"


def killed_conversion(folder: Path, network: Path, chance: random.Random) -> str:
    """A conversion killed at a random moment, and done again."""
    folder.mkdir(parents=True)
    target = folder / "net.safetensors"
    args = ["convert", str(network), str(target)]
    _killed(lambda: command(args), chance.uniform(0, _Pace.conversion))
    if target.exists():
        load_checkpoint(target)
        target.unlink()
    began = time.monotonic()
    status = ended(fork(lambda: command(args)))
    _Pace.conversion = max(_Pace.conversion, min(1.0, time.monotonic() - began))
    load_checkpoint(target)
    return "right" if status == 0 else "WRONG"


class _Pace:
    """How long a whole run takes, so that the moments of the kills lie in it."""

    folder = 0.2
    conversion = 0.02


def killed_downloads(
    folder: Path, count: int, chance: random.Random, end: float
) -> collections.Counter[str]:
    """Downloads from a server of the hub's protocol on this machine, killed, and begun again."""
    import hub

    from animebg_core.files.styles import Style

    content = random.Random(1).randbytes(300_000)
    digest = hashlib.sha256(content).hexdigest()
    found: collections.Counter[str] = collections.Counter()
    with hub.Hub() as server:
        places = {"HF_HOME": str(folder / "home"), "HF_ENDPOINT": server.endpoint}
        with hub.Downloads(folder / "scratch", **places) as downloads:
            for number in range(count):
                if time.monotonic() > end:
                    break
                name, target = f"style-{number}", folder / f"models-{number}"
                style = Style(name, name, f"tests/{name}", "net.pth", len(content), digest, "MIT")
                repository = server.repositories[style.repository]
                repository.content, repository.always = content, hub.Fault(rate=2_000_000)
                job = hub.Job(asdict(style), folder=str(target))
                child = downloads.start(job)
                child.finishes_in(chance.uniform(0, 0.4))
                child.kill()
                half = (target / "net.pth").exists() and (
                    target / "net.pth"
                ).read_bytes() != content
                repository.always = hub.Fault()
                path = downloads.run(job).path
                right = path is not None and Path(path).read_bytes() == content
                right = right and os.listdir(target) == ["net.pth"]
                found["HALF A FILE" if half else "right" if right else "WRONG"] += 1
    return found


def kills(count: int, seed: int, seconds: float = math.inf) -> dict[str, collections.Counter[str]]:
    """A third each of folder runs, conversions and downloads, each killed once; fewer where
    `seconds` do not suffice.
    """
    end = time.monotonic() + seconds
    chance = random.Random(seed)
    found = {name: collections.Counter[str]() for name in ("folder runs", "conversions")}
    with tempfile.TemporaryDirectory() as scratch:
        network = Path(scratch, "net.safetensors")
        save_file(oracle.random_state((2, 3, 4), 1), network)
        old = Path(scratch, "net.pth")
        torch.save(oracle.random_state((8, 16, 32), 2), old)
        downloads = count - 2 * (count // 3)
        found["downloads"] = killed_downloads(
            Path(scratch, "downloads"), downloads, chance, time.monotonic() + seconds / 3
        )
        for number in range(count // 3):
            if time.monotonic() > end:
                break
            place = Path(scratch, str(number))
            found["folder runs"][killed_folder_run(place / "run", network, chance)] += 1
            found["conversions"][killed_conversion(place / "convert", old, chance)] += 1
    return found


def _killed(work: Callable[[], object], seconds: float) -> None:
    pid = fork(work)
    time.sleep(seconds)
    killed(pid)


def _named(out: Path) -> list[Path]:
    if not out.exists():
        return []
    return [path for path in out.iterdir() if not path.name.startswith(".animebg-")]


def _is_whole(path: Path) -> bool:
    with contextlib.suppress(Exception), Image.open(path) as image:
        image.load()
        return image.size == (32, 24)
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("campaign", choices=("pictures", "checkpoints", "kills"))
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop then, if not before")
    args = parser.parse_args()
    torch.set_num_threads(1)  # a pool of threads does not live on in a forked child
    began = time.monotonic()
    if args.campaign == "kills":
        found = kills(args.count, args.seed, 60 * args.minutes)
    else:
        whole, read = (
            (pictures(), read_photo)
            if args.campaign == "pictures"
            else (checkpoints(), load_checkpoint)
        )
        found = {args.campaign: campaign(whole, read, args.count, args.seed, 60 * args.minutes)}
    wrong = False
    for name, outcomes in found.items():
        for outcome, number in outcomes.most_common():
            print(f"{name}: {number:6} {outcome}")
        wrong = wrong or any(word in outcome for outcome in outcomes for word in _BAD)
    print(f"{time.monotonic() - began:.0f} s; most memory of a child, resident:", end=" ")
    print(f"{resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10} MiB")
    return int(wrong)


_BAD = ("CRASH", "HANG", "RAISED", "CODE", "NOT ONE LINE", "HALF", "WRONG")


if __name__ == "__main__":
    raise SystemExit(main())
