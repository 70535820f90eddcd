"""AnimeBG: photos to anime backgrounds with CartoonGAN generators.

`stylize` paints, `load_generator` gives it a style; everything else supports these two.
"""

from .engine.plan import RunPlan, plan_run
from .engine.statistics import Statistics
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
from .files.styles import LITE_STYLES, STYLES, Style
from .network.blend import blend_generators
from .network.checkpoint import load_generator
from .network.generator import Generator
from .painter import Painter
from .pipeline import gather_statistics, stylize
from .upsampling import DEFAULT_PAINTING_SIZE

__version__ = "0.1.0"

__all__ = [
    "DEFAULT_PAINTING_SIZE",
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
    "Painter",
    "RunPlan",
    "Statistics",
    "Style",
    "StyleError",
    "WeightsError",
    "WeightsNotFoundError",
    "blend_generators",
    "gather_statistics",
    "load_generator",
    "plan_run",
    "stylize",
]
