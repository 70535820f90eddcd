"""Many prompts to one ComfyUI server: what its memory is after 10, 100, 1,000 and more.

Needs a ComfyUI folder and the interpreter that runs it. Every prompt paints a small picture with a
small random network, at another strength, so that the host caches nothing of it. The host's record
of its last 10,000 prompts, which grows with every prompt of any kind, is cleared meanwhile.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from PIL import Image
from safetensors.torch import save_file

from . import _common

import comfy_host  # isort: skip  # `tests` is on the path since `_common`
import oracle  # isort: skip

_HEIGHT, _WIDTH = 112, 160


def main() -> None:
    """Print the table; a line after each power of ten."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("comfyui", type=Path, metavar="FOLDER", help="of ComfyUI")
    parser.add_argument("--python", required=True, help="the interpreter that runs it")
    parser.add_argument("--prompts", type=int, default=10_000)
    args = parser.parse_args()
    os.environ["COMFYUI_PYTHON"] = args.python
    _common.print_header()
    with tempfile.TemporaryDirectory() as folder:
        host = comfy_host.Host(args.comfyui, Path(folder) / "base", HF_HUB_OFFLINE="1")
        try:
            rows = _rows(host, args.prompts)
        finally:
            host.stop()
    _common.print_table(("prompts", "resident, MiB", "a prompt, ms"), rows)


def _rows(host: comfy_host.Host, prompts: int) -> list[tuple[object, ...]]:
    save_file(oracle.random_state(), host.base / "models/animebg/small.safetensors")
    with Image.open(_common.DEMO_PHOTO) as photo:
        photo.resize((_WIDTH, _HEIGHT)).save(host.base / "input/photo.png")
    host.get("/object_info/AnimeBGLoadModel")
    graph = comfy_host.Graph()
    image = graph("LoadImage", image="photo.png")
    nodes = graph.save(graph.apply(graph.load("small.safetensors"), image))
    client = comfy_host.load_client().Client(host.server)
    rows: list[tuple[object, ...]] = []
    started = time.monotonic()
    try:
        for number in range(1, prompts + 1):
            nodes["3"]["inputs"]["strength"] = 0.5 + number / (2 * prompts)
            client.run(nodes)
            for made in (host.base / "output").iterdir():
                made.unlink()
            if number % 100 == 0:
                host.post("/history", {"clear": True})
            if number == prompts or str(number).rstrip("0") == "1" and number > 1:
                each = (time.monotonic() - started) / number * 1000
                rows.append((number, host.resident() >> 20, f"{each:.0f}"))
                print(*rows[-1], flush=True)
    finally:
        client.close()
    return rows


if __name__ == "__main__":
    main()
