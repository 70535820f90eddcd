"""Lay the photographs of `photos.json` out for training, from clones of the repositories it names.

git clone https://github.com/OWNER/NAME CLONES/OWNER+NAME     (for each one in SOURCES.md)
python -m training.gather --clones CLONES --photos FOLDER
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
from pathlib import Path

from PIL import Image, ImageCms, ImageOps

LIST = Path(__file__).with_name("photos.json")
LONGEST = 1400  # pixels: more than any training picture or figure needs


def blob_of(content: bytes) -> str:
    """The name that git gives to a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def gather(rows: list[dict[str, str]], clones: Path, folder: Path) -> None:
    """Write each photograph, upright and at most `LONGEST` pixels long, and `index.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        source = clones / row["repository"].replace("/", "+") / row["path"]
        if blob_of(source.read_bytes()) != row["blob"]:
            raise SystemExit(f"{source}: another file than the one listed: check out its commit")
        with Image.open(source) as opened:
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
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")


def main() -> None:
    """Gather all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clones", required=True, type=Path, help="folder of OWNER+NAME clones")
    parser.add_argument("--photos", required=True, type=Path, help="where they go")
    args = parser.parse_args()
    rows = json.loads(LIST.read_text(encoding="utf-8"))["photos"]
    gather(rows, args.clones, args.photos)
    print(f"{len(rows)} photographs in {args.photos}")


if __name__ == "__main__":
    main()
