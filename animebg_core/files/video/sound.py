"""Sound that a container cannot hold as it is: encoded anew."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av.error

_BITS = 96_000  # a second and channel
_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025)

_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}  # by channels; others become stereo


class Encoded:
    """A track of sound, encoded as the container takes it: Opus in WebM, else AAC.

    Attributes:
        name: of what it becomes, for people.
        stream: of the output.
    """

    def __init__(self, source: Any, out: Any) -> None:
        """Args:
            source, out: the stream, and the container it goes to.

        Raises:
            ValueError, FFmpegError: the track cannot be decoded, or there is no such encoder.
        """
        webm = out.format.name == "webm"
        self.name = "Opus" if webm else "AAC"
        given = source.codec_context
        if given is None or not given.sample_rate:
            raise ValueError("no sound that can be decoded")
        rate = given.sample_rate if given.sample_rate in _RATES and not webm else 48_000
        channels = given.layout.nb_channels if given.layout.nb_channels in _LAYOUTS else 2
        self.stream = out.add_stream(
            "libopus" if webm else "aac", rate=rate, layout=_LAYOUTS[channels]
        )
        self.stream.bit_rate = _BITS * channels
        self._next: Fraction | None = None  # when the next frame follows on, in seconds

    def packets(self, packet: Any, start: Fraction, stop: Fraction | None) -> Iterator[Any]:
        """What a packet of the source becomes.

        Args:
            start, stop: seconds between which it is kept; from `start` on times are counted.
        """
        try:
            frames = packet.decode()
        except (av.error.FFmpegError, ValueError):
            return  # what is damaged costs itself
        for frame in frames:
            if frame.pts is None:
                continue
            seconds = frame.pts * frame.time_base
            if (start > 0 and seconds < start) or (stop is not None and seconds >= stop):
                continue
            # Some containers count in ticks as long as a frame of sound, and all round.
            if self._next is not None and abs(seconds - self._next) <= frame.time_base:
                seconds = self._next
            self._next = seconds + Fraction(frame.samples, frame.sample_rate)
            frame.pts = round((seconds - start) * frame.sample_rate)
            frame.time_base = Fraction(1, frame.sample_rate)
            yield from self.stream.encode(frame)

    def rest(self) -> Iterator[Any]:
        """What is still to come when the source has ended."""
        yield from self.stream.encode(None)
