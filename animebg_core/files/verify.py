"""Whether a file is the published one, by its size and SHA-256."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

from .locate import find_in_hub_cache
from .styles import Style

_log = logging.getLogger(__name__)


def verified_in_hub_cache(style: Style) -> Path | None:
    """The file of `style` in the hub's cache if it is whole; a wrong one is set aside."""
    path = find_in_hub_cache(style)
    if path is None:
        return None
    wrong = difference(path, style)
    if wrong is None:
        return path
    set_aside(path, wrong)
    return None


def difference(path: Path, style: Style) -> str | None:
    """How a file differs from the published one, in words, or None. Raises nothing."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != style.size:
                return f"{size:,} bytes instead of {style.size:,}"
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if digest.hexdigest() != style.sha256:
        return f"SHA-256 {digest.hexdigest()[:16]}... instead of {style.sha256[:16]}..."
    return None


def set_aside(path: Path, wrong: str) -> Path:
    """Rename a wrong file in a cache, so that neither this package nor the hub ever takes it."""
    try:
        real = path.resolve(strict=True)
        aside = real.with_name(f"{real.name}.corrupt")
        os.replace(real, aside)
        path.unlink(missing_ok=True)  # the snapshot's link, which now leads nowhere
    except OSError:  # another process was faster, or the cache is read-only: unused all the same
        return path
    _log.warning("%s is not the published file (%s): set aside as %s", path.name, wrong, aside)
    return aside
