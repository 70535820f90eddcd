"""Coloured spots that a blend of two styles has and neither of the two.

    python -m benchmarks.blends PHOTO [PHOTO ...]

Every pair of styles at 0.25, 0.5 and 0.75 on every photo, by the counter of `training/evaluate.py`,
against the photo. A blend is as wanted where it has no more spots than the worse of its two styles.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from animebg_core import LITE_STYLES, Generator, blend_generators
from animebg_core.training.data import scaled
from training.evaluate import paint, spots

from . import _common

AMOUNTS = (0.25, 0.5, 0.75)


def counted(
    networks: dict[str, Generator], photos: list[np.ndarray]
) -> Iterator[tuple[str, str, int, list[int], int]]:
    """For each pair and photo: the two names, the photo's number, spots at `AMOUNTS`, and the spots
    of the worse of the two.
    """
    alone = {
        name: [spots(paint(generator, photo), photo) for photo in photos]
        for name, generator in networks.items()
    }
    for one, other in itertools.combinations(networks, 2):
        blends = [
            blend_generators([(networks[one], 1 - amount), (networks[other], amount)])
            for amount in AMOUNTS
        ]
        for number, photo in enumerate(photos):
            found = [spots(paint(blend, photo), photo) for blend in blends]
            yield one, other, number, found, max(alone[one][number], alone[other][number])


def main() -> None:
    """Print the pairs and photos with more spots than wanted, and how many there are in all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, nargs="*", default=[_common.DEMO_PHOTO])
    parser.add_argument("--longest", type=int, default=450, help="pixels, after shrinking")
    parser.add_argument("--styles", nargs="+", default=list(LITE_STYLES))
    parser.add_argument("--weights-dir", metavar="DIR", help="look for networks only here")
    args = parser.parse_args()
    _common.print_header()
    networks: dict[str, Generator] = {}
    for name in args.styles:
        args.style = name
        networks[name] = _common.load_network(args).generator
    photos = [np.array(scaled(path, args.longest)) for path in args.photos]
    blends = wrong = more = 0
    rows: list[tuple[object, ...]] = []
    for one, other, number, found, worse in counted(networks, photos):
        above = [count - worse for count in found if count > worse]
        blends, wrong, more = blends + len(found), wrong + len(above), more + sum(above)
        if above:
            rows.append((one, other, args.photos[number].name, *found, worse))
    header = ("one", "the other", "photo", *(f"at {amount}" for amount in AMOUNTS), "the worse")
    _common.print_table(header, rows)
    _common.print_table(("blends", "with more spots", "spots more"), [(blends, wrong, more)])


if __name__ == "__main__":
    main()
