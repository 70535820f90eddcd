"""The pack's own photo and film, so that the first picture and the first film need no file."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from comfy_api.latest import InputImpl, Types, io
from PIL import Image

from . import host
from .inputs import CATEGORY

_FRAMES, _RATE = 48, 24  # and frames a second
_HEIGHT, _WIDTH = 320, 480  # of the film
_SOUND_RATE = 44_100
_CHORD = (220.0, 277.18, 329.63)  # A major, in Hz


class AnimeBGSamplePhoto(io.ComfyNode):
    """The pack's own photo."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="AnimeBGSamplePhoto",
            display_name="AnimeBG Sample Photo",
            category=CATEGORY,
            description=(
                "A photo that comes with AnimeBG, to try it without a file of your own: a pavilion "
                "by a lake, 640 x 427 pixels (by danielbuechele, CC BY 2.0)."
            ),
            search_aliases=["sample photo", "example image", "test image", "demo"],
            inputs=[],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The photo."),
                io.Mask.Output(display_name="mask", tooltip="White where the pavilion is."),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        photo, mask = _pixels("demo-photo.jpg", "RGB"), _pixels("demo-photo-mask.png", "L")
        return io.NodeOutput(host.to_host(photo), host.to_host(mask))


class AnimeBGSampleVideo(io.ComfyNode):
    """A film of the pack's own photo, made when it is asked for."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="AnimeBGSampleVideo",
            display_name="AnimeBG Sample Video",
            category=CATEGORY,
            description=(
                "A film to try AnimeBG without one of your own: two seconds of a camera that moves "
                "over the sample photo, 480 x 320 pixels, with a soft sound."
            ),
            search_aliases=["sample video", "example video", "test video", "demo"],
            inputs=[],
            outputs=[io.Video.Output(display_name="video", tooltip="The film.")],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        components = Types.VideoComponents(
            images=_pan(_pixels("demo-photo.jpg", "RGB")),
            audio={"waveform": _chord(), "sample_rate": _SOUND_RATE},
            frame_rate=Fraction(_RATE),
        )
        return io.NodeOutput(InputImpl.VideoFromComponents(components))


def _pixels(name: str, mode: str) -> torch.Tensor:
    """[1, H, W, 3] or, where the mode is L, [1, H, W], in [0, 1], of a picture of the pack."""
    with Image.open(Path(__file__).parent / "docs/images" / name) as picture:
        return torch.from_numpy(np.array(picture.convert(mode))).float()[None] / 255


def _pan(photo: torch.Tensor) -> torch.Tensor:
    """[_FRAMES, _HEIGHT, _WIDTH, 3]: from the photo's lower left to its upper right."""
    down, across = photo.shape[1] - _HEIGHT, photo.shape[2] - _WIDTH
    frames: list[torch.Tensor] = []
    for number in range(_FRAMES):
        share = (1 - math.cos(math.pi * number / (_FRAMES - 1))) / 2  # starts and ends slowly
        top, left = round(down * (1 - share)), round(across * share)
        frames.append(photo[:, top : top + _HEIGHT, left : left + _WIDTH])
    return torch.cat(frames)


def _chord() -> torch.Tensor:
    """[1, 1, samples] as long as the film, which swells and fades."""
    count = _SOUND_RATE * _FRAMES // _RATE
    seconds = torch.arange(count, dtype=torch.float64) / _SOUND_RATE
    tones = sum(torch.sin(2 * math.pi * pitch * seconds) for pitch in _CHORD)
    swell = torch.sin(math.pi * torch.arange(count, dtype=torch.float64) / count).square()
    return (0.05 * swell * tones).float()[None, None]
