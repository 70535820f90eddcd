"""The folder beside a film in which its finished segments and its plan lie until it is complete.

`.NAME.animebg` beside the output NAME holds `plan.json` (what is painted, and how), `plan.npz` (the
times and exposures of all frames), `statistics-*.safetensors` (of each shot) and `segment-*.mkv`
(32 frames each). Every file in it is whole. It is used again by a run of the same plan, replaced by
one of another, and removed when the film is complete.
"""

# numpy's stubs are for newer Pythons than the one checked for, where half its methods are unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..engine.statistics import Statistics
from ..errors import VideoError
from ..files.video.formats import Encoding
from ..files.video.reading import Clip
from ..files.video.writing import Trim
from ..files.whole import part_file, whole_file
from ..painter import Painter
from .motion import find_motion
from .shots import Shot, find_shots

SEGMENT = 32  # frames
_KEYS = 6  # frames that stand for a shot, at most
_KEY_PIXELS = 8_000_000  # of all of them together: they go through the network side by side
_VERSION = 3  # of what lies in the folder, and of what makes a frame what it is


@dataclass(frozen=True, slots=True)
class FilmPlan:
    """What is known of a film before it is painted.

    Attributes:
        begin: the number of its first frame in the clip.
        first: when the clip's own first frame is shown, in ticks.
        times: of each of its frames, in ticks of the clip, strictly rising, the trim taken off.
        last: ticks that its last frame stays; 0 where nothing says.
        shots: without gaps.
        notes: what is not sound in the clip, a line each.
    """

    begin: int
    first: int
    times: NDArray[np.int64]
    last: int
    shots: tuple[Shot, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.times)

    @property
    def segments(self) -> list[range]:
        """The frames of each segment."""
        return [range(at, min(at + SEGMENT, len(self))) for at in range(0, len(self), SEGMENT)]

    def segment_of(self, index: int) -> tuple[int, range]:
        """Number and frames of the segment of frame `index`."""
        start = index - index % SEGMENT
        return index // SEGMENT, range(start, min(start + SEGMENT, len(self)))

    def shot_of(self, index: int) -> tuple[int, Shot]:
        """Number and shot of frame `index`."""
        number = bisect.bisect_right(self.shots, index, key=lambda shot: shot.start) - 1
        return number, self.shots[number]


