"""Makes wheels for every platform of `compiler.TARGETS`, and checks what their libraries export.

`python cross.py FOLDER` needs setuptools, ziglang and lief (`pip install './kernels[cross]'`). The
first time takes minutes: zig compiles each system's C library, and keeps it. Nothing but Linux on
x86-64 has been run.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import lief
from compiler import SOURCES, TARGETS, library_name

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    wanted = declared()
    for platform in TARGETS:
        shutil.rmtree(HERE / "build", ignore_errors=True)  # where the last one's library lies
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
        option = f"--config-settings=--build-option=--plat-name={platform}"
        subprocess.run([*pip, option, "--wheel-dir", str(folder), str(HERE)], check=True)
        (wheel,) = folder.glob(f"*-py3-none-{platform}.whl")
        name = f"animebg_kernels/{library_name(platform)}"
        with zipfile.ZipFile(wheel) as archive:
            libraries = [n for n in archive.namelist() if n.endswith((".so", ".dll", ".dylib"))]
            if libraries != [name]:
                sys.exit(f"{wheel.name} holds {libraries}, expected {name} alone")
            found = exported(archive.read(name))
        if found != wanted:
            sys.exit(f"{wheel.name} exports {sorted(found)}, expected {sorted(wanted)}")
        print(f"{wheel.name}: {wheel.stat().st_size >> 10} KiB, exports all {len(found)} functions")


def declared() -> set[str]:
    """The functions of the header."""
    text = (SOURCES / "animebg_kernels.h").read_text()
    return set(re.findall(r"^AB_API [^(]*?(ab_\w+)\(", text, re.MULTILINE))


def exported(library: bytes) -> set[str]:
    """What a library of any system exports, but for what the linker adds itself."""
    binary = lief.parse(library)
    names = (function.name.lstrip("_") for function in binary.exported_functions)
    return {name for name in names if name.startswith("ab_")}


if __name__ == "__main__":
    main()
