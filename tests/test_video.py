"""Films read and written: colours, times, sound and shape survive; segments repeat to the byte."""

import dataclasses
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip("av", exc_type=ImportError)

from clips import (  # noqa: E402
    Sound,
    bars,
    encoded_tone,
    make_clip,
    packets,
    pictures,
    show_by,
    times_of,
)

from animebg_core.errors import OptionError, VideoError  # noqa: E402
from animebg_core.files.video import reading  # noqa: E402
from animebg_core.files.video.colour import (  # noqa: E402
    Colours,
    from_rgb,
    layout_of,
    planar_name,
    samples,
    to_rgb,
)
from animebg_core.files.video.output import film_output  # noqa: E402
from animebg_core.files.video.reading import Film  # noqa: E402
from animebg_core.files.video.segments import SegmentFile, segment_frames  # noqa: E402
from animebg_core.files.video.writing import Trim  # noqa: E402

SIZE = 48, 64


def copied(
    source: Path,
    target: Path,
    *,
    trim: Trim = Trim(),  # noqa: B008
    notes: list[str] | None = None,
    **options,
) -> Path:
    """`source` through decoder, RGB, encoder and muxer, unpainted; `notes` takes what is said."""
    clip = Film(source)
    output = film_output(target, clip.shape, vectors=False, **options)
    segments, times = [], []
    frames = list(clip.frames())
    for start in range(0, len(frames), 8):
        path = target.with_name(f"{target.name}-{start}.mkv")
        segment = SegmentFile(path, output.encoding)
        for time, frame in frames[start : start + 8]:
            segment.add(frame.pixels())
            times.append(time)
        segment.finish()
        segments.append(path)
    said = output.join(
        segments,
        source,
        folder=target.parent,
        times=sorted(times),
        last=clip.last_ticks,
        time_base=clip.shape.time_base,
        trim=trim,
        progress=lambda done, total: None,
    )
    if notes is not None:
        notes += said
    return target


@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", [1, 6, 9], ids=["bt709", "bt601", "bt2020"])
@pytest.mark.parametrize("name", ["yuv420p", "yuv422p10le", "yuva444p", "yuv411p", "gbrap10le"])
@pytest.mark.parametrize("size", [(48, 64), (33, 47)], ids=["even", "odd"])
def test_samples_come_back_exactly_from_rgb(name, matrix, full, size):
    layout, colours = layout_of(name), Colours(matrix, full)
    pixels = bars(*size, alpha=layout.alpha)
    frame = from_rgb(pixels, layout, colours)
    again = from_rgb(to_rgb(frame, colours), layout, colours)
    for index in range(layout.planes):
        assert np.array_equal(samples(frame, layout, index), samples(again, layout, index))


@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", [1, 6], ids=["bt709", "bt601"])
def test_rgb_is_what_the_standard_says(matrix, full):
    # BT.709 and BT.601: the luma of pure red and blue; black and white at the ends of the range.
    red, blue = {1: (0.2126, 0.0722), 6: (0.299, 0.114)}[matrix]
    pixels = np.zeros((8, 32, 3), np.uint16)
    for k, colour in enumerate([(0, 0, 0), (1, 1, 1), (1, 0, 0), (0, 0, 1)]):
        pixels[:, 8 * k : 8 * k + 8] = np.multiply(colour, 65535)
    frame = from_rgb(pixels, layout_of("yuv444p"), Colours(matrix, full))
    luma = samples(frame, layout_of("yuv444p"), 0)[0, ::8]
    low, span = (0, 255) if full else (16, 219)
    assert luma.tolist() == [round(low + span * part) for part in (0, 1, red, blue)]


@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", [1, 6], ids=["bt709", "bt601"])
@pytest.mark.parametrize("name", ["yuv420p", "yuv444p10le"])
def test_colour_bars_come_back_from_a_film(tmp_path, name, matrix, full):
    source = make_clip(
        tmp_path / "bars.mkv", [bars(*SIZE)] * 3, pixels=name, colours=Colours(matrix, full, 1, 1)
    )
    again = copied(source, tmp_path / "again.mkv", codec="ffv1")
    for one, other in zip(pictures(source), pictures(again), strict=True):
        assert np.abs(one.astype(int) - other).max() == 0  # FFV1 is lossless, and so is the rest
    stream = av.open(str(again)).streams.video[0].codec_context
    assert (stream.colorspace, stream.color_range) == (matrix, 2 if full else 1)
    assert (stream.color_primaries, stream.color_trc) == (1, 1)


