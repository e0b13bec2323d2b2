"""One function: a file on disk becomes a mono float32 waveform at the wanted rate."""

import errno
import itertools
import math
import os
import re
import shutil
import stat
import struct
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from functools import cache
from io import FileIO
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np
import soundfile
import torch
from torch import fft

from jetatag.files import NOT_TEXT, NOT_UTF8

SHORTEST_S = 0.1
BLOCK = 1 << 20
"""Samples a channel that are decoded at once."""
REJECTION_DB = 125
LOWEST_HZ, HIGHEST_HZ = 1_000, 1_000_000  # others are damage, and costly to resample
UNKNOWN_BYTES = range(0x7FFF_F000, 1 << 32)  # as programs write that cannot know a length yet
UNSTATED = 2**63 - 1  # libsndfile's number of samples where there is none
SIZES = re.compile(r"(?:data|SSND|BODY|Data Size|riff|Riff size) *: (\d+) \(should be (\d+)\)")
UNRECOGNISED = (1, 7)  # libsndfile's codes; the latter's sentence, of no file, is wrong
PASSING = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ENOSPC, errno.EDQUOT}
"""Errors of the machine, which say nothing of the file that met them."""
QUIETEST = 1 / 32_767
"""One 16-bit step: what varies by less than this is silence."""


class AudioError(ValueError):
    """A file that cannot be used as audio; the message says why, in one sentence."""


def load(path: Path | str, sample_rate: int) -> np.ndarray:
    """Decode `path`, average its channels and resample it.

    Returns (n_samples,) float32 at `sample_rate` (Hz), nominally within [-1, 1]. soundfile
    decodes (WAV, FLAC, OGG, MP3). Raises `AudioError` for a file that is missing, empty, not
    audio, truncated, silent, shorter than 0.1 s, of an impossible sample rate, or that holds values
    which are not numbers; `OSError` where not the file fails but the machine (`PASSING`).
    Truncation shows where the file states its length, as all but some MP3s do; those are decoded
    to their last whole frame.
    """
    return _joined(list(stream(path, sample_rate)))


def stream(path: Path | str, sample_rate: int) -> Iterator[np.ndarray]:
    """`load` by blocks of about `BLOCK` decoded samples, which together are what it returns; in
    memory that does not depend on the file's length.

    What can be known of the whole alone (truncated, silent, too short) is raised at the end.
    """
    path = Path(path)
    with _opened(path) as file:
        try:
            yield from _stream(file, path, sample_rate)
        except (AudioError, soundfile.SoundFileError) as error:
            # libsndfile hides what the system said; where that was no word on the file, it says
            # it again (`OSError`).
            with path.open("rb", buffering=0) as again:
                while again.read(1 << 20):
                    pass
            raise AudioError(_reason(error)) from None


def stated_s(path: Path) -> float:
    """Seconds that a file's header states, in a fraction of a millisecond; 0 where it does not."""
    try:
        about = soundfile.info(path) if path.is_file() else None  # of a pipe it would wait
    except (OSError, soundfile.SoundFileError):
        return 0.0
    return about.duration if about and about.frames != UNSTATED else 0.0


@contextmanager
def quiet_decoder() -> Iterator[None]:
    """Drop what C libraries write to standard error, as libsndfile's MP3 decoder does of every
    frame that is damaged; what Python writes there still appears. Reasons do not come that way."""
    with (
        os.fdopen(os.dup(2), "w", buffering=1) as kept,
        Path(os.devnull).open("wb") as nowhere,
        redirect_stderr(kept) if _descriptor(sys.stderr) == 2 else nullcontext(),
    ):
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept.fileno(), 2)


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except OSError:  # it is no file, such as a notebook's
        return None


def _opened(path: Path) -> FileIO:
    """The file, open. What keeps it closed is its own fault (`AudioError`) or the machine's, which
    passes (`OSError`)."""
    try:
        about = path.stat()  # before opening, which waits for the other end of a pipe
        if not stat.S_ISREG(about.st_mode):
            raise AudioError("a folder, pipe or device, not a file")
        if about.st_size == 0:
            raise AudioError("empty file (0 bytes)")
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        missing = NOT_UTF8 if NOT_TEXT in str(path) else "audio file missing"
        raise AudioError(missing) from None
    except OSError as error:
        if error.errno in PASSING:
            raise
        raise AudioError(f"unreadable audio ({error.strerror})") from None


