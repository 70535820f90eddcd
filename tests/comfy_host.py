"""A real ComfyUI server for the tests, and what they say to it. Standard library only.

The server gets a base folder of its own, with the pack linked into its custom_nodes, so that the
folder of ComfyUI itself is only read.
"""

import importlib.util
import json
import os
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = ROOT / "example_workflows"


def folders() -> list[Path]:
    """The ComfyUI folders in $COMFYUI_DIRS."""
    return [Path(part) for part in os.environ.get("COMFYUI_DIRS", "").split(os.pathsep) if part]


def python() -> str:
    """The interpreter that has what ComfyUI needs."""
    return os.environ.get("COMFYUI_PYTHON", "python")


def compile_pack() -> None:
    """As the first start of a host leaves the pack, also where an environment forbids that.

    In place, for the interpreter that runs the host; what it imports besides is compiled already.
    """
    for flags in (["-l", str(ROOT)], [str(ROOT / "animebg_core")]):
        subprocess.run([python(), "-m", "compileall", "-q", *flags], check=True)


def load_client():
    """The module that users run to paint without the page."""
    spec = importlib.util.spec_from_file_location("paint", WORKFLOWS / "api" / "paint.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Host:
    """A running server.

    Attributes:
        folder: of ComfyUI.
        base: its base folder here: models, input, output.
        extra: a folder that extra_model_paths.yaml names as the first `animebg` model folder.
        server: host:port.
    """

    def __init__(self, folder: Path, base: Path, *flags: str, **environment: str) -> None:
        self.folder, self.base, self.extra = folder, base, base / "elsewhere"
        for name in ("custom_nodes", "input", "output", "models/animebg", "elsewhere"):
            (base / name).mkdir(parents=True)
        (base / "custom_nodes" / "animebg").symlink_to(ROOT, target_is_directory=True)
        paths = base / "paths.yaml"
        paths.write_text(f"here:\n  base_path: {base}\n  animebg: elsewhere\n")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.server = f"127.0.0.1:{free.getsockname()[1]}"
        self._log = base / "log.txt"
        command = [python(), "main.py", "--cpu", "--disable-api-nodes", "--listen", "127.0.0.1"]
        command += ["--port", self.server.split(":")[1], "--base-directory", str(base)]
        command += ["--extra-model-paths-config", str(paths), *flags]
        compile_pack()
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                # One thread: the pictures are small, and threads that wait for each other stand
                # still where others compute.
                env={
                    **os.environ,
                    "HF_HOME": str(base / "hub"),
                    "OMP_NUM_THREADS": "1",
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._wait()

    def _wait(self) -> None:
        until = time.monotonic() + 400
        while time.monotonic() < until:
            try:
                self.get("/system_stats")
                return
            except OSError:
                assert self.process.poll() is None, self.log()
                time.sleep(0.3)
        raise TimeoutError(self.log())

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def log(self) -> str:
        """All that the server has printed, without colours."""
        return re.sub(r"\x1b\[\d*m", "", self._log.read_text(errors="replace"))

    def get(self, path: str):
        with urllib.request.urlopen(f"http://{self.server}{path}", timeout=30) as answer:
            return json.loads(answer.read())

    def post(self, path: str, data: dict) -> bytes:
        body = json.dumps(data).encode()
        request = urllib.request.Request(
            f"http://{self.server}{path}", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()

    def history(self) -> dict:
        """What the server knows about the last prompt that ran."""
        return list(self.get("/history").values())[-1]

    def version(self) -> str:
        return self.get("/system_stats")["system"]["comfyui_version"]

    def resident(self) -> int:
        """Bytes of the server's resident memory."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def peak(self) -> int:
        """The most bytes that were ever resident."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) << 10


class Graph:
    """Builds a workflow in API format: a call adds a node and gives a reference to its output."""

    def __init__(self) -> None:
        self.nodes: dict[str, dict] = {}

    def __call__(self, kind: str, **inputs) -> list:
        name = str(len(self.nodes) + 1)
        self.nodes[name] = {"class_type": kind, "inputs": inputs}
        return [name, 0]

    def load(self, style: str) -> list:
        return self("AnimeBGLoadModel", style=style, precision="auto")

    def apply(self, model: list, image: list, **more) -> list:
        return self("AnimeBGApplyStyle", model=model, image=image, **{"strength": 1.0, **more})

    def save(self, image: list) -> dict:
        self("SaveImage", images=image, filename_prefix="picture")
        return self.nodes