@pytest.mark.parametrize(
    ("suffix", "sound"), [("mp4", "aac"), ("mov", "aac"), ("mkv", "aac"), ("webm", "libopus")]
)
def test_sound_and_times_are_kept(tmp_path, suffix, sound):
    source = make_clip(tmp_path / f"in.{suffix}", noise(20), sound=Sound(sound), rate=24)
    again = copied(source, tmp_path / f"out.{suffix}")
    assert packets(again, "audio") == packets(source, "audio")
    assert len(packets(source, "audio")) > 10
    assert times_of(again) == times_of(source)


def heard(path: Path) -> tuple[str, float, float, float]:
    """The sound's codec, where it begins, how long it is in seconds, and its pitch in Hz."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        frames = list(container.decode(stream))
        wave = np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames]).astype(float)
        rate, name = stream.codec_context.sample_rate, stream.codec_context.name
        pitch = np.abs(np.fft.rfft(wave)).argmax() * rate / len(wave)
        return name, float(frames[0].time), len(wave) / rate, float(pitch)


@pytest.mark.parametrize(
    ("sound", "suffix", "codec", "name"),
    [
        ("pcm_s16le", "mp4", "aac", "AAC"),
        ("flac", "mov", "aac", "AAC"),
        ("aac", "webm", "opus", "Opus"),
    ],
)
def test_sound_that_a_format_does_not_hold_is_encoded_for_it(tmp_path, sound, suffix, codec, name):
    source = make_clip(
        tmp_path / "in.mkv", noise(25), sound=Sound(sound, 44_100 if sound == "flac" else 48_000)
    )
    notes = []
    copied(source, tmp_path / f"out.{suffix}", notes=notes)
    assert notes == [f"its sound ({sound}) is encoded as {name} for this format"]
    found, begins, lasts, pitch = heard(tmp_path / f"out.{suffix}")
    assert found == codec and pitch == pytest.approx(440, abs=2)
    # Encoders begin a little before and end on whole blocks of their own, 1024 samples or 960.
    assert begins == pytest.approx(0, abs=0.025) and lasts == pytest.approx(1, abs=0.06)
    part = tmp_path / f"part.{suffix}"
    copied(source, part, trim=Trim(Fraction(1, 2)))
    _, begins, lasts, _ = heard(part)
    assert begins == pytest.approx(0, abs=0.05) and lasts == pytest.approx(0.5, abs=0.08)
    copied(source, tmp_path / f"again.{suffix}")
    assert packets(tmp_path / f"again.{suffix}", "audio") == packets(
        tmp_path / f"out.{suffix}", "audio"
    )


def test_sound_is_encoded_by_its_samples_where_ticks_are_as_long_as_its_frames(tmp_path):
    source = make_clip(tmp_path / "in.avi", noise(25), sound=Sound("libmp3lame"))
    copied(source, tmp_path / "out.mp4")
    assert heard(tmp_path / "out.mp4")[2] == pytest.approx(1, abs=0.06)
    times = [time for _, time in packets(tmp_path / "out.mp4", "audio")]
    steps = {round(48_000 * float(b - a)) for a, b in zip(times, times[1:], strict=False)}
    assert steps == {1024}


@pytest.mark.parametrize("suffix", ["ts", "mpg"])
def test_a_film_whose_clock_starts_anywhere_starts_at_zero(tmp_path, suffix):
    source = transmitted(tmp_path / f"in.{suffix}", start=40)
    times = times_of(copied(source, tmp_path / "out.mp4"))
    assert 0 <= times[0] < Fraction(1, 25) and times[-1] - times[0] == Fraction(24, 25)
    _, begins, lasts, _ = heard(tmp_path / "out.mp4")
    apart = times_of(source)[0] - Fraction(heard(source)[1])
    assert float(times[0]) - begins == pytest.approx(float(apart), abs=0.002)
    assert lasts == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("start", [1, 2000], ids=["back", "ahead"])
def test_recordings_put_together_are_one_film(tmp_path, start):
    one, other = (transmitted(tmp_path / f"{at}.ts", start=at) for at in (1, start))
    both = tmp_path / "both.ts"
    both.write_bytes(one.read_bytes() + other.read_bytes())
    times = times_of(copied(both, tmp_path / "out.mp4"))
    steps = {b - a for a, b in zip(times, times[1:], strict=False)}
    assert len(times) == 50 and steps == {Fraction(1, 25)}
    sound = [time for _, time in packets(tmp_path / "out.mp4", "audio")]
    assert sound == sorted(set(sound)) and float(sound[-1]) == pytest.approx(2, abs=0.06)


def test_sound_in_packets_shorter_than_a_tick_stays_where_it_is(tmp_path):
    """Matroska counts in milliseconds; TrueHD has packets of 40 samples."""
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as out:
        film = out.add_stream("libx264", rate=25)
        film.height, film.width = SIZE
        film.pix_fmt = "yuv420p"
        tone = out.add_stream("pcm_s16le", rate=48_000, layout="mono")
        made = []
        for at in range(0, 48_000, 40):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 40), np.int16), "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 48_000, at, Fraction(1, 48_000)
            made += tone.encode(frame)
        for number, picture in enumerate(noise(25)):
            frame = from_rgb(picture, layout_of("yuv420p"), Colours())
            frame.pts, frame.time_base = number, Fraction(1, 25)
            made += film.encode(frame)
        for packet in sorted([*made, *film.encode(None)], key=lambda p: p.dts * p.time_base):
            out.mux(packet)
    given = [time for _, time in packets(source, "audio")]
    copied(source, tmp_path / "out.mkv")
    times = [time for _, time in packets(tmp_path / "out.mkv", "audio")]
    assert float(times[-1]) == pytest.approx(float(given[-1]), abs=0.003)


def test_a_segment_that_is_damaged_is_named(tmp_path):
    clip = Film(make_clip(tmp_path / "in.mkv", noise(2)))
    bad = tmp_path / "000.mkv"
    bad.write_bytes(b"no film at all")
    output = film_output(tmp_path / "out.mkv", clip.shape, vectors=False)
    with pytest.raises(VideoError, match=r"000\.mkv is damaged: remove it"):
        output.join(
            [bad],
            None,
            folder=tmp_path,
            times=[0, 1],
            last=1,
            time_base=clip.shape.time_base,
            trim=Trim(),
            progress=lambda done, total: None,
        )


def test_a_pause_is_no_jump_of_the_clock(tmp_path):
    source = transmitted(tmp_path / "in.ts", start=1, pause=12)
    times = times_of(copied(source, tmp_path / "out.mkv"))
    assert float(times[-1] - times[0]) == pytest.approx(12.96, abs=0.01)
    sound = [time for _, time in packets(tmp_path / "out.mkv", "audio")]
    assert float(sound[-1] - sound[0]) == pytest.approx(12.96, abs=0.05)


def transmitted(path: Path, *, start: int, pause: int = 0) -> Path:
    """A second of film and sound whose clock begins at `start` seconds, paused in the middle."""
    codec = {".ts": "libx264", ".mpg": "mpeg2video"}[path.suffix]
    container = {".ts": "mpegts", ".mpg": "mpeg"}[path.suffix]
    with av.open(str(path), "w", format=container) as out:
        film = out.add_stream(codec, rate=25)
        film.height, film.width = SIZE
        film.pix_fmt = "yuv420p"
        tone = out.add_stream("mp2", rate=48_000, layout="mono")
        made = [*encoded_tone(tone, Sound("mp2"))]
        for number, picture in enumerate(noise(25)):
            frame = from_rgb(picture, layout_of("yuv420p"), Colours())
            frame.pts, frame.time_base = number, Fraction(1, 25)
            made += film.encode(frame)
        for packet in sorted([*made, *film.encode(None)], key=lambda p: p.dts * p.time_base):
            late = start + (pause if packet.dts * packet.time_base > 0.5 else 0)
            packet.pts += round(late / packet.time_base)
            packet.dts += round(late / packet.time_base)
            out.mux(packet)
    return path


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_uneven_times_are_kept(tmp_path, suffix):
    uneven = [0, 40, 90, 95, 300, 301, 420, 1000, 1001, 1300, 1320]
    source = make_clip(tmp_path / f"in.{suffix}", noise(11), times=uneven)
    again = copied(source, tmp_path / f"out.{suffix}")
    assert times_of(again) == [Fraction(time, 1000) for time in uneven]


def test_pixel_aspect_and_rate_are_kept(tmp_path):
    source = make_clip(tmp_path / "in.mp4", noise(10), rate=Fraction(30000, 1001), aspect=(4, 3))
    again = copied(source, tmp_path / "out.mp4")
    stream = av.open(str(again)).streams.video[0]
    assert stream.sample_aspect_ratio == Fraction(4, 3)
    assert stream.average_rate == Fraction(30000, 1001)


@pytest.mark.parametrize(("quarter", "turn"), [(90, 3), (270, 1), (180, 2)])
def test_a_phone_clip_is_turned_upright(tmp_path, quarter, turn):
    source = make_clip(tmp_path / "in.mp4", [bars(*SIZE)] * 2, aspect=(4, 3), turned=quarter)
    still = make_clip(tmp_path / "still.mp4", [bars(*SIZE)] * 2)
    clip = Film(source)
    _, frame = next(clip.frames())
    _, lying = next(Film(still).frames())
    assert np.array_equal(frame.pixels(), np.rot90(lying.pixels(), turn))
    assert frame.pixels().shape[:2] == (clip.shape.height, clip.shape.width)
    assert clip.shape.aspect == (Fraction(3, 4) if turn % 2 else Fraction(4, 3))


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((-1, 0, 0, 1), lambda picture: picture[:, ::-1]),
        ((1, 0, 0, -1), lambda picture: picture[::-1]),
        ((0, 1, 1, 0), lambda picture: picture.transpose(1, 0, 2)),
        ((0, -1, -1, 0), lambda picture: picture[::-1, ::-1].transpose(1, 0, 2)),
    ],
    ids=["left is right", "upside down", "turned", "turned back"],
)
def test_a_mirrored_clip_is_shown_as_in_its_mirror(tmp_path, matrix, shown):
    source = make_clip(tmp_path / "in.mp4", noise(2))
    plain = next(Film(source).frames())[1].pixels()
    show_by(source, *matrix)
    seen = next(Film(source).frames())[1].pixels()
    assert np.array_equal(seen, shown(plain))


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "h264"), ("mp4", "hevc"), ("webm", None)])
def test_odd_sizes_and_ten_bits_are_kept(tmp_path, suffix, codec):
    source = make_clip(tmp_path / "in.mkv", noise(4, 65, 67), pixels="yuv444p10le")
    again = copied(source, tmp_path / f"out.{suffix}", codec=codec)
    stream = av.open(str(again)).streams.video[0]
    assert (stream.height, stream.width) == (65, 67)
    assert stream.pix_fmt.endswith("p10le")


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (301, 361), (290, 354), (360, 640)])
@pytest.mark.parametrize("name", ["yuv420p", "yuv410p", "gray", "bgr0"])
def test_ffv1_takes_every_size(tmp_path, name, size):
    source = make_clip(tmp_path / "in.mkv", [smooth(*size)], pixels="gbrp")
    shape = Film(source).shape
    shape = dataclasses.replace(shape, layout=layout_of(planar_name(name)))
    output = film_output(tmp_path / "out.mkv", shape, codec="ffv1", vectors=False)
    segment = SegmentFile(tmp_path / "a.mkv", output.encoding)
    segment.add(smooth(*size))
    segment.finish()
    assert len(list(segment_frames([tmp_path / "a.mkv"], output.encoding))) == 1


@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("name", ["gray", "gray12le"])
def test_grey_keeps_its_range_and_depth(tmp_path, name, full):
    with av.open(str(tmp_path / "in.mkv"), "w") as out:
        film = out.add_stream("ffv1", rate=25)
        film.height, film.width = SIZE
        film.pix_fmt = name
        film.codec_context.color_range = 2 if full else 1
        ramp = noise(1)[0].mean(-1, keepdims=True).repeat(3, -1).astype(np.uint16)
        frame = from_rgb(ramp, layout_of(name), Colours(full=full))
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        out.mux([*film.encode(frame), *film.encode(None)])
    source = tmp_path / "in.mkv"
    assert Film(source).shape.colours.full == full
    kept = copied(source, tmp_path / "out.mkv", codec="ffv1")
    assert np.array_equal(pictures(kept)[0], pictures(source)[0])
    _, seen = next(Film(copied(source, tmp_path / "out.mp4")).frames())
    assert np.abs(seen.pixels().astype(int) - ramp).mean() < 3 * 257


def test_what_an_encoder_refuses_is_said_in_a_line(tmp_path):
    source = make_clip(tmp_path / "in.mkv", [smooth(2, 2)], pixels="yuv444p")
    with pytest.raises(VideoError, match="FFmpeg cannot") as caught:
        copied(source, tmp_path / "out.mkv", codec="av1")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("suffix", "bits"), [("mov", 4), ("webm", 4), ("mkv", 0)])
def test_transparency_is_kept(tmp_path, suffix, bits):
    source = make_clip(tmp_path / "in.mkv", [bars(64, 64, alpha=True)] * 3, pixels="yuva444p")
    again = copied(source, tmp_path / f"out.{suffix}")
    before, after = (next(Film(path).frames())[1].pixels() for path in (source, again))
    assert after.shape[2] == 4
    # Lossy codecs may miss alpha by a few steps of 255, most at its edges.
    assert np.abs(before[..., 3].astype(int) - after[..., 3]).mean() <= bits * 257


def test_transparency_is_refused_where_it_would_be_lost(tmp_path):
    source = make_clip(tmp_path / "in.mkv", [bars(*SIZE, alpha=True)], pixels="yuva444p")
    with pytest.raises(VideoError, match="transparency"):
        film_output(tmp_path / "out.mp4", Film(source).shape, vectors=False)


def test_hdr_is_refused(tmp_path):
    source = make_clip(
        tmp_path / "in.mkv", noise(2), pixels="yuv420p10le", colours=Colours(9, False, 9, 16)
    )
    with pytest.raises(VideoError, match="HDR"):
        Film(source)


def test_a_codec_must_fit_its_container(tmp_path):
    shape = Film(make_clip(tmp_path / "in.mkv", noise(2))).shape
    with pytest.raises(OptionError, match="webm holds vp9, av1"):
        film_output(tmp_path / "out.webm", shape, codec="h264", vectors=False)
    with pytest.raises(OptionError, match="no such setting"):
        film_output(tmp_path / "out.mov", shape, codec="prores", crf=20, vectors=False)
    with pytest.raises(VideoError, match="64 pixels"):
        film_output(tmp_path / "out.mp4", shape, codec="hevc", vectors=False)


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "vp9", "prores", "ffv1"])
def test_a_segment_repeats_to_the_byte(tmp_path, codec):
    clip = Film(make_clip(tmp_path / "in.mkv", noise(12, 64, 96)))
    output = film_output(tmp_path / "out.mkv", clip.shape, codec=codec, vectors=avx())
    encoded = []
    for attempt in range(3):
        segment = SegmentFile(tmp_path / f"{attempt}.mkv", output.encoding)
        for _, frame in clip.frames():
            segment.add(frame.pixels())
        segment.finish()
        encoded.append(packets(tmp_path / f"{attempt}.mkv", "video"))
    assert encoded[0] == encoded[1] == encoded[2]


def test_an_aborted_segment_leaves_nothing(tmp_path):
    shape = Film(make_clip(tmp_path / "in.mkv", noise(2))).shape
    folder = tmp_path / "work"
    folder.mkdir()
    segment = SegmentFile(
        folder / "a.mkv", film_output(tmp_path / "o.mkv", shape, vectors=False).encoding
    )
    segment.add(bars(*SIZE))
    segment.abort()
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: b"", "0 bytes"),
        (lambda data: data[:200], "not a video|damaged"),
        (lambda data: b"no video at all" * 100, "not a video|damaged"),
    ],
    ids=["empty", "header only", "text"],
)
def test_what_is_no_film_is_refused_in_a_line(tmp_path, damage, said):
    source = make_clip(tmp_path / "in.mp4", noise(6))
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(damage(source.read_bytes()))
    with pytest.raises(VideoError, match=said) as caught:
        Film(bad)
    assert "\n" not in str(caught.value)


def test_a_file_with_sound_alone_is_refused(tmp_path):
    source = make_clip(tmp_path / "in.mka", [], sound=Sound("aac"))
    with pytest.raises(VideoError, match="no video track"):
        Film(source)


def test_a_damaged_film_is_read_as_far_as_it_goes(tmp_path):
    source = make_clip(tmp_path / "in.mkv", noise(40))
    data = bytearray(source.read_bytes())
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(data[: len(data) * 2 // 3])
    assert 15 < len(list(Film(cut).frames())) < 40
    for at in range(len(data) // 2, len(data) // 2 + 400):
        data[at] ^= 0x5A
    bad = tmp_path / "bad.mkv"
    bad.write_bytes(data)
    clip = Film(bad)
    assert len(list(clip.frames())) >= 15


def test_a_film_that_breaks_off_or_is_damaged_says_so(tmp_path):
    source = make_clip(tmp_path / "in.mkv", noise(40))
    clip = Film(source)
    assert len(list(clip.frames())) == 40 and clip.notes == []
    list(clip.frames(keys=True))
    assert clip.notes == []
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(source.read_bytes()[: source.stat().st_size * 2 // 3])
    clip = Film(cut)
    list(clip.frames())
    assert len(clip.notes) == 1 and "breaks off" in clip.notes[0] and "of 1.60" in clip.notes[0]
    whole = make_clip(tmp_path / "in.mp4", noise(40))
    with av.open(str(whole)) as container:
        found = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(whole.read_bytes())
    at, size = found[20]
    for place in range(at + size * 3 // 4, at + size * 3 // 4 + 4):
        data[place] ^= 0x5A
    (tmp_path / "bad.mp4").write_bytes(data)
    clip = Film(tmp_path / "bad.mp4")
    assert len(list(clip.frames())) == 40
    assert len(clip.notes) == 1 and "damaged" in clip.notes[0]


def test_a_frame_that_is_to_stay_is_no_damage(tmp_path, monkeypatch):
    def with_an_empty_one(*given):
        for number, packet in enumerate(read(*given)):
            yield packet
            if number == 2:  # as Theora has it
                again = av.Packet(b"")
                again.pts = again.dts = packet.pts + 1
                again.stream, again.time_base = packet.stream, packet.time_base
                yield again

    read = reading.packets
    monkeypatch.setattr(reading, "packets", with_an_empty_one)
    clip = Film(make_clip(tmp_path / "in.mkv", noise(6)))
    assert len(list(clip.frames())) == 6 and clip.notes == []


def test_an_interlaced_film_is_made_whole(tmp_path):
    source = make_clip(tmp_path / "in.mkv", noise(6), interlaced=True)
    clip = Film(source)
    frames = list(clip.frames())
    assert len(frames) == 6
    assert any("interlaced" in note for note in clip.notes)
    assert [time for time, _ in frames] == sorted(time for time, _ in frames)


def test_a_glance_is_the_frame_made_small(tmp_path):
    for name in ("yuv420p", "gbrp", "yuv444p10le"):
        source = make_clip(tmp_path / f"{name}.mkv", [smooth(90, 160)], pixels=name)
        _, frame = next(Film(source).frames())
        parts = frame.pixels().reshape(9, 10, 16, 10, 3).mean((1, 3)) / 65535
        assert np.abs(frame.glance() - parts).max() < 2 / 255  # chroma is rounded by itself


def test_segments_give_their_frames_again(tmp_path):
    frames = [bars(*SIZE), smooth(*SIZE)]
    clip = Film(make_clip(tmp_path / "in.mkv", frames, pixels="gbrp"))
    output = film_output(tmp_path / "out.gif", clip.shape, vectors=False)
    segment = SegmentFile(tmp_path / "a.mkv", output.encoding)
    for _, frame in clip.frames():
        segment.add(frame.pixels())
    segment.finish()
    again = list(segment_frames([tmp_path / "a.mkv"], output.encoding))
    for one, other in zip(frames, again, strict=True):
        assert np.abs(one.astype(int) - other).max() <= 161  # half a step of 8 and of 10 bits


def noise(count: int, height: int = SIZE[0], width: int = SIZE[1]) -> list[np.ndarray]:
    """Frames that a codec cannot make nothing of: a moving pattern."""
    base = np.random.default_rng(1).integers(0, 65536, (height // 4 + 1, width // 4 + 1, 3))
    still = base.repeat(4, 0).repeat(4, 1)[:height, :width].astype(np.uint16)
    return [np.roll(still, 2 * k, 1) for k in range(count)]


def smooth(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    planes = [rows / height, columns / width, (rows + columns) / (height + width)]
    return (np.stack(planes, -1) * 65535).astype(np.uint16)


def avx() -> bool:
    import torch

    return torch.backends.cpu.get_cpu_capability().startswith("AVX")
