"""Paint a photo through a running ComfyUI, without its page. Standard library only.

    python paint.py photo.jpg painted.png
    python paint.py photo.jpg painted.png --server 127.0.0.1:8188 --workflow four-styles.json

The photo goes into the workflow's first Load Image node; pictures after the first are saved as
painted-2.png and so on. Workflows in API format lie beside this file; ComfyUI's menu makes more:
File > Export (API).
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import struct
import sys
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

WORKFLOWS = Path(__file__).resolve().parent


class ComfyError(Exception):
    """What ComfyUI refused, or what went wrong in a node."""


class Client:
    """One connection to the server at `host:port`."""

    def __init__(self, server: str = "127.0.0.1:8188") -> None:
        self.server = server
        self._id = str(uuid.uuid4())
        self._socket = WebSocket(server, f"/ws?clientId={self._id}")

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
        self, workflow: dict, progress: Callable[[str, int, int], None] | None = None
    ) -> list[bytes]:
        """Queue a workflow in API format, follow it, and return the pictures that it saved.

        `progress` is called with a node's id, its steps done and its steps in all.
        """
        body = json.dumps({"prompt": workflow, "client_id": self._id}).encode()
        prompt = json.loads(self._http("/prompt", body, "application/json"))["prompt_id"]
        for kind, data in self._socket.events():
            if data.get("prompt_id") != prompt:
                continue  # another client's
            if kind == "progress" and progress:
                progress(data["node"], data["value"], data["max"])
            elif kind == "execution_error":
                raise ComfyError(f"node {data['node_id']}: {data['exception_message'].strip()}")
            elif kind == "execution_interrupted":
                raise ComfyError("cancelled")
            elif kind == "executing" and data["node"] is None:
                break  # and not at "execution_success": older servers write the history after it
        outputs = json.loads(self._http(f"/history/{prompt}"))[prompt]["outputs"]
        # By node: the history has them in the order in which they happened to run.
        order = sorted(outputs, key=lambda node: (len(node), node))
        saved = [image for node in order for image in outputs[node].get("images", [])]
        return [self._http(f"/view?{urllib.parse.urlencode(image)}") for image in saved]

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _http(self, path: str, body: bytes | None = None, kind: str = "") -> bytes:
        headers = {"Content-Type": kind} if body is not None else {}
        request = urllib.request.Request(f"http://{self.server}{path}", body, headers)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise ComfyError(_reason(error)) from None


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

    def __init__(self, server: str, path: str) -> None:
        host, _, port = server.partition(":")
        self._socket = socket.create_connection((host, int(port or 80)))
        self._stream = self._socket.makefile("rb")
        self._socket.sendall(
            (
                f"GET {path} HTTP/1.1\r\nHost: {server}\r\nUpgrade: websocket\r\n"
                "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: YW5pbWViZy1wYWludC5weQ==\r\n\r\n"
            ).encode()
        )
        status = self._stream.readline().decode("latin-1").strip()
        if " 101 " not in status:
            raise ComfyError(f"no websocket at {server}{path}: {status}")
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


def main() -> None:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(description="Paint a photo through a running ComfyUI.")
    parser.add_argument("photo", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--server", default="127.0.0.1:8188", metavar="HOST:PORT")
    parser.add_argument("--workflow", default="photo-to-anime.json", metavar="FILE")
    options = parser.parse_args()

    workflow = json.loads((WORKFLOWS / options.workflow).read_text(encoding="utf-8"))
    client = Client(options.server)
    load = next(node for node in workflow.values() if node["class_type"] == "LoadImage")
    load["inputs"]["image"] = client.upload(options.photo)

    def show(node: str, done: int, total: int) -> None:
        sys.stderr.write(f"\rnode {node}: {100 * done // total}% ")

    for number, picture in enumerate(client.run(workflow, show), 1):
        name = options.result
        target = name if number == 1 else name.with_name(f"{name.stem}-{number}{name.suffix}")
        target.write_bytes(picture)
        sys.stderr.write(f"\n{target}")
    sys.stderr.write("\n")
    client.close()


if __name__ == "__main__":
    try:
        main()
    except (ComfyError, OSError) as error:
        sys.exit(f"paint.py: {error}")
