"""What several nodes have, each written once: category, search words, inputs."""

from __future__ import annotations

from collections.abc import Sequence

from comfy_api.latest import io

from .animebg_core import DEFAULT_PAINTING_SIZE, OptionError

CATEGORY = "AnimeBG"
AnimeBGModel = io.Custom("ANIMEBG_MODEL")
# What people type into the search. Escapes, since some checkers read .py files as cp1252.
ALIASES = [
    *("anime", "anime background", "anime style", "anime filter", "photo to anime", "AnimeGAN"),
    *("cartoon", "cartoonize", "CartoonGAN", "AnimeBackgroundGAN", "toon", "painting"),
    *("watercolor", "background", "style transfer", "stylize", "Ghibli", "Makoto Shinkai"),
    *("Mamoru Hosoda", "Hayao Miyazaki", "Satoshi Kon"),
    "\u30a2\u30cb\u30e1",  # Japanese: anime
    "\u80cc\u666f",  # background
    "\u5199\u771f\u3092\u30a2\u30cb\u30e1\u306b",  # photo to anime
    "\u65b0\u6d77\u8aa0",  # Makoto Shinkai
    "\u7d30\u7530\u5b88",  # Mamoru Hosoda
    "\u5bae\u5d0e\u99ff",  # Hayao Miyazaki
    "\u4eca\u654f",  # Satoshi Kon
    "\u30b8\u30d6\u30ea",  # Ghibli
    "\u52a8\u6f2b",  # Chinese: anime
    "\u52a8\u753b",  # animation
    "\u52a8\u753b\u80cc\u666f",  # anime background
    "\u65b0\u6d77\u8bda",  # Makoto Shinkai
    "\u7ec6\u7530\u5b88",  # Mamoru Hosoda
    "\u5bab\u5d0e\u9a8f",  # Hayao Miyazaki
    "\u5409\u535c\u529b",  # Ghibli
    "\u5361\u901a",  # cartoon
]


def fraction(
    name: str, *, tooltip: str, default: float = 1.0, step: float = 0.01, optional: bool = True
) -> io.Float.Input:
    """A slider from 0 to 1."""
    return io.Float.Input(
        name,
        optional=optional,
        default=default,
        min=0.0,
        max=1.0,
        step=step,
        display_mode=io.NumberDisplay.slider,
        tooltip=tooltip,
    )


def painting_size(what: str) -> io.Int.Input:
    """At which size the network paints a `what`: an image, a film."""
    return io.Int.Input(
        "painting_size",
        optional=True,
        default=DEFAULT_PAINTING_SIZE,
        min=0,
        max=16384,
        step=16,
        tooltip=(
            f"Pixels of the longer side at which the network paints. A larger {what} is painted "
            "at that size and brought back to its own along its edges: bolder, and many times as "
            f"fast. 0: the {what}'s own size, exactly."
        ),
    )


def check(name: str, value: str, options: Sequence[str]) -> None:
    """Refuse a value that a list does not have: older hosts hand it on as it is.

    Raises:
        OptionError: `value` is none of `options`.
    """
    if value not in options:
        raise OptionError(f"{name} is one of {', '.join(options)}, not {value}")