def _stream(file: FileIO, path: Path, sample_rate: int) -> Iterator[np.ndarray]:
    at_most = unstated_samples(file)
    with (
        with_stated_length(file, at_most) if at_most else nullcontext(file.fileno()) as source,
        _recognised(source, path) as sound,
    ):
        check_truncated(sound)
        if not LOWEST_HZ <= sound.samplerate <= HIGHEST_HZ:
            raise AudioError(f"states a sample rate of {sound.samplerate:,} Hz")
        blocks = _checked(_decoded(sound, length_is_known=not at_most), sound.samplerate)
        yield from resample_blocks(blocks, sound.samplerate, sample_rate)


class ForwardFile(soundfile.SoundFile):
    """An audio file that is read from front to back. As seekable, soundfile seeks to where it is
    after every read, and an MP3 decoder then lacks what earlier frames hold of the next."""

    def seekable(self) -> bool:
        return False


def _recognised(source: int, path: Path) -> ForwardFile:
    """An open file, recognised by its content; libsndfile finds an MP3 behind other bytes only
    where the name says that there is one."""
    try:
        return ForwardFile(source, closefd=False)
    except soundfile.LibsndfileError as error:
        if error.code not in UNRECOGNISED or path.suffix.lower() != ".mp3":
            raise
    return ForwardFile(path)


def _decoded(sound: ForwardFile, length_is_known: bool) -> Iterator[np.ndarray]:
    """All samples by blocks, (n_samples,) float32, the channels averaged; so a header that states
    more than the file holds costs no memory."""
    if sound.frames == UNSTATED:
        raise AudioError("does not state its length, like FLAC written into a pipe: encode it anew")
    n_samples, size = 0, min(sound.frames, BLOCK)
    while n_samples < sound.frames:
        block = sound.read(size, "float32", always_2d=True)
        n_samples += len(block)
        if len(block):
            yield block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)
        if len(block) < size:
            break
    if n_samples == 0 or (n_samples < sound.frames and length_is_known):
        raise AudioError(f"truncated: {n_samples:,} of {sound.frames:,} samples could be decoded")


