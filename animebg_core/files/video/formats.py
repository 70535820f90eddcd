"""Which codec goes into which container, and with what settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType

from ...errors import OptionError, VideoError
from .colour import BT709, RGB, Colours, Layout, layout_of
from .names import CONTAINERS
from .reading import Shape


@dataclass(frozen=True, slots=True)
class Codec:
    """A way to encode a film.

    Attributes:
        encoder: FFmpeg's name of it.
        crf: its usual constant rate factor, at which painted edges stay clean; None where quality
            is no option.
        worst: the largest crf.
        deep, clear: it holds 10 bits; transparency. (PyAV's libvpx is built for 8 bits.)
        bytes_per_pixel: of a painted frame at the usual quality, a generous guess.
    """

    encoder: str
    crf: int | None
    worst: int
    deep: bool
    clear: bool
    bytes_per_pixel: float


CODECS: Mapping[str, Codec] = MappingProxyType(
    {
        "h264": Codec("libx264", 16, 51, True, False, 0.15),
        "hevc": Codec("libx265", 18, 51, True, False, 0.12),
        "av1": Codec("libsvtav1", 22, 63, True, False, 0.1),
        "vp9": Codec("libvpx-vp9", 22, 63, False, True, 0.12),
        "prores": Codec("prores_ks", None, 0, True, True, 1.2),
        "ffv1": Codec("ffv1", None, 0, True, True, 3.0),
    }
)

_FFV1_WHOLE = 288, 352  # height and width
_FFV1_GREYS = {8, 9, 10, 12, 14, 16}
_HEVC_SIDE = 64  # libx265 writes beyond its memory where a side is less than one of its blocks


def choose_codec(name: str | None, suffix: str, shape: Shape) -> str:
    """The codec to use for a clip of `shape` in a file named so.

    Raises:
        OptionError: the container does not hold the codec `name`.
        VideoError: the clip has transparency that cannot be kept.
    """
    usual = CONTAINERS[suffix]
    if name is not None and name not in usual:
        raise OptionError(f"--codec {name}: {suffix} holds {', '.join(usual)}")
    if name == "hevc" and min(shape.height, shape.width) < _HEVC_SIDE:
        raise VideoError(f"--codec hevc needs {_HEVC_SIDE} pixels a side: take another")
    if not shape.alpha:
        deep = shape.layout.depth > 8
        return name or next((key for key in usual if CODECS[key].deep or not deep), usual[0])
    clear = [key for key in usual if CODECS[key].clear and suffix != ".mp4"]
    if name is None and clear:
        return clear[-1]
    if name not in clear:
        raise VideoError(
            "it has transparency, which this output cannot keep: write .mov (ProRes), .webm (VP9)"
            " or .mkv (FFV1)"
        )
    return name


@dataclass(frozen=True, slots=True)
class Encoding:
    """All that an encoder is told, so that it repeats itself to the byte.

    Attributes:
        pixels: how samples are kept.
        options: the encoder's own.
        threads: a fixed number, since what comes out may depend on it.
    """

    encoder: str
    pixels: Layout
    colours: Colours
    aspect: Fraction
    rate: Fraction
    options: Mapping[str, str]
    threads: int = 4


def encoding(name: str, crf: int | None, shape: Shape, *, vectors: bool) -> Encoding:
    """How codec `name` encodes a clip of `shape`.

    Args:
        crf: the constant rate factor; None takes the codec's usual one.
        vectors: the processor is an x86 with AVX2.

    Raises:
        OptionError: a crf where the codec has none, or none of its own.
    """
    codec = CODECS[name]
    if crf is not None and codec.crf is None:
        raise OptionError(f"--crf: {name} has no such setting")
    if crf is not None and not 0 <= crf <= codec.worst:
        raise OptionError(f"--crf: {name} takes 0 to {codec.worst}, got {crf}")
    quality = str(codec.crf if crf is None else crf)
    pixels = _pixels(name, shape)
    options: dict[str, str] = {}
    if name == "h264":
        options = {"preset": "medium", "crf": quality}
        if vectors:
            # Its AVX-512 code gives other streams from run to run; its AVX2 code does not.
            options["x264-params"] = "asm=avx2"
    elif name == "hevc":
        options = {"preset": "medium", "crf": quality}
        options["x265-params"] = "log-level=error:pools=4:frame-threads=2"
    elif name == "av1":
        options = {"preset": "6", "crf": quality, "svtav1-params": "lp=2"}
    elif name == "vp9":
        options = {"crf": quality, "b": "0", "deadline": "good", "cpu-used": "3", "row-mt": "0"}
        if pixels.alpha:
            options["auto-alt-ref"] = "0"
    elif name == "prores":
        options = {"profile": "4444" if pixels.alpha or pixels.across == 1 else "hq"}
    else:
        options = {"level": "3", "slicecrc": "1", "g": "1"}
        # How many slices a size can be cut into it knows best, but the smallest cannot be cut.
        if shape.height <= _FFV1_WHOLE[0] and shape.width <= _FFV1_WHOLE[1]:
            options["slices"] = "1"
    colours = shape.colours
    if pixels.rgb:
        colours = Colours(RGB, True, colours.primaries, colours.transfer)
    elif colours.matrix == RGB or shape.layout.rgb or (shape.layout.grey and not pixels.grey):
        colours = Colours(BT709, False, colours.primaries, colours.transfer)
    return Encoding(codec.encoder, pixels, colours, shape.aspect, shape.rate, options)


def _pixels(name: str, shape: Shape) -> Layout:
    """The pixel format to encode in: as deep as the clip, and no finer in colour than players take.

    4:2:0 counts pixels by twos in H.264 and HEVC: what is odd becomes 4:4:4 there.
    """
    source = shape.layout
    deep = source.depth > 8 and CODECS[name].deep
    if name == "ffv1":
        if source.grey:
            return source if source.depth in _FFV1_GREYS else _layout("gray16le")
        known = {9, 10, 12, 14, 16} if not source.alpha else {9, 10, 16}
        if source.name.startswith("yuvj"):
            return _layout(source.name.replace("yuvj", "yuv"))
        if source.rgb and source.depth == 8:  # of 8 bits it takes packed pixels alone
            return _layout("gbrap10le" if source.alpha else "gbrp10le")
        if source.depth == 8 or source.depth in known:
            return source
        return _layout("gbrap16le" if source.alpha else "gbrp16le")
    if name == "prores":
        if source.alpha:
            return _layout("yuva444p10le")
        return _layout("yuv444p10le" if source.across == 1 else "yuv422p10le")
    if name == "vp9" and source.alpha:
        return _layout("yuva420p")
    odd = name in ("h264", "hevc") and (shape.height % 2 or shape.width % 2)
    return _layout(f"yuv{'444' if odd else '420'}p{'10le' if deep else ''}")


def _layout(name: str) -> Layout:
    layout = layout_of(name)
    assert layout is not None
    return layout


def container_name(suffix: str) -> str:
    """FFmpeg's name of the container of files named so."""
    return {".mkv": "matroska", ".m4v": "mp4"}.get(suffix, suffix[1:])
