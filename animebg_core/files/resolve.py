"""From a style's key, or a path, to the file to load: found, or downloaded."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

from ..errors import StyleError, WeightsNotFoundError
from .download import (
    Progress,
    download_weights,
    file_names,
    find_in_model_folder,
    missing_error,
)
from .locate import SUFFIXES, expanded, find_in_folders, find_weights, own_folders
from .styles import LITE_STYLES, STYLES
from .verify import difference, verified_in_hub_cache

_log = logging.getLogger(__name__)
_looked_at: set[tuple[str, int, int]] = set()


def resolve_weights(
    style_or_path: str | Path,
    *,
    weights_dir: Path | str | None = None,
    download: bool = True,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """The file to load for a style's key, or for the path of any .pth or .safetensors file.

    Args:
        style_or_path: a key of STYLES or LITE_STYLES, or a path.
        weights_dir: where to look instead of everywhere else: a folder, or one file. Nothing is
            downloaded then.
        download: whether a missing file may be downloaded.
        folder: a model folder, searched first and the target of a download. None: the hub's cache.
        progress: as in `download_weights`.

    Raises:
        StyleError: neither a known key nor a path.
        WeightsNotFoundError: no such file where it had to be, or `download` is False.
        DownloadError, ChecksumError: as in `download_weights`.
    """
    style = STYLES.get(str(style_or_path)) or LITE_STYLES.get(str(style_or_path))
    if style is None:
        return _warned(_given_file(style_or_path))
    if weights_dir is not None:
        found = find_weights(style, weights_dir)
        if found is None:
            raise WeightsNotFoundError(
                f"{file_names(style)} was looked for in {_contents(expanded(weights_dir))};"
                " put it there or name another folder"
            )
        return _warned(found)
    found = None if folder is None else find_in_model_folder(style, folder)
    found = found or find_in_folders(style, own_folders())
    if found is not None:
        return _warned(found)
    found = verified_in_hub_cache(style)
    if found is not None:
        return found
    if not download or not style.repository:
        raise missing_error(style)
    return download_weights(style, folder=folder, progress=progress)


def _given_file(style_or_path: str | Path) -> Path:
    path = expanded(style_or_path)
    if os.path.isfile(path):
        return path
    if (
        isinstance(style_or_path, str)
        and path.name == style_or_path
        and path.suffix not in SUFFIXES
    ):
        keys = ", ".join([*STYLES, *LITE_STYLES])
        raise StyleError(
            f'unknown style "{style_or_path}": choose one of {keys},'
            " or give the path of a .pth or .safetensors file"
        )
    if os.path.isdir(path):
        raise WeightsNotFoundError(f"{path} is a folder: name one .pth or .safetensors file in it")
    if os.path.lexists(path):
        raise WeightsNotFoundError(f"{path} is no regular file, or a link that leads to none")
    raise WeightsNotFoundError(f"{path.name} was looked for in {_contents(path.parent)}")


def _warned(path: Path) -> Path:
    """`path`, after one warning if it has the name of a published file but other bytes.

    A .safetensors file is somebody's conversion and differs by nature.
    """
    published = [style for style in STYLES.values() if style.file == path.name]
    with contextlib.suppress(OSError):  # whoever loads the file says what is wrong with it
        found = path.stat()
        seen = (str(path), found.st_size, found.st_mtime_ns)
        if published and seen not in _looked_at:
            wrong = difference(path, published[0])
            if wrong:
                _log.warning("%s is not the published file (%s); it is used as it is", path, wrong)
            _looked_at.add(seen)
    return path


def _contents(folder: Path) -> str:
    """A folder and the first few names in it, sorted."""
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except FileNotFoundError:
        return f"{folder}, which does not exist"
    except OSError as error:
        return f"{folder}, which cannot be read ({error.strerror})"
    if not names:
        return f"{folder}, which is empty"
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"{folder}, where there is only: {', '.join(names[:10])}{more}"
