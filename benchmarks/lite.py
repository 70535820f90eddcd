"""What AnimeBG Lite saves: a published network and its small one, at the same size.

`python -m benchmarks.lite` times both in turn in one process, then measures the peak memory of
each in a process of its own. `--also` adds other files, such as networks of other widths.
"""

from __future__ import annotations

import argparse

from animebg_core import STYLES

from . import _baselines, _common, _measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--style", default="shinkai", metavar="KEY_OR_PATH", help="of full width")
    parser.add_argument("--weights-dir", metavar="DIR", help="look for networks only here")
    parser.add_argument("--size", type=_common.size, default=(768, 1152), metavar="HxW")
    parser.add_argument("--rounds", type=int, default=3, help="best of so many (default: 3)")
    parser.add_argument("--photo", default=_common.DEMO_PHOTO)
    parser.add_argument("--also", nargs="*", default=[], metavar="NETWORK", help="files, styles")
    args = parser.parse_args()
    height, width = args.size

    _common.print_header()
    image = _common.load_photo(args.photo, height, width)
    small = [f"{args.style}-lite"] if args.style in STYLES else []
    of_style = {
        style: argparse.Namespace(
            style=style,
            # The small ones come with the package.
            weights_dir=args.weights_dir if style == args.style else None,
            photo=args.photo,
        )
        for style in (args.style, *small, *args.also)
    }
    runs = {}
    for style, network_args in of_style.items():
        generator = _common.load_network(network_args).generator
        run = _baselines.ours(generator, _common.plan_run(generator, height, width))
        runs[style] = lambda run=run: run(image)
    times = _common.best_times(runs, args.rounds)

    rows = []
    for style, seconds in times.items():
        found = _measure.measure("default", height, width, of_style[style])
        rows.append(
            [
                style,
                f"{seconds:.2f}",
                f"{times[args.style] / seconds:.1f}",
                f"{found.total / (height * width):.0f}",
                found.plan,
            ]
        )
    _common.print_table(["style", "s", "times as fast", "B/px", "plan"], rows)


if __name__ == "__main__":
    main()