def make_plan(clip: Clip, trim: Trim, *, step: Any = None) -> FilmPlan:
    """Read the clip once: times, cuts, exposures.

    Args:
        step: called after every frame; may raise to stop.

    Raises:
        VideoError: there are no frames, or none within the trim.
    """
    given: list[int] = []
    glances: list[NDArray[np.float16]] = []
    for time, frame in clip.frames():
        given.append(time)
        glances.append(frame.glance().astype(np.float16))
        if step:
            step()
    if not given:
        raise VideoError("none of its frames can be decoded: it is damaged or empty")
    # Frames come in the order of display; some files have their times in another.
    times = np.sort(np.array(given, np.int64))
    times = np.maximum.accumulate(times - np.arange(len(times))) + np.arange(len(times))
    tick = clip.shape.time_base
    if trim.whole:
        kept = np.arange(len(times))
        moved = 0
    else:
        seconds = [Fraction(int(time - times[0])) * tick for time in times]
        inside = [at >= trim.start and (trim.stop is None or at < trim.stop) for at in seconds]
        kept = np.flatnonzero(inside)
        if not len(kept):
            raise VideoError(f"nothing to paint: it is {float(seconds[-1]):.2f} seconds long")
        moved = int(times[0]) + round(trim.start / tick)
    ends = [*times[1:].tolist(), int(times[-1]) + clip.last_ticks][int(kept[-1])]
    if trim.stop is not None:
        ends = min(ends, int(times[0]) + round(trim.stop / tick))
    small = np.array(glances[kept[0] : kept[-1] + 1], np.float32)
    keys = max(1, min(_KEYS, _KEY_PIXELS // (clip.shape.height * clip.shape.width)))
    return FilmPlan(
        int(kept[0]),
        int(times[0]),
        times[kept] - moved,
        ends - int(times[kept[-1]]),
        tuple(find_shots(small, keys=keys)),
        tuple(clip.notes),
    )


class Work:
    """The folder, made or found again."""

    def __init__(
        self,
        target: Path,
        identity: dict[str, Any],
        parent: Path | None = None,
        *,
        alone: bool = True,
    ) -> None:
        """Args:
            identity: all that decides what the frames are, as JSON can hold it.
            parent: where it is to lie; None: beside the output.
            alone: nobody else is at work here. False leaves everything as others have begun it.

        Raises:
            VideoError: not alone, and the others would paint something else.
        """
        name = f".{target.name.replace('%', '_')}.animebg"
        self.folder = (parent or target.parent) / name
        self.identity = {"version": _VERSION, **identity}
        self.replaced = False
        if not alone:
            self._check_same()
            return
        if self.folder.is_dir():
            for part in self.folder.glob("*.part"):
                part.unlink(missing_ok=True)  # of a run that was killed
            found = self._found_identity()
            if found != self.identity:
                shutil.rmtree(self.folder)
                self.replaced = found is not None
        self.folder.mkdir(parents=True, exist_ok=True)

    def _check_same(self) -> None:
        found = self._found_identity()
        if found == self.identity:
            return
        if not isinstance(found, dict):
            raise VideoError(
                f"{self.folder} is not to be seen here: all machines need the same disk"
            )
        theirs = cast(dict[str, Any], found)
        other = ", ".join(k for k, own in self.identity.items() if theirs.get(k) != own)
        raise VideoError(
            f"it would be painted otherwise here than where it was begun ({other} differs): all"
            " machines need the same version, device and packages"
        )

    def _found_identity(self) -> object:
        try:
            return json.loads((self.folder / "plan.json").read_text("utf-8"))
        except (OSError, ValueError):
            return None

    def load_plan(self) -> FilmPlan | None:
        """The plan of the run before; None if it did not come so far."""
        if self._found_identity() is None:
            return None
        try:
            with np.load(self.folder / "plan.npz") as saved:
                arrays = {name: saved[name] for name in saved.files}
        except (OSError, ValueError):
            return None
        shots: list[Shot] = []
        for number, (start, stop) in enumerate(arrays["shots"].tolist()):
            keys = tuple(int(k) for k in arrays[f"keys{number}"])
            gain, offset = arrays["gain"][start:stop], arrays["offset"][start:stop]
            shots.append(Shot(start, stop, keys, gain, offset))
        return FilmPlan(
            int(arrays["begin"]),
            int(arrays["first"]),
            arrays["times"],
            int(arrays["last"]),
            tuple(shots),
            tuple(arrays["notes"].tolist()),
        )

    def save_plan(self, plan: FilmPlan) -> None:
        """Keep the plan: a later run goes by it."""
        arrays: dict[str, Any] = {
            "begin": plan.begin,
            "first": plan.first,
            "times": plan.times,
            "last": plan.last,
            "notes": np.array(plan.notes, np.str_),
            "shots": np.array([(shot.start, shot.stop) for shot in plan.shots]),
            "gain": np.concatenate([shot.gain for shot in plan.shots]),
            "offset": np.concatenate([shot.offset for shot in plan.shots]),
        }
        arrays |= {f"keys{k}": np.array(shot.keys) for k, shot in enumerate(plan.shots)}
        with whole_file(self.folder / "plan.npz") as file:
            np.savez(file, **arrays)
        # Last, since it says that there is a plan.
        with whole_file(self.folder / "plan.json") as file:
            file.write(json.dumps(self.identity).encode())

    def load_statistics(self, shot: int) -> Statistics | None:
        """Those of a shot, if they have been gathered."""
        path = self._statistics(shot)
        return Statistics.load(path) if path.is_file() else None

    def has_statistics(self, shot: int) -> bool:
        """Those of a shot have been gathered."""
        return self._statistics(shot).is_file()

    def save_statistics(self, shot: int, statistics: Statistics) -> None:
        """Keep those of a shot: on another machine they might differ in the last bit."""
        with part_file(self._statistics(shot)) as part:
            statistics.save(part)

    def _statistics(self, shot: int) -> Path:
        return self.folder / f"statistics-{shot:05d}.safetensors"

    def segment(self, number: int) -> Path:
        """The file of a segment; it is there when it is whole."""
        return self.folder / f"segment-{number:05d}.mkv"

    def missing(self, count: int) -> list[int]:
        """The segments of `count` that are still to be painted."""
        return [number for number in range(count) if not self.segment(number).is_file()]

    def remove(self) -> None:
        """The film is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)


def film_identity(
    clip: Clip,
    encoding: Encoding,
    painter: Painter,
    steadiness: float,
    trim: Trim,
) -> dict[str, Any]:
    """All that decides what the frames of a film are."""
    mask = None if painter.mask is None else painter.mask.cpu().numpy()
    weights = [value for _, value in sorted(painter.generator.state_dict().items())]
    others = {
        field.name: getattr(painter, field.name)
        for field in dataclasses.fields(painter)
        if isinstance(getattr(painter, field.name), (int, float, str))
        and field.name != "memory_limit"
    }
    return {
        "source": clip.identity(),
        "size": [clip.shape.height, clip.shape.width],
        "encoding": repr(encoding),
        "network": _tensors_identity(weights),
        "precision": str(painter.generator.dtype),
        "device": painter.generator.device.type,
        "painter": others,
        "mask": _array_identity(mask),
        "steadiness": steadiness,
        "motion": type(find_motion()).__name__,
        "trim": [str(trim.start), str(trim.stop)],
    }


def film_digest(
    clip: Clip, encoding: Encoding, painter: Painter, steadiness: float, trim: Trim
) -> str:
    """A name for all that decides what the frames of a film are, 16 hexadecimal digits."""
    identity = film_identity(clip, encoding, painter, steadiness, trim)
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


def _array_identity(array: NDArray[Any] | None) -> str | None:
    """A digest of an array's values."""
    if array is None:
        return None
    contiguous = cast(Any, np.ascontiguousarray(array))
    return hashlib.sha256(contiguous).hexdigest()


def _tensors_identity(tensors: Sequence[Any]) -> str:
    """A digest of tensors' values, wherever they are."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().float().cpu().contiguous().numpy())
    return digest.hexdigest()
