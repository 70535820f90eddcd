"""A Hugging Face hub on this machine, and processes that download from it.

`Hub` answers what hf_hub_download asks: HEAD on a resolve URL gives a redirect with the commit,
the linked ETag and the linked size; GET on its target gives the bytes, with ranges. It can be told
to fail. `Downloads` is a process with an environment of its own that has imported huggingface_hub
(which reads its variables then), and forks one child for each download, to be waited for or killed.

Run as a script, this file is that process. It needs neither torch nor the package's __init__.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FULL = errno.ENOSPC
FORBIDDEN = errno.EACCES
PIECE = 4096  # bytes that the server sends, and the client asks for, at a time


@dataclass(frozen=True)
class Fault:
    """What is wrong with one answer to a GET (`status`: to any request)."""

    status: int | None = None
    body: bytes | None = None  # sent instead of the published bytes
    cut: int | None = None  # the connection ends after so many bytes
    stall: int | None = None  # nothing comes after so many bytes
    rate: float | None = None  # bytes a second


@dataclass
class Repository:
    """One published file, and the faults to come."""

    content: bytes = b""
    faults: deque[Fault] = field(default_factory=deque)  # one for each of the next GETs
    always: Fault = Fault()  # for the rest
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)


class Hub(ThreadingHTTPServer):
    """Serves `repositories` ("owner/name": Repository), each with one file of any name."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = defaultdict(Repository)
        self.closing = threading.Event()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def files(self) -> str:
        """Where redirects lead: another host name, as the real hub's content network is."""
        return f"http://localhost:{self.server_port}"

    def handle_error(self, request, client_address) -> None:
        """A client that was killed is no news."""

    def __enter__(self) -> "Hub":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:  # noqa: N802 - http.server's name
        self._answer()

    def do_GET(self) -> None:  # noqa: N802 - http.server's name
        self._answer()

    def _answer(self) -> None:
        match = re.match(r"(/files)?/([^/]+/[^/]+)/resolve/[^/]+/.+", self.path)
        if match is None or match[2] not in self.server.repositories:
            return self._refuse(404, "RepoNotFound")
        repository = self.server.repositories[match[2]]
        repository.requests.append((self.command, {k.lower(): v for k, v in self.headers.items()}))
        if repository.always.status is not None:
            return self._refuse(repository.always.status, "EntryNotFound")
        if match[1] is None:
            return self._redirect(repository)
        fault = repository.faults.popleft() if repository.faults else repository.always
        if fault.status is not None:
            return self._refuse(fault.status, "")
        return self._send(fault.body if fault.body is not None else repository.content, fault)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        if status == 404:
            self.send_header("X-Error-Code", code)
            self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _redirect(self, repository: Repository) -> None:
        self.send_response(302)
        self.send_header("Location", f"{self.server.files}/files{self.path}")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("X-Linked-Etag", f'"{hashlib.sha256(repository.content).hexdigest()}"')
        self.send_header("X-Linked-Size", str(len(repository.content)))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, content: bytes, fault: Fault) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        if asked and start >= len(content):
            return self._refuse(416, "")
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command == "HEAD":
            return None
        body = content[start:]
        for offset in range(0, len(body), PIECE):
            piece = body[offset : offset + PIECE]
            if fault.cut is not None and offset + len(piece) > fault.cut:
                self.wfile.write(piece[: fault.cut - offset])
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return None
            if fault.stall is not None and offset + len(piece) > fault.stall:
                self.server.closing.wait(60)
                self.close_connection = True
                return None
            self.wfile.write(piece)
            if fault.rate is not None:
                time.sleep(len(piece) / fault.rate)
        return None


# --- Processes that download ---


@dataclass(frozen=True)
class Fail:
    """An error put into a child: calls of `call` on a path that contains `path` raise `number`."""

    call: str  # "mkdir", "replace" or "write"
    path: str
    number: int


@dataclass(frozen=True)
class Job:
    """One call of download_weights, or of resolve_weights for the key where `resolve` says so."""

    style: dict[str, object]
    folder: str | None = None
    resolve: bool = False
    cancel_at: int | None = None  # bytes that have arrived when the progress callback raises
    cancel_after: float | None = None  # or seconds
    fail: Fail | None = None


