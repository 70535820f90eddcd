"""Photos and clips that are no files of this machine: addresses such as s3://bucket/folder/a.jpg.

fsspec's drivers (s3fs, gcsfs, ...) read and write them, and find keys and settings in the
environment by themselves. A file is fetched whole before it is read, and sent when it is whole.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import functools
import importlib
import os
import re
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from ..errors import AddressError, first_line

_Found = TypeVar("_Found")

# What is written there has its name when it is whole. Elsewhere it is renamed when it is.
_WHOLE_AT_ONCE = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "r2", "memory"}


@dataclass(frozen=True, slots=True)
class Address:
    """A file or folder that fsspec finds, with as much of `Path` as is asked of one here.

    As a path of this machine it is a name that no file has.

    Attributes:
        url: protocol://path, no slash at its end.
        top: the folder it was joined to, or "".
    """

    url: str
    top: str = ""

    def __str__(self) -> str:
        return self.url

    def __fspath__(self) -> str:
        return self.url

    def __truediv__(self, place: str | PurePosixPath | Path) -> Address:
        return Address(f"{self.url}/{Path(place).as_posix()}", self.url)

    @property
    def name(self) -> str:
        """As of `Path`."""
        return PurePosixPath(self.url).name

    @property
    def suffix(self) -> str:
        """As of `Path`."""
        return PurePosixPath(self.url).suffix

    @property
    def parent(self) -> Address:
        """As of `Path`."""
        return Address(self.url.rpartition("/")[0], self.top)

    def exists(self) -> bool:
        """It is there now, or was when its top folder was first listed.

        Raises:
            AddressError: that cannot be found out.
        """
        if self.top:
            return self.url in _below(self.top)
        return bool(_asked(self, lambda driver, path: driver.exists(path)))

    def stamp(self) -> str:
        """What tells it from a file put in its place later; empty where there is none."""
        try:
            return str(_asked(self, lambda driver, path: driver.ukey(path)))
        except AddressError:
            return ""


Location = Path | Address  # where a photo or a clip is, or is to be


def location(text: str) -> Location:
    """What a user names: an address, or a path of this machine."""
    if re.match(r"[a-z][a-z0-9+.-]+://", text, re.IGNORECASE) and not os.path.exists(text):
        return Address(text.rstrip("/"))
    return Path(text)


def is_folder(place: Location) -> bool:
    """It is one; at an address, something lies below it.

    Raises:
        AddressError: that cannot be found out.
    """
    if isinstance(place, Path):
        return os.path.isdir(place)
    return bool(_asked(place, lambda driver, path: driver.isdir(path)))


def files_in(folder: Address) -> Iterator[tuple[Address, PurePosixPath]]:
    """Every file at any depth, and its path from the folder, in order of these.

    Raises:
        AddressError: it cannot be listed.
    """
    start = len(folder.url) + 1
    for url in sorted(_below(folder.url)):
        yield Address(url, folder.url), PurePosixPath(url[start:])


@contextmanager
def fetched(source: Location) -> Generator[Path]:
    """The file itself, or for as long as the context holds one that has been fetched.

    Raises:
        AddressError: it cannot be.
    """
    if isinstance(source, Path):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="animebg-") as folder:
        copy = Path(folder, "in" + source.suffix)
        _asked(source, lambda driver, path: driver.get_file(path, str(copy)))
        yield copy


@contextmanager
def sent(target: Location) -> Generator[Path]:
    """Where to write a file: the target itself, or one that is sent there at the end.

    Raises:
        AddressError: it cannot be.
    """
    if isinstance(target, Path):
        yield target
        return
    with tempfile.TemporaryDirectory(prefix="animebg-") as folder:
        made = Path(folder, "out" + target.suffix)
        yield made
        at_once = target.url.partition("://")[0].lower() in _WHOLE_AT_ONCE
        _asked(target, lambda driver, path: _send(driver, made, path, at_once))


def _send(driver: Any, made: Path, final: str, at_once: bool) -> None:
    parent, _, name = final.rpartition("/")
    part = final if at_once else f"{parent}/.animebg-{os.urandom(6).hex()}-{name}"
    try:
        driver.put_file(str(made), part)
    except FileNotFoundError:  # folders there are made, where there are such things
        driver.makedirs(parent, exist_ok=True)
        driver.put_file(str(made), part)
    if not at_once:
        try:
            driver.mv(part, final)
        except BaseException:
            with suppress(Exception):
                driver.rm_file(part)
            raise


@functools.lru_cache(maxsize=64)
def _below(url: str) -> frozenset[str]:
    """The addresses of all files at any depth below one, as they are when this is first asked."""

    def listed(driver: Any, path: str) -> frozenset[str]:
        top = path.rstrip("/")
        try:
            names = driver.find(top)
        except FileNotFoundError:
            names = []
        return frozenset(url + str(name)[len(top) :] for name in names if name != top)

    return _asked(Address(url), listed)


def _asked(address: Address, question: Callable[[Any, str], _Found]) -> _Found:
    """What the address's driver answers, asked with the path as it names it."""
    try:
        # It comes with huggingface_hub; the drivers are the user's.
        fsspec: Any = importlib.import_module("fsspec")
        return question(*fsspec.core.url_to_fs(address.url))
    except Exception as error:  # noqa: BLE001 - every driver raises what its library does
        reason = first_line(error) or type(error).__name__
        if isinstance(error, FileNotFoundError):
            reason = "no such file"
        elif isinstance(error, ImportError):
            reason = f"no driver for it is installed ({reason})"
        raise AddressError(f"{address}: {reason}") from error
