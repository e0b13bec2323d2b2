"""Audio files of every format, made on the spot, and what can be wrong with each of them."""

import io
import struct
import tempfile
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import soundfile

SECONDS = 2.0
ID3 = b"ID3\4\0\0\0\0\1\0" + bytes(128)


def noise(seconds: float = SECONDS, rate: int = 44_100, channels: int = 1) -> np.ndarray:
    """A tone with noise, (n_samples, channels) float32."""
    rng, time = np.random.default_rng(0), np.arange(round(seconds * rate)) / rate
    sound = 0.3 * np.sin(880 * np.pi * time) + 0.05 * rng.standard_normal(len(time))
    return np.repeat(sound[:, None], channels, axis=1).astype(np.float32)


@cache
def by_soundfile(
    kind: str, rate: int = 44_100, channels: int = 1, seconds: float = SECONDS, **how: str
) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, noise(seconds, rate, channels), rate, format=kind, **how)
    return file.getvalue()


@cache
def by_ffmpeg(
    kind: str,
    codec: str | None,
    rate: int = 44_100,
    layout: str = "mono",
    seconds: float = SECONDS,
    video: bool = False,
    pipe: bool = False,
    **options: str,
) -> bytes:
    """A file of FFmpeg's format `kind`, with a sound track unless `codec` is None; as a program
    would write it into a `pipe`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        with path.open("wb") as file:
            target = SimpleNamespace(write=file.write) if pipe else path
            with av.open(target, "w", format=kind, options=options) as container:
                if video:  # all streams before the first packet
                    pictures = container.add_stream("mpeg4", rate=25, width=64, height=48)
                if codec:
                    sound = container.add_stream(codec, rate=rate, layout=layout)
                    write_sound(container, sound, seconds)
                if video:
                    write_video(container, pictures, seconds)
        return path.read_bytes()


def write_sound(
    container: av.container.OutputContainer, stream: av.AudioStream, seconds: float
) -> None:
    encoder, rate = stream.codec_context, stream.rate
    layout, encoder.bit_rate = encoder.layout, 128_000  # WMA has no default
    sound = noise(seconds, rate, layout.nb_channels).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(sound, "flt", layout)
    frame.sample_rate, frame.pts = rate, 0
    size = encoder.frame_size or 1024
    resampler = av.AudioResampler(encoder.format.name, layout, rate, frame_size=size)
    for part in [*resampler.resample(frame), *resampler.resample(None), None]:
        container.mux(stream.encode(part))


def write_video(
    container: av.container.OutputContainer, stream: av.VideoStream, seconds: float
) -> None:
    for number in range(round(25 * seconds)):
        frame = av.VideoFrame.from_ndarray(np.full((72, 64), number, np.uint8), "yuv420p")
        frame.pts = number
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def without_header(mp3: bytes) -> bytes:
    """Removes the first frame, which states the length."""
    return mp3[mp3.index(mp3[:2], 2) :]


def without_size(wav: bytes) -> bytes:
    """States a size of 0 bytes, as programs that write into a pipe do."""
    at = wav.index(b"data") + 4
    return wav[:4] + bytes(4) + wav[8:at] + bytes(4) + wav[at + 4 :]


def with_larger_sizes(wav: bytes, more: int = 36) -> bytes:
    """States more bytes than there are, of the file and of its samples."""
    for at in (4, wav.index(b"data") + 4):
        (size,) = struct.unpack_from("<I", wav, at)
        wav = wav[:at] + struct.pack("<I", size + more) + wav[at + 4 :]
    return wav


def with_chunk(wav: bytes, n_bytes: int) -> bytes:
    """A WAV with further metadata in front of its samples."""
    at = wav.index(b"data")
    return wav[:at] + struct.pack("<4sI", b"LIST", n_bytes) + bytes(n_bytes) + wav[at:]


def with_field(mp3: bytes, offset: int, value: int) -> bytes:
    """Puts `value` at an offset behind the mark of a Xing header: 4 flags, 8 frames, 12 bytes."""
    at = mp3.index(b"Xing") + offset
    return mp3[:at] + struct.pack(">I", value) + mp3[at + 4 :]


def with_vbri(mp3: bytes, n_frames: int) -> bytes:
    """A VBRI header in place of the Xing header."""
    size = mp3.index(mp3[:2], 2)
    fields = struct.pack(">4sHHHIIHHHH", b"VBRI", 1, 0, 75, len(mp3), n_frames, 0, 1, 2, 1)
    return (mp3[:4] + bytes(32) + fields).ljust(size, b"\0") + mp3[size:]


def with_flac_length(flac: bytes, n_samples: int) -> bytes:
    """States another number of samples in a FLAC; 0 as in one written into a pipe."""
    length = bytes([flac[21] & 0xF0 | n_samples >> 32]) + (n_samples & 0xFFFF_FFFF).to_bytes(4)
    return flac[:21] + length + flac[26:]


def damaged(content: bytes, n_bytes: int = 700) -> bytes:
    """Random bytes in the middle."""
    middle, junk = len(content) // 2, np.random.default_rng(1).bytes(n_bytes)
    return content[:middle] + junk + content[middle + n_bytes :]


def cut(content: bytes, share: float = 0.5) -> bytes:
    return content[: int(share * len(content))]


def ape_tag() -> bytes:
    item = struct.pack("<II", 5, 0) + b"Title\0hello"
    both = [
        struct.pack("<8sIIII8x", b"APETAGEX", 2000, len(item) + 32, 1, flags)
        for flags in (0xA000_0000, 0x8000_0000)
    ]
    return both[0] + item + both[1]
