"""Inputs that several nodes have, each written once."""

from __future__ import annotations

from comfy_api.latest import io

from .animebg_core import DEFAULT_PAINTING_SIZE

CATEGORY = "AnimeBG"
AnimeBGModel = io.Custom("ANIMEBG_MODEL")


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
