"""AnimeBG as a ComfyUI pack: two nodes that turn photos into anime backgrounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .nodes import AnimeBGExtension

WEB_DIRECTORY = "./web"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]


async def comfy_entrypoint() -> AnimeBGExtension:
    """What ComfyUI calls once at start."""
    # Here and not above: pytest imports this file as the package around tests/, ComfyUI or not.
    from .nodes import AnimeBGExtension

    return AnimeBGExtension()
