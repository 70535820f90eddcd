"""The node that paints films. What it asks of ComfyUI is in host.py, what it does in the library.

Apart from nodes.py since it needs PyAV, which is loaded when the node first runs.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
import uuid
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import InputImpl, io

from . import host, inputs
from .animebg_core import DEFAULT_PAINTING_SIZE, Painter
from .host import LoadedModel
from .inputs import CATEGORY, AnimeBGModel

_ALIASES = [
    *("video to anime", "anime video", "video style transfer", "vid2vid", "film", "anime"),
    *("cartoon", "background", "Ghibli", "AnimeGAN", "CartoonGAN"),
]

# Save Video lays a film as it is into .mp4 where nothing else is asked for, and fails.
_TRANSPARENT = (
    "transparency is kept, in ProRes 4444: for Save Video choose the codec h264, which has none"
)


class AnimeBGApplyStyleToVideo(io.ComfyNode):
    """Model and film to the painted film."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="AnimeBGApplyStyleToVideo",
            display_name="Apply AnimeBG Style to Video",
            category=CATEGORY,
            description=(
                "Paints a video as an anime background, frame by frame and steady, with its sound. "
                "It is never held in memory. When a run was cancelled or ended by a crash, queue "
                "it again: it goes on where it stopped."
            ),
            search_aliases=_ALIASES,
            inputs=[
                AnimeBGModel.Input("model", tooltip="From Load AnimeBG Model."),
                io.Video.Input("video", tooltip="From Load Video, of any length."),
                inputs.fraction(
                    "strength",
                    tooltip="0 is the film, 1 the painting; between them a mixture of both.",
                ),
                inputs.painting_size("film"),
                inputs.fraction(
                    "colour",
                    tooltip="1: the painting's colours, 0: the film's with the painting's light.",
                ),
                inputs.fraction(
                    "steadiness",
                    step=0.05,
                    tooltip=(
                        "1 mixes each frame with those around it wherever the film agrees, so that "
                        "strokes do not flicker; 0 paints each for itself."
                    ),
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip=(
                        "Where to paint, the same in every frame: white is painted, black stays. "
                        "Resized to the film. An empty mask paints nothing."
                    ),
                ),
            ],
            outputs=[io.Video.Output(display_name="video", tooltip="For Save Video.")],
        )

    @classmethod
    def execute(
        cls,
        model: LoadedModel,
        video: Any,
        strength: float = 1.0,
        painting_size: int = DEFAULT_PAINTING_SIZE,
        colour: float = 1.0,
        steadiness: float = 1.0,
        mask: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        # Here, since PyAV takes a second to load.
        from .animebg_core.film.film import FilmRun

        model.load(0)
        painter = Painter(
            model.generator,
            strength=strength,
            mask=None if mask is None else mask.reshape(-1, *mask.shape[-2:])[:1].float().cpu(),
            painting_size=painting_size,
            colour=colour,
            memory=host.Memory(model),
        )
        source = _file(video)
        clip, output, trim = _film(source, _trim(video), painter, steadiness)
        notes = [_TRANSPARENT] if clip.shape.alpha else []
        if not output.target.exists():
            run = FilmRun(
                clip,
                output,
                painter,
                source=source,
                steadiness=steadiness,
                trim=trim,
                folder=host.work_folder(),
                report=_Teller(),
            )
            notes += run.whole()
        host.tell("\n".join(notes))
        return io.NodeOutput(InputImpl.VideoFromFile(str(output.target)))


def _file(video: Any) -> Path:
    """The file that a video is in. One in memory is laid into a file that is named by its bytes, so
    that a run that was stopped knows it again.
    """
    made = host.temporary_folder() / f"animebg-{uuid.uuid4().hex}.mp4"
    if isinstance(video, InputImpl.VideoFromComponents):
        video.save_to(str(made))  # since its stream has no name, by which hosts of 0.3 know formats
    else:
        given = video.get_stream_source()
        if isinstance(given, str):
            return Path(given)
        made.write_bytes(given.getbuffer())
    digest = hashlib.sha256(made.read_bytes()).hexdigest()
    source = made.replace(made.with_name(f"animebg-{digest[:16]}.mp4"))
    os.utime(source, (0, 0))  # the same bytes are the same film, whenever they were written
    return source


def _trim(video: Any) -> tuple[Fraction, Fraction | None]:
    """Start and stop in seconds of the part that the host means; older hosts know no parts."""
    ask = getattr(video, "get_active_trim_window", None)
    start, duration = ask() if ask else (0.0, 0.0)
    first = Fraction(start).limit_denominator(1_000_000)
    length = Fraction(duration).limit_denominator(1_000_000)
    return first, first + length if length else None


def _film(
    source: Path,
    part: tuple[Fraction, Fraction | None],
    painter: Painter,
    steadiness: float,
) -> tuple[Any, Any, Any]:
    """The clip, what is made of it, named by all that it is made of, and the part to paint."""
    from .animebg_core.files.video.output import film_output
    from .animebg_core.files.video.reading import Film
    from .animebg_core.files.video.writing import Trim
    from .animebg_core.film.work import film_digest

    clip, trim = Film(source), Trim(*part)
    suffix = ".mov" if clip.shape.alpha else ".mp4"
    vectors = torch.backends.cpu.get_cpu_capability().startswith("AVX")
    named = Path(f"animebg{suffix}")
    encoding = film_output(named, clip.shape, vectors=vectors).encoding
    digest = film_digest(clip, encoding, painter, steadiness, trim)
    target = host.temporary_folder() / f"animebg-{digest}{suffix}"
    return clip, film_output(target, clip.shape, vectors=vectors), trim


class _Teller:
    """The node's bar, with the frame that has just been painted, and words on it."""

    def __init__(self) -> None:
        self._bar = host.Bar(self._words)
        self._shown, self._began = -math.inf, (time.monotonic(), 0.0)
        self._text = ""

    def __call__(self, progress: Any) -> None:
        """See `film.Report`. Raises when the user has cancelled."""
        now, total = time.monotonic(), max(progress.total, 1)
        if progress.stage == "reading":
            self._text = f"{progress.done:.0f} frames read"
        elif progress.stage == "painting":
            if progress.done == progress.kept:
                self._began = now, progress.done
            spent, done = now - self._began[0], progress.done - self._began[1]
            left = f", {(total - progress.done) * spent / done:.0f} s left" if done > 3 else ""
            self._text = f"{progress.done:.0f} of {progress.total} frames painted{left}"
        done = progress.done if progress.stage == "painting" else 0
        if progress.stage == "joining":
            done = total
        self._bar(done, total)
        if progress.picture is not None and now > self._shown + 0.5:
            self._shown = now
            picture = progress.picture[None, ..., :3].astype("float32")
            self._bar.show(torch.from_numpy(picture) / 65535)

    def _words(self, done: float, total: int) -> str:
        del done, total
        return self._text
