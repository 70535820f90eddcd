"""The times of packets of containers that count from anywhere, and may begin to count anew.

A transport or program stream (.ts, .mts, .mpg) keeps the clock of its transmitter or camera: its
first packet may lie at any hour, and where recordings were put together the clock jumps. (FFmpeg
says so of Ogg too, whose parts may follow each other.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

from av.container import InputContainer

_JUMPS = 0x200  # AVFMT_TS_DISCONT
# Seconds, back and ahead, beyond which a clock has jumped. Times of showing, where those of
# decoding are missing, go back a little by themselves; ahead is how long sound may pause, or a slow
# film show one frame (FFmpeg, which has other streams to compare with: 0.1 and 10).
_BACK, _AHEAD = Fraction(1, 2), Fraction(600)


def _jumps(container: InputContainer) -> bool:
    return bool(container.format.flags & _JUMPS)


def clock_shifts(container: InputContainer, packets: Iterable[Any]) -> list[Fraction]:
    """What `from_zero` adds to the times of those packets, from each jump on."""
    found: list[Fraction] = []
    if _jumps(container):
        for _ in from_zero(container, packets, found):
            pass
    return found


def from_zero(
    container: InputContainer,
    packets: Iterable[Any],
    shifts: list[Fraction] | None = None,
) -> Iterator[Any]:
    """The packets; where the container's clock is of that kind, with times that begin at zero and
    go on without a jump. What is None or empty comes as it is.

    Args:
        shifts: seconds to be added from each jump on, the start first; those that are not known yet
            are added. So what one stream found out holds for others.
    """
    if not _jumps(container):
        yield from packets
        return
    known = [] if shifts is None else shifts
    if not known:
        known.append(Fraction(-(container.start_time or 0), 1_000_000))
    jumps: dict[int, int] = {}  # of each stream, so far
    ends: dict[int, Fraction] = {}  # of each stream's last packet, as it is given
    for packet in packets:
        if packet is None:
            yield None
            continue
        given = packet.dts if packet.dts is not None else packet.pts
        if given is not None:
            stream, tick = packet.stream.index, packet.time_base
            latest = max(jumps.values(), default=0)
            # What comes late comes by the clock that the others have by then.
            number = jumps.setdefault(stream, latest)
            end = ends.get(stream, given * tick + known[number])
            if packet.stream.type == "subtitle":  # they may pause for any time
                number = latest
            elif not -_BACK < given * tick + known[number] - end < _AHEAD:
                number = jumps[stream] = number + 1
                if number == len(known):
                    known.append(end - given * tick)
            shift = round(known[number] / tick)
            if packet.pts is not None:
                packet.pts += shift
            if packet.dts is not None:
                packet.dts += shift
            ends[stream] = (given + shift + (packet.duration or 0)) * tick
        yield packet


def put_behind(packet: Any, last: Fraction | None, rises: bool) -> None:
    """Move a packet that is not behind the last one, by the muxer's own ticks: the source's may be
    longer than a packet, and the error would grow.
    """
    if last is None:
        return
    tick = packet.stream.time_base
    least = math.floor(last / tick) + 1 if rises else math.ceil(last / tick)
    if round(packet.dts * packet.time_base / tick) >= least:
        return
    shown = packet.dts if packet.pts is None else packet.pts
    shown = max(least, round(shown * packet.time_base / tick))
    packet.dts, packet.pts, packet.time_base = least, shown, tick
