"""How a published network gets onto this computer: download, verify, publish.

All traffic goes through huggingface_hub, so its cache, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE,
HF_HOME and the proxy variables hold here as they do there.
"""

from __future__ import annotations

import contextlib
import errno
import inspect
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any, cast

import huggingface_hub  # lazy: costs milliseconds here, and its parts load at their first use

from ..errors import ChecksumError, DownloadError, WeightsError, WeightsNotFoundError
from .locate import SUFFIXES, find_in_folders, own_folders, pack_folder
from .reach import reach
from .styles import LITE_STYLES, Style
from .verify import difference, set_aside, verified_in_hub_cache
from .whole import whole_file

Progress = Callable[[int, int], None]

# What a download into a model folder leaves unfinished lies below this name in that folder.
STAGING = ".animebg-download"

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}  # Windows has no quota error


def download_weights(
    style: Style, *, folder: Path | None = None, progress: Progress | None = None
) -> Path:
    """Download a published file, verify its size and SHA-256, and return where it lies.

    What is there already is not fetched again: a verified file in the hub's cache, or any file of
    the style in `folder` (which may be the user's own and is never changed). A wrong download is
    set aside and fetched once more.

    Args:
        style: a row with a repository.
        folder: None: the hub's own cache. Otherwise the file appears in this folder under its
            published name, whole and verified or not at all, even with several processes at once
            or a process killed at any moment.
        progress: called as progress(done_bytes, total_bytes) from the calling thread about ten
            times a second, also while nothing arrives. It may raise to cancel: what it raises comes
            out unchanged, at once, and nothing half-written is ever used.

    Raises:
        DownloadError: no network, no such file, no room, no permission, HF_HUB_OFFLINE.
        ChecksumError: twice in a row not the published bytes.
        WeightsNotFoundError: the style belongs to the pack and is not to be downloaded.
    """
    if not style.repository:
        raise missing_error(style)
    if folder is None:
        return verified_in_hub_cache(style) or _fetch_verified(style, None, None, progress)
    return find_in_model_folder(style, folder) or _fetch_into(style, folder, progress)


# --- Into a model folder ---


def find_in_model_folder(style: Style, folder: Path) -> Path | None:
    """The file of `style` in the model folder that downloads go to."""
    found = find_in_folders(style, [folder])
    if found is not None:
        _clear_staging(style, folder)  # of a process that was killed after it had published
    return found


def _fetch_into(style: Style, folder: Path, progress: Progress | None) -> Path:
    """Download into a private cache inside `folder`, verify there, then publish by one rename."""
    staging = folder / STAGING / style.key
    target = folder / style.file
    try:
        verified = _fetch_verified(style, folder, staging, progress)
        try:
            _publish(verified, target, staging)
        except OSError as error:
            raise _download_error(style, folder, error) from error
    except WeightsError:
        # Another process may have published the file meanwhile and cleared the staging away.
        if not os.path.isfile(target):
            raise
    _clear_staging(style, folder)
    return target


def _clear_staging(style: Style, folder: Path) -> None:
    shutil.rmtree(folder / STAGING / style.key, ignore_errors=True)
    with contextlib.suppress(OSError):  # there is none, or another style is being staged
        (folder / STAGING).rmdir()


def _publish(verified: Path, target: Path, staging: Path) -> None:
    """Copy, then rename: a copy has ordinary permissions, and leaves other readers undisturbed."""
    with (
        verified.open("rb") as source,
        whole_file(target, folder=staging, replace=False) as copy,
    ):
        shutil.copyfileobj(source, copy)


def _fetch_verified(
    style: Style, folder: Path | None, cache: Path | None, progress: Progress | None
) -> Path:
    """Fetch into `cache`, a folder of the hub's layout or None for its own, and verify."""
    wrong, aside = "", Path()
    # The second time by force: otherwise the hub may answer from what it has.
    for force in (False, True):
        outcome = _fetch(style, cache, force, progress)
        error = outcome.exception()
        if isinstance(error, Exception):
            raise _download_error(style, folder, error) from error
        path = outcome.result()
        wrong = difference(path, style)
        if wrong is None:
            if progress is not None:
                progress(style.size, style.size)
            return path
        aside = set_aside(path, wrong)
    raise ChecksumError(
        f"{style.file} came twice from {_url(style)} and is not the published file ({wrong});"
        f" it was set aside as {aside}: try again later, or {by_hand(style, folder)}"
    )


