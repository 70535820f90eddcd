"""AnimeBG: photos and video to anime backgrounds with CartoonGAN generators.

`stylize` paints, `load_generator` gives it a style; everything else supports these two.
"""

from .checkpoint import load_generator
from .errors import (
    AnimeBGError,
    CheckpointError,
    ChecksumError,
    DownloadError,
    ImageError,
    MaskError,
    MemoryBudgetError,
    OptionError,
    StyleError,
    WeightsError,
    WeightsNotFoundError,
)
from .generator import Generator
from .pipeline import stylize
from .plan import RunPlan, plan_run
from .styles import LITE_STYLES, STYLES, Style

__version__ = "0.1.0"

__all__ = [
    "LITE_STYLES",
    "STYLES",
    "AnimeBGError",
    "CheckpointError",
    "ChecksumError",
    "DownloadError",
    "Generator",
    "ImageError",
    "MaskError",
    "MemoryBudgetError",
    "OptionError",
    "RunPlan",
    "Style",
    "StyleError",
    "WeightsError",
    "WeightsNotFoundError",
    "load_generator",
    "plan_run",
    "stylize",
]
