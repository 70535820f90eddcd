"""Lay the photographs of `photos.json` out for training, from clones of the repositories it names.

git clone https://github.com/OWNER/NAME CLONES/OWNER+NAME     (for each one in SOURCES.md)
python -m training.gather --clones CLONES --photos FOLDER
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
from pathlib import Path

from PIL import Image, ImageCms, ImageOps

from animebg_core.files.whole import whole_file

LIST = Path(__file__).with_name("photos.json")
LONGEST = 1400  # pixels: more than any training picture or figure needs


def read(row: dict[str, str], clones: Path) -> bytes:
    """A photograph's file, by its content: it need not be checked out or in the last commit."""
    clone = clones / row["repository"].replace("/", "+")
    command = ["git", "-C", str(clone), "cat-file", "blob", row["blob"]]
    found = subprocess.run(command, capture_output=True)
    if found.returncode:
        raise SystemExit(
            f"{clone} has no {row['path']} of commit {row['commit']}: clone the whole repository "
            f"there ({found.stderr.decode(errors='replace').strip()})"
        )
    return found.stdout


def gather(rows: list[dict[str, str]], clones: Path, folder: Path) -> None:
    """Write `index.json` and each photograph, upright, in sRGB, at most `LONGEST` pixels long."""
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        with Image.open(io.BytesIO(read(row, clones))) as opened:
            opened.draft("RGB", (LONGEST, LONGEST))
            profile = opened.info.get("icc_profile")
            picture = ImageOps.exif_transpose(opened).convert("RGB")
        if profile:
            from_profile = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            to_profile = ImageCms.createProfile("sRGB")
            picture = ImageCms.profileToProfile(picture, from_profile, to_profile)
        picture.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
        picture.save(folder / row["file"], quality=95, subsampling=0)
    index = {"photos": [{"file": row["file"], "split": row["split"]} for row in rows]}
    with whole_file(folder / "index.json") as file:
        file.write(json.dumps(index).encode())


def listed() -> list[dict[str, str]]:
    """The rows of `photos.json`: file, split, repository, commit, path and blob."""
    return json.loads(LIST.read_text(encoding="utf-8"))["photos"]


def photos(folder: Path, split: str) -> list[Path]:
    """The photographs of a split ("train" or "holdout") that `index.json` names, in its order."""
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    return [folder / row["file"] for row in index["photos"] if row["split"] == split]


def main() -> None:
    """Gather all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clones", required=True, type=Path, help="folder of OWNER+NAME clones")
    parser.add_argument("--photos", required=True, type=Path, help="where they go")
    args = parser.parse_args()
    gather(listed(), args.clones, args.photos)
    print(f"{len(listed())} photographs in {args.photos}")


if __name__ == "__main__":
    main()