def _fetch(
    style: Style, cache: Path | None, force: bool, progress: Progress | None
) -> futures.Future[Path]:
    """One hf_hub_download, watched. What came of it is returned: only `progress` raises here."""
    from huggingface_hub import constants
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
        tqdm,
    )

    cancelled = threading.Event()

    class Bar(tqdm):
        """Shows nothing, counts what has arrived, and stops a cancelled download."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs["disable"] = True
            super().__init__(*args, **kwargs)  # pyright: ignore[reportUnknownMemberType]
            self.received = float(kwargs.get("initial") or 0)
            bars.append(self)

        def update(self, n: float | None = 1) -> bool | None:
            if cancelled.is_set():
                raise InterruptedError("cancelled")
            self.received += n or 0
            return None

    bars: list[Bar] = []
    fetch = cast(Any, huggingface_hub).hf_hub_download  # typed differently in every release
    options: dict[str, Any] = {"repo_id": style.repository, "filename": style.file}
    if cache is not None:
        options["cache_dir"] = cache
    # The first releases of 1.x, and all before, take no bar. There the growing file is watched, the
    # hub's own bar is kept from showing, and a cancelled download runs on to its end unseen.
    counted = "tqdm_class" in inspect.signature(fetch).parameters
    if counted:
        options["tqdm_class"] = Bar
    blobs = Path(cache or constants.HF_HUB_CACHE, _cache_name(style), "blobs")

    def received() -> int:
        if counted:
            return int(max((bar.received for bar in bars), default=0))
        return max((_size(path) for path in blobs.glob("*.incomplete")), default=0)

    def download() -> Path:
        if not constants.HF_HUB_OFFLINE:  # the hub says so itself then
            reach(constants.ENDPOINT)
        try:
            return Path(fetch(**options, force_download=force))
        except OSError as error:
            # An old release that finds a whole file, or a longer one, asks for more for ever.
            if _status(error) != 416:
                raise
            return Path(fetch(**options, force_download=True))

    def tick() -> None:
        if progress is not None:
            progress(min(received(), style.size), style.size)

    quiet = not counted and not are_progress_bars_disabled()
    if quiet:
        disable_progress_bars()
    try:
        return _in_thread(download, tick)
    finally:
        cancelled.set()
        if quiet:
            enable_progress_bars()


def _in_thread(work: Callable[[], Path], tick: Callable[[], None]) -> futures.Future[Path]:
    """Run `work` in a thread, and `tick` in the caller's ten times a second, until `work` ends.

    So a progress callback runs in the thread to which a host ties its hooks, and what it raises
    ends the wait while a server is silent or a native downloader, which calls nobody, is at work.
    """
    outcome: futures.Future[Path] = futures.Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # noqa: BLE001 - handed over to the caller's thread
            outcome.set_exception(error)

    # A daemon: after Ctrl-C nobody waits for a silent server.
    threading.Thread(target=run, daemon=True).start()
    while not outcome.done():
        tick()
        futures.wait([outcome], timeout=0.1)
    return outcome


def _cache_name(style: Style) -> str:
    return f"models--{style.repository.replace('/', '--')}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # renamed at this moment
        return 0


# --- What the user is told ---


def _url(style: Style) -> str:
    return huggingface_hub.hf_hub_url(style.repository, style.file)


def by_hand(style: Style, folder: Path | None) -> str:
    """What to do without a connection: which file to put where, and which style works now."""
    place = folder or next(own_folders())
    advice = f"download {_url(style)} by hand and put it into {place}"
    shipped = [lite for lite in LITE_STYLES.values() if find_in_folders(lite, own_folders())]
    if not shipped:
        return advice
    lite = next((lite for lite in shipped if lite.key == f"{style.key}-lite"), shipped[0])
    return f"{advice}, or use the style {lite.label} ({lite.key}), which works offline"


def _download_error(style: Style, folder: Path | None, error: Exception) -> DownloadError:
    return DownloadError(
        f"{style.file} could not be downloaded from {style.repository}: {_reason(error)};"
        f" try again, or {by_hand(style, folder)}"
    )


def _reason(error: Exception) -> str:
    """Why a download failed, in a few words. Every release of the hub wraps that differently."""
    from huggingface_hub import constants

    for link in _chain(error):
        if isinstance(link, OSError):
            if link.errno in _FULL:
                return "the disk is full"
            if link.errno and link.filename:
                return f"{link.filename} cannot be written ({link.strerror})"
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    for link in _chain(error):
        status = _status(link)
        if status in (401, 403):
            return f"the server refused it (status {status}; a mirror may want HF_TOKEN)"
        if status is not None:
            return f"the server answered with status {status}"
        if isinstance(link, TimeoutError) or "Timeout" in type(link).__name__:
            return "the server did not answer in time"
    *_, last = _chain(error)
    text = (str(last).strip() or type(last).__name__).splitlines()[0].rstrip(" .")
    if number := re.fullmatch(r"(?:\[Errno )?(\d+)\]?", text):  # it tells nobody anything
        text = os.strerror(int(number[1]))
    return f"no working connection to {constants.ENDPOINT} ({text})"


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _status(error: BaseException) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def missing_error(style: Style) -> WeightsNotFoundError:
    """What to do about a file that is nowhere and not to be downloaded."""
    if not style.repository:
        return WeightsNotFoundError(
            f"{style.file} belongs to this package but is not in {pack_folder()}: install it again"
        )
    return WeightsNotFoundError(
        f"{file_names(style)} is not installed: run `animebg download {style.key}`,"
        f" or {by_hand(style, None)}"
    )


def file_names(style: Style) -> str:
    """The file names that a style may have, e.g. "shinkai_makoto.pth (or .safetensors)"."""
    others = [suffix for suffix in SUFFIXES if suffix != Path(style.file).suffix]
    return f"{style.file} (or {', '.join(others)})"