def _checked(blocks: Iterable[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """The blocks as they are; refuses (`AudioError`) what is no use as audio."""
    n_samples, lows, highs = 0, [], []
    for block in blocks:
        low, high = extremes(block)
        if not math.isfinite(high - low):
            raise AudioError("holds values that are not numbers (NaN or infinity)")
        n_samples, lows, highs = n_samples + len(block), [*lows, low], [*highs, high]
        yield block
    if n_samples < SHORTEST_S * rate:
        raise AudioError(f"shorter than {SHORTEST_S} s ({n_samples:,} samples at {rate:,} Hz)")
    if max(highs) - min(lows) < QUIETEST:
        raise AudioError("silent (mixed to mono): its samples differ by less than a 16-bit step")


def check_truncated(file: soundfile.SoundFile) -> None:
    """Refuse (`AudioError`) a file that is shorter than it says, where libsndfile notes that and
    reads on: WAV, AIFF, AU, W64 and RF64 say how many bytes belong there, Ogg marks its end."""
    for stated, there in SIZES.findall(file.extra_info):
        if int(there) < int(stated) and int(stated) not in UNKNOWN_BYTES:
            raise AudioError(f"truncated: {int(there):,} of {int(stated):,} bytes are there")
    if re.search("lacks an end-of-stream bit|Seems to be a truncated file", file.extra_info):
        raise AudioError("truncated: its end is not marked as such")


def extremes(audio: np.ndarray) -> tuple[float, float]:
    """Least and greatest value in one pass; NaN where there is one."""
    low, high = torch.from_numpy(audio).aminmax()
    return low.item(), high.item()


# Resampling


def resample(audio: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """Resample (n_samples,) float32 from `rate` to `sample_rate` (both Hz).

    Band-limited by overlapping blocks of FFTs: multiplied by the filter's response, a block's
    spectrum is read back at the other rate. The filter has the pass band of soxr's high quality
    (to 0.913 of the lower Nyquist frequency) and stops at that frequency by 125 dB.
    """
    return _joined(list(resample_blocks([audio], rate, sample_rate)))


def resample_blocks(
    blocks: Iterable[np.ndarray], rate: int, sample_rate: int
) -> Iterator[np.ndarray]:
    """`resample` of a signal that comes by blocks of any lengths, which tell nothing in the
    result: what lies under the filter at a block's end waits for the next one."""
    if rate == sample_rate:
        yield from blocks
        return
    up, down = (r // math.gcd(rate, sample_rate) for r in (sample_rate, rate))
    response, n_steps, margin = _band_limit(up, down)
    size, hop = n_steps * down, (n_steps - 2 * margin) * down
    waiting, n_in, n_out = torch.zeros(margin * down), 0, 0
    for block in itertools.chain(blocks, [None]):
        if block is None:
            new = torch.zeros(-n_in % hop + margin * down)
        else:
            new, n_in = torch.from_numpy(block), n_in + len(block)
        waiting = torch.cat([waiting, new])
        n_frames = max(0, (len(waiting) - size) // hop + 1)
        if n_frames:
            spectra = fft.rfft(waiting.unfold(0, size, hop))[:, : len(response)]
            torch.view_as_real(spectra).mul_(response)
            there = fft.irfft(spectra, n_steps * up)[:, margin * up : -margin * up].reshape(-1)
            waiting = waiting[n_frames * hop :]
            yield there[: -(-n_in * up // down) - n_out].numpy()
            n_out += len(there)


def _joined(blocks: list[np.ndarray]) -> np.ndarray:
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


@contextmanager
def one_thread() -> Iterator[None]:
    """Have torch use no more threads than those that call it: FFTs this short only lose by more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def _band_limit(up: int, down: int) -> tuple[torch.Tensor, int, int]:
    """Response of a Kaiser filter at a block's frequencies, (n_bins, 2) for the real and imaginary
    part; the block's length and what to drop at its ends, in steps of `down` samples before and
    `up` after."""
    lower = min(1, up / down)  # Nyquist frequency of the lower rate, in that of the first
    stop, edge = lower, 0.913 * lower
    half = math.ceil((REJECTION_DB - 7.95) / (2.285 * np.pi * (stop - edge)) / 2)
    margin = math.ceil(half / down)
    n_steps = 2 ** math.ceil(math.log2(max(16 * margin, 8192 / down)))
    time, cutoff = np.arange(-half, half + 1), (stop + edge) / 2
    taps = cutoff * np.sinc(cutoff * time) * np.kaiser(len(time), 0.1102 * (REJECTION_DB - 8.7))
    kernel = np.zeros(n_steps * down)
    kernel[time] = taps / taps.sum() * up / down
    n_bins = min(n_steps * up, n_steps * down) // 2 + 1
    response = np.fft.rfft(kernel).real[:n_bins, None].astype(np.float32)
    return torch.from_numpy(response.repeat(2, axis=1)), n_steps, margin


# MP3 files that do not state their length

PIECE, IN_MEMORY = 1 << 24, 1 << 26
"""Bytes that are read at once, and up to which a file is copied in memory."""


def unstated_samples(file: FileIO) -> int:
    """How many samples a channel an MP3 may hold that does not say so in its first frame, as at
    low bit rates encoders often do not; 0 for one that does, and for anything else.

    libsndfile then guesses the length from size and first frame, and reads no further: of a
    variable bit rate it can lose most. All frames begin alike (ISO 11172-3, 13818-3), so that
    their beginnings can be counted; a few more may only look so.
    """
    head = _mp3_data(file, 4096)
    first = _frame(head)
    stated = any(mark in head[:first] for mark in (b"Xing", b"Info", b"VBRI"))
    if stated or not (first and _frame(head[first:])):
        return 0
    _seek_mp3(file)
    n_alike, last = 0, b""
    while piece := file.read(PIECE):
        data = np.frombuffer(last + piece, np.uint8)
        alike = (data[:-1] == head[0]) & (data[1:] == head[1])  # six times as fast as bytes.count
        n_alike, last = n_alike + np.count_nonzero(alike), piece[-1:]
    file.seek(0)
    return n_alike * _samples(head)


@contextmanager
def with_stated_length(file: FileIO, n_samples: int) -> Iterator[int]:
    """A nameless copy of an MP3 with its number of frames in front, where encoders put it: in a
    Xing header. Yields its file descriptor.

    Frames counted too much cost nothing, because reading stops at the end of the data.
    """
    data = _mp3_data(file, 4096)
    # The first frame's form, unprotected, at a bit rate whose frames have room for the header.
    head = bytes([0xFF, data[1] | 1, 0x90 | data[2] & 0x0C, data[3]])
    side = (17, 9)[_is_low_rate(data)] if data[3] >> 6 == 3 else (32, 17)[_is_low_rate(data)]
    xing = head + bytes(side) + b"Xing" + struct.pack(">II", 1, n_samples // _samples(head))
    _seek_mp3(file)
    with _nameless(os.fstat(file.fileno()).st_size) as copy:
        copy.write(xing.ljust(_frame(head), b"\0"))
        shutil.copyfileobj(file, copy, PIECE)
        copy.seek(0)
        file.seek(0)
        yield copy.fileno()


def _nameless(n_bytes: int) -> BinaryIO:
    """A file without a name: of few bytes in memory where the system has such files, so that no
    disk matters. (Of a `BytesIO` libsndfile would ask Python for every piece.)"""
    try:
        if n_bytes < IN_MEMORY:
            return os.fdopen(os.memfd_create("mp3"), "w+b")
    except (AttributeError, PermissionError):  # not Linux, or closed off there
        pass
    try:
        return tempfile.TemporaryFile()
    except FileNotFoundError:  # what it raises where no folder has room for one
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None


def _mp3_data(file: FileIO, n_bytes: int) -> bytes:
    """The first `n_bytes` of the file behind its ID3 tag."""
    _seek_mp3(file)
    data = file.read(n_bytes)
    file.seek(0)  # where libsndfile begins
    return data


def _seek_mp3(file: FileIO) -> None:
    """Go to the first byte behind the ID3 tag."""
    file.seek(0)
    tag = file.read(10)
    sizes = zip(tag[6:], (21, 14, 7, 0), strict=False)
    size = 10 + sum((byte & 127) << shift for byte, shift in sizes)
    file.seek(size if tag[:3] == b"ID3" else 0)


BIT_RATES = (  # kbit/s of layer III, by index: MPEG 1, then MPEG 2 and 2.5
    (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
SAMPLE_RATES = (44_100, 48_000, 32_000)


def _frame(head: bytes) -> int:
    """Bytes of the layer III frame that begins with `head`, 0 where none does."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2 or head[1] >> 3 & 3 == 1:
        return 0
    bit_rate, rate, low = head[2] >> 4, head[2] >> 2 & 3, _is_low_rate(head)
    if bit_rate in (0, 15) or rate == 3:
        return 0
    sample_rate = SAMPLE_RATES[rate] / {3: 1, 2: 2, 0: 4}[head[1] >> 3 & 3]
    bits = BIT_RATES[low][bit_rate - 1] * 1000
    return int((144, 72)[low] * bits / sample_rate) + (head[2] >> 1 & 1)


def _is_low_rate(head: bytes) -> bool:
    """Whether a frame is MPEG 2 or 2.5, with half the samples of an MPEG 1 frame."""
    return head[1] >> 3 & 3 != 3


def _samples(head: bytes) -> int:
    """Samples of a frame a channel."""
    return 576 if _is_low_rate(head) else 1152


def _reason(error: AudioError | soundfile.SoundFileError) -> str:
    """What is wrong, without the path, which the report already names."""
    if isinstance(error, soundfile.LibsndfileError):
        if error.code in UNRECOGNISED:
            return "unreadable: not recognised as audio (WAV, AIFF, FLAC, Ogg, MP3)"
        return f"unreadable audio ({error.error_string.rsplit(': ', 1)[-1].rstrip('.')})"
    return str(error)