@dataclass(frozen=True)
class Outcome:
    path: str | None = None
    error: str | None = None  # name of the exception's class
    message: str = ""
    progress: list[list[int]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Child:
    """A forked process that does one job."""

    def __init__(self, pid: int, result: Path) -> None:
        self.pid = pid
        self._result = result

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has finished
            os.kill(self.pid, signal.SIGKILL)

    def finishes_in(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not self._result.exists():
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
        return True

    def wait(self) -> Outcome:
        if not self.finishes_in(60):
            raise TimeoutError(f"child {self.pid} gave no result")
        return Outcome(**json.loads(self._result.read_text()))


class Downloads:
    """Starts downloads in an environment: the caller's without proxies, and `environment`."""

    def __init__(self, scratch: Path, **environment: str) -> None:
        scratch.mkdir(parents=True, exist_ok=True)
        foreign = ("hf_", "hugging", "animebg_")
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.lower().startswith(foreign) and not name.lower().endswith("_proxy")
        }
        self._scratch = scratch
        self._count = 0
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env={**clean, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, job: Job) -> Child:
        with self._lock:
            self._count += 1
            result = self._scratch / f"{self._count}.json"
            assert self._process.stdin and self._process.stdout
            self._process.stdin.write(json.dumps([str(result), asdict(job)]) + "\n")
            self._process.stdin.flush()
            return Child(int(self._process.stdout.readline()), result)

    def run(self, job: Job) -> Outcome:
        return self.start(job).wait()

    def __enter__(self) -> "Downloads":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(10)


class Cancelled(Exception):  # noqa: N818 - a host's interrupt is no error
    """What a host raises from a progress callback: as in ComfyUI 0.3.64, any exception."""


class _FullDisk:
    """A file that cannot be written."""

    def __init__(self, file, number: int) -> None:
        self._file = file
        self._number = number

    def write(self, _: bytes) -> int:
        raise OSError(self._number, os.strerror(self._number))

    def __enter__(self) -> "_FullDisk":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str):
        return getattr(self._file, name)


def _inject(fail: Fail) -> None:
    def refusing(function):
        def call(*args, **kwargs):
            if any(fail.path in str(argument) for argument in args[:2]):
                raise OSError(fail.number, os.strerror(fail.number), str(args[0]))
            return function(*args, **kwargs)

        return call

    if fail.call == "mkdir":
        os.mkdir, Path.mkdir = refusing(os.mkdir), refusing(Path.mkdir)
    elif fail.call == "replace":
        os.replace = refusing(os.replace)
    elif fail.call == "write":
        opening = Path.open

        def unwritable(path, *args, **kwargs):
            file = opening(path, *args, **kwargs)
            return _FullDisk(file, fail.number) if fail.path in path.name else file

        Path.open = unwritable


def _do(job: dict, download, resolve, style_class) -> Iterator[tuple[str, object]]:
    """The fields of an Outcome."""
    style = style_class(**job["style"])
    folder = Path(job["folder"]) if job["folder"] else None
    calls: list[list[int]] = []
    begin = time.monotonic()
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logging.getLogger("animebg_core").addHandler(handler)
    if job["fail"]:
        _inject(Fail(**job["fail"]))

    def progress(done: int, total: int) -> None:
        calls.append([done, total])
        if job["cancel_at"] is not None and done >= job["cancel_at"]:
            raise Cancelled("stop")
        if job["cancel_after"] is not None and time.monotonic() - begin > job["cancel_after"]:
            raise Cancelled("stop")

    try:
        if job["resolve"]:
            resolve.STYLES = {style.key: style}
            path = resolve.resolve_weights(style.key, folder=folder, progress=progress)
        else:
            path = download.download_weights(style, folder=folder, progress=progress)
        yield "path", str(path)
    except Exception as error:  # noqa: BLE001 - the test looks at it
        yield "error", type(error).__name__
        yield "message", str(error)
    yield "progress", calls
    yield "log", lines
    yield "seconds", time.monotonic() - begin


def _main() -> None:
    root = Path(__file__).resolve().parent.parent
    package = types.ModuleType("animebg_core")
    package.__path__ = [str(root / "animebg_core")]
    sys.modules["animebg_core"] = package

    from huggingface_hub import constants

    constants.DOWNLOAD_CHUNK_SIZE = PIECE  # 10 MB else: a small file would come in one piece
    import huggingface_hub

    _ = huggingface_hub.hf_hub_download
    huggingface_hub.logging.set_verbosity(logging.CRITICAL)

    from animebg_core.files import download, resolve
    from animebg_core.files.styles import Style

    pause = time.sleep
    time.sleep = lambda seconds: pause(min(seconds, 0.02))  # the hub waits between its retries
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    for line in sys.stdin:
        result, job = json.loads(line)
        pid = os.fork()
        if pid == 0:
            unfinished = Path(result).with_suffix(".writing")
            unfinished.write_text(json.dumps(dict(_do(job, download, resolve, Style))))
            unfinished.rename(result)
            os._exit(0)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
