"""Paint photos through a running ComfyUI, without its page. Standard library only.

    python paint.py photo.jpg painted.png
    python paint.py photo.jpg painted.jpg --server 127.0.0.1:8188 --workflow four-styles.json
    python paint.py holiday/ painted/ --style "Hayao Miyazaki (Lite)" --size 1280

The photo goes into the workflow's first Load Image node; pictures after the first are saved as
painted-2.png and so on. A workflow is looked for as it is named, then beside this file; ComfyUI's
menu makes more: File > Export (API).
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import ssl
import struct
import sys
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

WORKFLOWS = Path(__file__).resolve().parent
PORT = 8188  # ComfyUI's own
PHOTOS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
# What a picture is asked for as, by the target's name, and how such a file begins.
FORMATS = {
    ".png": ("", b"\x89PNG"),
    ".jpg": ("jpeg;95", b"\xff\xd8"),
    ".jpeg": ("jpeg;95", b"\xff\xd8"),
    ".webp": ("webp;95", b"RIFF"),
}


class ComfyError(Exception):
    """What ComfyUI refused, or what went wrong in a node.

    Attributes:
        pictures: those that came all the same, where one of several styles was missing.
    """

    def __init__(self, text: str, pictures: Sequence[bytes] = ()) -> None:
        super().__init__(text)
        self.pictures = list(pictures)


class Address:
    """Where a server is: host:port, a host, or a URL, also of IPv6 and below a path."""

    def __init__(self, text: str) -> None:
        plain = text.strip()
        if "://" not in plain:
            plain = f"//[{plain}]" if plain.count(":") > 1 and "[" not in plain else f"//{plain}"
        try:
            parts = urllib.parse.urlsplit(plain, "")
            port = parts.port
        except ValueError:
            parts, port = urllib.parse.urlsplit(""), None
        if not parts.hostname or parts.scheme not in ("", "http", "https"):
            raise ComfyError(f"--server {text}: wanted host:port, or http://host:port")
        self.secure = parts.scheme == "https"
        self.host = parts.hostname
        self.port = port or {"": PORT, "http": 80, "https": 443}[parts.scheme]
        self.path = parts.path.rstrip("/")
        host = f"[{self.host}]" if ":" in self.host else self.host
        self.name = f"{host}:{self.port}"  # as HTTP's Host
        self.url = f"{'https' if self.secure else 'http'}://{self.name}{self.path}"


class Client:
    """One connection to the server at `host:port`, or at a URL."""

    def __init__(self, server: str = f"127.0.0.1:{PORT}") -> None:
        self.server = server
        self._address = Address(server)
        self._id = str(uuid.uuid4())
        try:
            self._socket = WebSocket(self._address, f"/ws?clientId={self._id}")
        except OSError as error:
            reason = error.strerror or error
            raise ComfyError(f"no ComfyUI at {self._address.url}: {reason}") from None

    def upload(self, photo: str | Path) -> str:
        """Send a photo; returns the name that a Load Image node takes."""
        boundary = uuid.uuid4().hex
        head = (
            f"--{boundary}\r\nContent-Type: application/octet-stream\r\n"
            f'Content-Disposition: form-data; name="image"; filename="{Path(photo).name}"\r\n\r\n'
        )
        body = head.encode() + Path(photo).read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        answer = json.loads(
            self._http("/upload/image", body, f"multipart/form-data; boundary={boundary}")
        )
        return "/".join(part for part in (answer["subfolder"], answer["name"]) if part)

    def run(
        self,
        workflow: dict,
        progress: Callable[[str, int, int], None] | None = None,
        preview: str = "",
    ) -> list[bytes]:
        """Queue a workflow in API format, follow it, and return the pictures that it saved.

        `progress` is called with a node's id, its steps done and its steps in all. `preview` asks
        for another format than they were saved in: "jpeg;95" or "webp;95", with a quality.
        """
        body = json.dumps({"prompt": workflow, "client_id": self._id}).encode()
        prompt = json.loads(self._http("/prompt", body, "application/json"))["prompt_id"]
        lost = ""
        for kind, data in self._socket.events():
            if data.get("prompt_id") != prompt:
                continue  # another client's
            if kind == "progress" and progress:
                progress(data["node"], data["value"], data["max"])
            elif kind == "execution_error":
                text = f"node {data['node_id']}: {data['exception_message'].strip()}"
                if data.get("exception_type") != "ExecutionBlocked":
                    raise ComfyError(text)
                lost = text  # and the rest of the workflow goes on
            elif kind == "execution_interrupted":
                raise ComfyError("cancelled")
            elif kind == "executing" and data["node"] is None:
                break  # and not at "execution_success": older servers write the history after it
        outputs = json.loads(self._http(f"/history/{prompt}"))[prompt]["outputs"]
        # By node: the history has them in the order in which they happened to run.
        order = sorted(outputs, key=lambda node: (len(node), node))
        saved = [image for node in order for image in outputs[node].get("images", [])]
        more = {"preview": preview} if preview else {}
        pictures = [self._http(f"/view?{urllib.parse.urlencode({**i, **more})}") for i in saved]
        if lost:
            raise ComfyError(lost, pictures)
        return pictures

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _http(self, path: str, body: bytes | None = None, kind: str = "") -> bytes:
        headers = {"Content-Type": kind} if body is not None else {}
        request = urllib.request.Request(f"{self._address.url}{path}", body, headers)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise ComfyError(_reason(error)) from None
        except urllib.error.URLError as error:
            raise ComfyError(f"{self._address.url}{path}: {error.reason}") from None


def _reason(error: urllib.error.HTTPError) -> str:
    """What the server says against a workflow, in one line."""
    try:
        answer = json.loads(error.read())
        parts = [answer["error"]["message"]]
        for node, found in answer.get("node_errors", {}).items():
            parts += [f"node {node}: {e['message']}: {e['details']}" for e in found["errors"]]
        return "; ".join(parts)
    except (ValueError, KeyError, TypeError):
        return str(error)


class WebSocket:
    """As much of RFC 6455 as it takes to listen to ComfyUI."""

    def __init__(self, address: Address, path: str) -> None:
        self._socket = socket.create_connection((address.host, address.port))
        if address.secure:
            context = ssl.create_default_context()
            self._socket = context.wrap_socket(self._socket, server_hostname=address.host)
        self._stream = self._socket.makefile("rb")
        self._socket.sendall(
            (
                f"GET {address.path}{path} HTTP/1.1\r\nHost: {address.name}\r\n"
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: YW5pbWViZy1wYWludC5weQ==\r\n\r\n"
            ).encode()
        )
        status = self._stream.readline().decode("latin-1").strip()
        if " 101 " not in status:
            raise ComfyError(f"no ComfyUI at {address.url}: it answered {status or 'nothing'}")
        while self._stream.readline().strip():
            pass

    def events(self) -> Iterator[tuple[str, dict]]:
        """ComfyUI's messages as they come, a type and its data; not the binary ones, previews."""
        while True:
            kind, payload = self._frame()
            if kind == 1:
                message = json.loads(payload)
                yield message["type"], message["data"]
            elif kind == 8:
                raise ComfyError("the server hung up")
            elif (
                kind == 9
            ):  # a ping is answered with the same payload, masked as a client's must be
                mask = os.urandom(4)
                masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
                self._socket.sendall(bytes([0x8A, 0x80 | len(payload)]) + mask + masked)

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def _frame(self) -> tuple[int, bytes]:
        first, length = self._read(2)
        if length == 126:
            (length,) = struct.unpack(">H", self._read(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", self._read(8))
        payload = self._read(length)
        if not first & 0x80:  # in parts: the rest follows under opcode 0
            return first & 0x0F, payload + self._frame()[1]
        return first & 0x0F, payload

    def _read(self, count: int) -> bytes:
        data = self._stream.read(count)
        if len(data) < count:
            raise ComfyError("the server hung up")
        return data


def load_workflow(name: str) -> dict:
    """A workflow in API format, from a file as it is named, or beside this one."""
    path = Path(name) if Path(name).exists() else WORKFLOWS / name
    try:
        workflow = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ComfyError(f"--workflow {name}: no JSON: {error}") from None
    if isinstance(workflow, dict) and isinstance(workflow.get("nodes"), list):
        raise ComfyError(
            f"--workflow {name} is in the page's own format: export it by File > Export (API)"
        )
    nodes = workflow.values() if isinstance(workflow, dict) else [None]
    for node in nodes:
        whole = isinstance(node, dict) and isinstance(node.get("inputs"), dict)
        if not whole or not isinstance(node.get("class_type"), str):
            raise ComfyError(f"--workflow {name}: no workflow in API format")
    return workflow


def nodes_of(workflow: dict, kind: str, wanted_by: str) -> list[dict]:
    """The inputs of all nodes of a class."""
    found = [node["inputs"] for node in workflow.values() if node["class_type"] == kind]
    if not found:
        raise ComfyError(f"the workflow has no node {kind}, which {wanted_by} needs")
    return found


def pairs_of(photo: Path, result: Path) -> list[tuple[Path, Path]]:
    """Each photo and its target; both are made sure of before anything is painted."""
    if not photo.is_dir():
        target = result / f"{photo.stem}.png" if result.is_dir() else result
        pairs = [(photo, target)]
    else:
        names = sorted(path for path in photo.iterdir() if path.suffix.lower() in PHOTOS)
        if not names:
            raise ComfyError(f"{photo} holds no photos")
        result.mkdir(parents=True, exist_ok=True)
        pairs = []
        for path in names:
            kept = path.suffix.lower() in FORMATS
            pairs.append((path, result / (path.name if kept else f"{path.name}.png")))
    for source, target in pairs:
        with source.open("rb"):
            pass
        if target.suffix.lower() not in FORMATS:
            raise ComfyError(f"{target}: pictures come as {', '.join(FORMATS)}")
        if target.exists() and source.samefile(target):
            raise ComfyError(f"{target} is the photo itself: name another target")
        if target.is_dir():
            raise ComfyError(f"{target} is a folder")
        if not os.access(target if target.exists() else target.parent, os.W_OK):
            raise ComfyError(f"{target} cannot be written")
    return pairs


def paint(client: Client, workflow: dict, photo: Path, target: Path) -> None:
    """Paint one photo, and save what comes of it under the target's name, and numbered ones."""
    nodes_of(workflow, "LoadImage", "the photo")[0]["image"] = client.upload(photo)
    preview, begin = FORMATS[target.suffix.lower()]

    def show(node: str, done: int, total: int) -> None:
        sys.stderr.write(f"\rnode {node}: {100 * done // max(total, 1)}% ")

    failed = None
    try:
        pictures = client.run(workflow, show, preview)
    except ComfyError as error:
        pictures, failed = error.pictures, error
        if not pictures:
            raise
    if not pictures:
        raise ComfyError("the workflow saved no picture")
    for number, picture in enumerate(pictures, 1):
        if not picture.startswith(begin):
            raise ComfyError(f"the server gave no {target.suffix} picture: name the target .png")
        name = f"{target.stem}-{number}{target.suffix}" if number > 1 else target.name
        target.with_name(name).write_bytes(picture)
        sys.stderr.write(f"\r{target.with_name(name)}\n")
    if failed:
        raise failed


def main() -> int:
    """The command line; see the top of this file. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Paint photos through a running ComfyUI.")
    parser.add_argument("photo", type=Path, help="a photo, or a folder of them")
    parser.add_argument("result", type=Path, help="a .png, .jpg or .webp, or a folder")
    parser.add_argument("--server", default=f"127.0.0.1:{PORT}", metavar="HOST:PORT")
    parser.add_argument("--workflow", default="photo-to-anime.json", metavar="FILE")
    parser.add_argument("--style", metavar="NAME", help="as the loader node lists it")
    parser.add_argument(
        "--size",
        type=int,
        metavar="N",
        help="longer side to paint at; 0: the photo's own",
    )
    options = parser.parse_args()

    workflow = load_workflow(options.workflow)
    nodes_of(workflow, "LoadImage", "the photo")
    if options.style is not None:
        for inputs in nodes_of(workflow, "AnimeBGLoadModel", "--style"):
            inputs["style"] = options.style
    if options.size is not None:
        for inputs in nodes_of(workflow, "AnimeBGApplyStyle", "--size"):
            inputs["painting_size"] = options.size
    pairs = pairs_of(options.photo, options.result)
    client = Client(options.server)
    failed = 0
    for photo, target in pairs:
        try:
            paint(client, workflow, photo, target)
        except (ComfyError, OSError) as error:
            if len(pairs) == 1:
                raise
            failed += 1
            sys.stderr.write(f"\rpaint.py: {photo}: {error}\n")
    client.close()
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ComfyError, OSError) as error:
        sys.exit(f"paint.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
