"""The client of ComfyUI's API, against a small server that speaks as much of it as that needs."""

import base64
import hashlib
import importlib.util
import io
import json
import re
import socketserver
import struct
import sys
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from PIL import Image

API = Path(__file__).resolve().parent.parent / "example_workflows" / "api"


def load():
    spec = importlib.util.spec_from_file_location("paint_client", API / "paint.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


paint = load()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):  # noqa: N802
        url = urllib.parse.urlsplit(self.path)
        self.server.asked.append((self.headers["Host"], self.path))
        if url.path.endswith("/ws"):
            self._listen()
        elif "/history/" in url.path:
            saved = {"9": {"images": [{"filename": "a.png", "subfolder": "", "type": "output"}]}}
            self._answer(json.dumps({"p": {"outputs": saved}}).encode())
        else:
            wanted = urllib.parse.parse_qs(url.query).get("preview", ["png"])[0].split(";")[0]
            file = io.BytesIO()
            Image.new("RGB", (4, 4)).save(file, wanted)
            self._answer(file.getvalue())

    def do_POST(self):  # noqa: N802
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("/upload/image"):
            name = re.search(rb'filename="(.*?)"', body)[1].decode()
            if name == "bad.png":
                self.send_error(400, "no picture")
                return
            self._answer(json.dumps({"name": name, "subfolder": ""}).encode())
        else:
            self.server.queued.append(json.loads(body)["prompt"])
            self._answer(b'{"prompt_id": "p"}')
            self.server.ready.set()

    def _answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _listen(self):
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.wfile.write(
            f"HTTP/1.1 101 Switching\r\nSec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        )
        while self.server.ready.wait(5):
            self.server.ready.clear()
            for lost in self.server.lost:
                self._send({"type": "execution_error", "data": {"prompt_id": "p", **lost}})
            self._send({"type": "executing", "data": {"prompt_id": "p", "node": None}})
        self.close_connection = True

    def _send(self, event):
        text = json.dumps(event).encode()
        self.wfile.write(struct.pack(">BBH", 0x81, 126, len(text)) + text)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = allow_reuse_address = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked, self.queued, self.ready = [], [], threading.Event()
        self.lost = []  # errors of nodes, before a workflow ends


@pytest.fixture
def server():
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def client(server, monkeypatch, tmp_path):
    """`paint.py ARGS` against the server; returns the status, or the line that it ends with."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (4, 4)).save("photo.png")

    def run(*args, address="127.0.0.1:{port}"):
        where = address.format(port=server.server_address[1])
        monkeypatch.setattr(sys, "argv", ["paint.py", *map(str, args), "--server", where])
        try:
            return paint.main()
        except (paint.ComfyError, OSError) as error:
            assert "\n" not in str(error)
            return str(error)

    return run


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("127.0.0.1:8188", "http://127.0.0.1:8188"),
        ("localhost", "http://localhost:8188"),
        ("http://localhost:9000/", "http://localhost:9000"),
        ("http://localhost", "http://localhost:80"),
        ("https://host/comfy/", "https://host:443/comfy"),
        ("[::1]:9000", "http://[::1]:9000"),
        ("::1", "http://[::1]:8188"),
        ("http://[::1]/", "http://[::1]:80"),
        ("box:8188/", "http://box:8188"),
    ],
)
def test_a_server_is_named_in_every_usual_way(text, url):
    assert paint.Address(text).url == url


@pytest.mark.parametrize("text", ["", "ftp://host", "http://", "host:port", "host:99999"])
def test_what_names_no_server_is_one_line(text):
    with pytest.raises(paint.ComfyError, match="wanted host:port"):
        paint.Address(text)


@pytest.mark.parametrize("address", ["http://127.0.0.1:{port}/", "http://127.0.0.1:{port}/below/"])
def test_a_url_with_a_path_is_used_as_it_is(client, server, address):
    assert client("photo.png", "out.png", address=address) == 0
    below = "/below" if "below" in address else ""
    assert all(path.startswith(f"{below}/") for _, path in server.asked)


@pytest.mark.parametrize(("suffix", "kind"), [("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP")])
def test_a_target_gets_the_format_of_its_name(client, suffix, kind):
    assert client("photo.png", f"out.{suffix}") == 0
    with Image.open(f"out.{suffix}") as made:
        assert made.format == kind


def test_what_one_node_blocks_is_told_after_the_pictures_that_came(client, server):
    blocked = {"node_id": "12", "exception_message": "Execution Blocked: kon_satoshi.pth"}
    server.lost = [{**blocked, "exception_type": "ExecutionBlocked"}]
    assert client("photo.png", "out.png") == "node 12: Execution Blocked: kon_satoshi.pth"
    assert Path("out.png").is_file()
    server.lost = [{**blocked, "exception_type": "StyleError"}]
    assert client("photo.png", "none.png") == "node 12: Execution Blocked: kon_satoshi.pth"
    assert not Path("none.png").exists()


def test_style_and_size_go_to_their_nodes(client, server):
    assert client("photo.png", "out.png", "--style", "Satoshi Kon", "--size", 640) == 0
    (workflow,) = server.queued
    nodes = {node["class_type"]: node["inputs"] for node in workflow.values()}
    assert nodes["LoadImage"]["image"] == "photo.png"
    assert nodes["AnimeBGLoadModel"]["style"] == "Satoshi Kon"
    assert nodes["AnimeBGApplyStyle"]["painting_size"] == 640


def test_of_a_folder_every_photo_is_painted_and_a_failure_stops_no_other(client, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.jpg", "b.gif", "bad.png", "c.png", "notes.txt"):
        Image.new("RGB", (4, 4)).save(folder / name, "PNG")
    assert client(folder, tmp_path / "out") == 1
    made = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert made == ["a.jpg", "b.gif.png", "c.png"]
    assert "bad.png: HTTP Error 400" in capsys.readouterr().err


def test_a_workflow_of_the_current_folder_goes_before_ours_and_may_begin_with_a_mark(
    client, server
):
    workflow = json.loads((API / "photo-to-anime.json").read_text(encoding="utf-8"))
    workflow["77"] = {"class_type": "Note", "inputs": {}}
    Path("photo-to-anime.json").write_text(json.dumps(workflow), encoding="utf-8-sig")
    assert client("photo.png", "out.png") == 0
    assert "77" in server.queued[0]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ('{"nodes": [], "links": []}', "Export"),
        ("{", "no JSON"),
        ("[]", "no workflow"),
        ('{"1": {"inputs": {}}}', "no workflow"),
        ('{"1": {"class_type": "SaveImage", "inputs": {}}}', "no node LoadImage"),
        ('{"1": {"class_type": "LoadImage", "inputs": {}}}', None),
    ],
)
def test_a_workflow_that_does_not_fit_is_one_line(client, content, text):
    Path("own.json").write_text(content)
    told = client("photo.png", "out.png", "--workflow", "own.json")
    assert told == 0 if text is None else text in told
    if text is None:
        assert "no node AnimeBGLoadModel, which --style" in client(
            "photo.png", "out.png", "--workflow", "own.json", "--style", "x"
        )


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["photo.png", "out.gif"], "pictures come as .png, .jpg"),
        (["photo.png", "photo.png"], "is the photo itself"),
        (["photo.png", "nowhere/out.png"], "cannot be written"),
        (["none.png", "out.png"], "No such file"),
        (["empty", "out"], "holds no photos"),
        (["photo.png", "out.png", "--workflow", "none.json"], "No such file"),
    ],
)
def test_what_cannot_be_read_or_written_is_told_before_anything_is_painted(
    client, server, args, text
):
    Path("empty").mkdir()
    assert text in client(*args)
    assert not server.queued


def test_no_server_is_one_line(client):
    assert "no ComfyUI at http://127.0.0.1:1" in client("photo.png", "o.png", address="127.0.0.1:1")
