"""What the names of clips say; nothing here needs FFmpeg."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from PIL import Image

from ..addresses import Location

# Codecs of the films that are written, by the name of the file, the usual one first.
CONTAINERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        ".mp4": ("h264", "hevc", "av1", "vp9"),
        ".m4v": ("h264", "hevc"),
        ".mov": ("h264", "hevc", "prores"),
        ".mkv": ("h264", "hevc", "av1", "vp9", "prores", "ffv1"),
        ".webm": ("vp9", "av1"),
    }
)
# Films that are read besides; what is made of them is an .mp4 where nothing else is said.
_READ = {".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ogv", ".mxf"}
FILM_SUFFIXES = frozenset(CONTAINERS) | _READ
# Pillow's names of the animations that are written.
ANIMATIONS: Mapping[str, str] = MappingProxyType({".gif": "GIF", ".webp": "WEBP", ".apng": "PNG"})
# Numbered pictures are written as these.
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"})
# Not %20d, as in the names that addresses on the web give to spaces.
_NUMBERED = re.compile(r"%(?:0\d+)?d")


def is_numbered(path: Location) -> bool:
    """The name stands for numbered pictures, as with FFmpeg: frame-%05d.png.

    A file that has that very name is what it is.
    """
    named = len(_NUMBERED.findall(path.name)) == 1 and path.suffix.lower() in PICTURES
    return named and not os.path.isfile(path)


def numbered(path: Path, number: int) -> Path:
    """The file of one of the pictures that `path` stands for."""
    place = _NUMBERED.search(path.name)
    assert place is not None
    return path.with_name(path.name.replace(place[0], place[0] % number))


def numbered_files(path: Path) -> list[Path]:
    """The pictures that `path` stands for and that are there, in order of their numbers.

    The first may have any number; after it none may be missing.
    """
    place = _NUMBERED.search(path.name)
    assert place is not None
    pattern = re.compile(
        re.escape(path.name[: place.start()]) + r"(\d+)" + re.escape(path.name[place.end() :])
    )
    found = [
        int(match[1])
        for entry in (path.parent.iterdir() if path.parent.is_dir() else ())
        if (match := pattern.fullmatch(entry.name)) and numbered(path, int(match[1])) == entry
    ]
    result: list[Path] = []
    for number in sorted(found):
        if result and number != min(found) + len(result):
            break
        result.append(numbered(path, number))
    return result


def writes_clip(path: Location) -> bool:
    """A clip is what is written under that name."""
    suffix = path.suffix.lower()
    return is_numbered(path) or suffix in CONTAINERS or suffix in ANIMATIONS


def is_animation(path: Location) -> bool:
    """A picture file that holds several, to be seen one after the other."""
    if path.suffix.lower() not in {*ANIMATIONS, ".png"} or not os.path.isfile(path):
        return False  # a pipe would keep whoever opens it waiting
    try:
        with cast(Any, Image.open(path)) as image:
            return bool(getattr(image, "is_animated", False))
    except Exception:  # noqa: BLE001 - a damaged one is told of when it is read
        return False
