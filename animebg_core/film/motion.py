"""How the picture moves between two frames, and frames moved along with it.

OpenCV's DIS (Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016) where it is
installed; else one shift for the whole picture, by phase correlation.
"""

# numpy's stubs are for newer Pythons than the one checked for, where half its methods are unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

from typing import Any, Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

Flow = NDArray[np.float32]  # [H, W, 2]: how far right and down what is here lies there, in pixels


class Motion(Protocol):
    """Flow between frames, and frames moved along it."""

    @property
    def note(self) -> str:
        """What is not as good as it could be, in a line; empty where all is."""
        ...

    def flow(self, here: NDArray[np.uint8], there: NDArray[np.uint8]) -> Flow:
        """Where each pixel of `here` [H, W], grey, lies in `there`."""
        ...

    def moved(self, image: NDArray[np.float32], flow: Flow) -> NDArray[np.float32]:
        """`image` [H, W, C], that of `there`, as it would lie `here`: cubic, the edge repeated."""
        ...


def find_motion() -> Motion:
    """The best motion that is installed."""
    try:
        import cv2
    except ImportError:
        return _Shift()
    return _Dis(cv2)


class _Dis:
    """OpenCV's."""

    note = ""

    def __init__(self, cv2: Any) -> None:
        self._cv2 = cv2
        self._dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._grid: Flow | None = None

    def flow(self, here: NDArray[np.uint8], there: NDArray[np.uint8]) -> Flow:
        if min(here.shape) < 32:  # below its smallest patches it finds nothing
            return np.zeros((*here.shape, 2), np.float32)
        return self._dis.calc(here, there, None)

    def moved(self, image: NDArray[np.float32], flow: Flow) -> NDArray[np.float32]:
        if self._grid is None or self._grid.shape != flow.shape:
            rows, columns = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
            self._grid = np.stack([columns, rows], -1)
        cv2 = self._cv2
        places = self._grid + flow
        result = cv2.remap(image, places, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        return result.reshape(image.shape)


class _Shift:
    """One shift for all, to a fraction of a pixel."""

    note = (
        "without OpenCV only the camera's motion is followed: pip install opencv-python-headless"
        " for a steadier film"
    )

    def flow(self, here: NDArray[np.uint8], there: NDArray[np.uint8]) -> Flow:
        return np.tile(np.array(shift(here, there), np.float32), (*here.shape, 1))

    def moved(self, image: NDArray[np.float32], flow: Flow) -> NDArray[np.float32]:
        height, width = image.shape[:2]
        rows, columns = torch.meshgrid(
            torch.arange(height, dtype=torch.float32),
            torch.arange(width, dtype=torch.float32),
            indexing="ij",
        )
        across = (columns + torch.from_numpy(flow[..., 0].copy())) * (2 / max(width - 1, 1)) - 1
        down = (rows + torch.from_numpy(flow[..., 1].copy())) * (2 / max(height - 1, 1)) - 1
        picture = torch.from_numpy(image).permute(2, 0, 1)[None]
        places = torch.stack([across, down], -1)[None]
        result = F.grid_sample(
            picture, places, mode="bicubic", padding_mode="border", align_corners=True
        )
        return cast(Any, result[0].permute(1, 2, 0).contiguous().numpy())


def shift(here: NDArray[np.uint8], there: NDArray[np.uint8]) -> tuple[float, float]:
    """How far right and down the picture `here` lies `there`, in pixels.

    The peak of the phase correlation (Kuglin and Hines, 1975), to a fraction by the parabola
    through its neighbours, on pictures that fade out to their edges.
    """
    window = np.outer(np.hanning(here.shape[0]), np.hanning(here.shape[1]))
    spectra = [np.fft.rfft2((grey - grey.mean()) * window) for grey in (here, there)]
    cross = spectra[1] * spectra[0].conj()
    cross /= np.abs(cross) + 1e-6 * np.abs(cross).max() + 1e-12
    # Only what is coarser than four pixels: beyond that noise has as loud a voice.
    for axis, count in ((0, here.shape[0]), (1, here.shape[1])):
        fade = np.fft.fftfreq(count) if axis == 0 else np.fft.rfftfreq(count)
        cross *= np.exp(-np.square(fade / 0.15)).reshape((-1, 1) if axis == 0 else (1, -1))
    peak = np.fft.irfft2(cross, here.shape)
    top = np.unravel_index(int(peak.argmax()), peak.shape)
    result: list[float] = []
    for axis in (1, 0):
        line = np.take(peak, int(top[1 - axis]), 1 - axis)
        at, count = int(top[axis]), peak.shape[axis]
        before, best, behind = line[at - 1], line[at], line[(at + 1) % count]
        bend = before - 2 * best + behind
        fraction = 0.5 * (before - behind) / bend if bend < 0 else 0.0
        place = at + float(fraction)
        result.append(place - count if place > count / 2 else place)
    return result[0], result[1]
