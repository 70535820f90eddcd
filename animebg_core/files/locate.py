"""Where the file of a style lies, if it is on this computer. Nothing is opened or downloaded."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import huggingface_hub  # lazy: costs milliseconds here, and its parts load at their first use

from .styles import Style

WEIGHTS_DIR_VARIABLE = "ANIMEBG_WEIGHTS_DIR"
SUFFIXES = (".safetensors", ".pth")


def find_weights(style: Style, weights_dir: Path | str | None = None) -> Path | None:
    """The first file of `style` in the order of search, or None. Nothing is opened or downloaded.

    Looked for under the published name, as .safetensors and then as .pth: in `weights_dir` and
    then only there (a file is taken as it is), else in $ANIMEBG_WEIGHTS_DIR, in the pack's weights/
    and in the hub's cache. What that cache holds is not verified yet; `resolve_weights` does that.
    """
    if weights_dir is not None:
        place = expanded(weights_dir)
        return place if os.path.isfile(place) else find_in_folders(style, [place])
    return find_in_folders(style, own_folders()) or find_in_hub_cache(style)


def find_in_folders(style: Style, folders: Iterable[Path]) -> Path | None:
    """The file of `style` that the first of `folders` has, a converted one before a .pth."""
    for folder in folders:
        for suffix in SUFFIXES:
            path = (folder / style.file).with_suffix(suffix)
            if os.path.isfile(path):
                return path
    return None


def find_in_hub_cache(style: Style) -> Path | None:
    """The file of `style` in the hub's cache, not verified, or None."""
    if not style.repository:
        return None
    try:
        cached = huggingface_hub.try_to_load_from_cache(style.repository, style.file)
    except OSError:  # a cache that cannot be read
        return None
    return Path(cached) if isinstance(cached, str) else None


def is_installed(style: Style) -> bool:
    """Whether `find_weights` would find `style`; quick, as whoever lists styles asks it often."""
    if find_in_folders(style, own_folders()):
        return True
    from huggingface_hub import constants  # quick; the part that looks into the cache takes 0.4 s

    cached = f"models--{style.repository.replace('/', '--')}/snapshots/*/{style.file}"
    return bool(style.repository) and any(Path(constants.HF_HUB_CACHE).glob(cached))


def is_file_of(style: Style, path: Path | str) -> bool:
    """Whether `path` has the name of `style`'s published file, or of a conversion of it."""
    path = Path(path)
    return path.stem == Path(style.file).stem and path.suffix in SUFFIXES


def own_folders() -> Iterator[Path]:
    """The folders that are searched for every style: the user's, then the pack's."""
    named = os.environ.get(WEIGHTS_DIR_VARIABLE)
    if named:
        yield expanded(named)
    yield pack_folder()


def pack_folder() -> Path:
    """The folder of the networks that come with the package."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "weights"  # in a wheel; a checkout and a ComfyUI pack have it at their root
    return inside if inside.is_dir() else package.parent / "weights"


def expanded(path: Path | str) -> Path:
    """`path` with a leading ~ or ~user replaced, where there is such a user."""
    return Path(os.path.expanduser(path))  # Path.expanduser raises for an unknown ~user
