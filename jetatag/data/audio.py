"""Audio files as mono float32 waveforms at a given sample rate.

soundfile decodes WAV, AIFF, CAF, AU, W64 and RF64, whose stated length can be trusted, and PyAV
(FFmpeg) all others; soxr resamples. They are imported when a file is opened: training needs none.
"""

import itertools
import math
import mmap
import re
import stat
import warnings
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from io import FileIO
from operator import itemgetter
from pathlib import Path

import numpy as np

from jetatag.data import ffmpeg
from jetatag.data.ffmpeg import JOINED, AudioError, Header, OnDamage, begins_audio, read_head
from jetatag.files import NOT_TEXT, NOT_UTF8, SYSTEM_ERRORS

MISSING, CHECK = "audio file missing; correct the path", "check its name, links and permissions"
SHORTEST_S = 0.1
BLOCK = 1 << 20  # samples per channel that are decoded at a time
LOWEST_HZ, HIGHEST_HZ = 1_000, 1_000_000  # sample rates beyond are damage, and slow to resample
QUIETEST = 1 / 32_767  # one 16-bit step: audio that varies by less is silent
FOR_SOUNDFILE = re.compile(
    rb"RIF[FX](?!....WAVE.*?data\0{4}.)....WAVE|RF64|FORM....AIF[FC]|caff|\.snd|dns\.|"
    rb"riff\x2e\x91\xcf\x11",
    re.S,
)
"""First bytes of the files that soundfile decodes; of a WAV that states 0 bytes, it reads none."""
SIZES = re.compile(r"(?:data|SSND|BODY|Data Size|riff|Riff size) *: (\d+) \(should be (\d+)\)")
"""Sizes in libsndfile's log: stated, and actual."""
UNKNOWN_BYTES = range(0x7FFF_F000, 1 << 32)  # sizes that programs write before they know them
SIZE_TOLERANCE = 64  # bytes by which some programs overstate sizes

Blocks = Iterator[tuple[int, np.ndarray]]  # sample rate (Hz), and samples (n_samples,) float32


class AudioWarning(UserWarning):
    """A file is used although parts of it could not be decoded."""


def load(path: Path | str, sample_rate: int, on_damage: OnDamage | None = None) -> np.ndarray:
    """Decode `path`, average its channels and resample it.

    Returns (n_samples,) float32 at `sample_rate` (Hz), nominally within [-1, 1]. Raises
    `AudioError` for a file that is missing, empty, not audio, encrypted, without a sound track,
    truncated (where it states its length), joined from parts that cannot all be read, mostly
    damaged, silent, shorter than 0.1 s, of an impossible sample rate, or with values that are not
    numbers; `OSError` for errors of the machine (`files.SYSTEM_ERRORS`). Damaged packets are
    skipped; `on_damage` is called, or else an `AudioWarning` issued.
    """
    return np.concatenate(list(stream(path, sample_rate, on_damage)))


def stream(
    path: Path | str, sample_rate: int, on_damage: OnDamage | None = None
) -> Iterator[np.ndarray]:
    """Yield what `load` returns in blocks, in constant memory; it may raise after the last one."""
    with _open(Path(path)) as file:
        _, head = read_head(file)
        if FOR_SOUNDFILE.match(head):
            blocks = _decode_by_soundfile(file, head)
        else:
            warned = partial(warnings.warn, category=AudioWarning, stacklevel=2)
            told = on_damage or (lambda damage: warned(f"{path} is {damage}."))
            blocks = ffmpeg.decode(file, BLOCK, told)
        yield from _resample(_check_audio(blocks), sample_rate)


def read_header(path: Path) -> Header:
    """What a file states about itself; an empty `Header` where it cannot be read."""
    with suppress(AudioError, OSError), _open(path) as file:
        return ffmpeg.read_header(file)
    return Header()


def holds_audio(path: Path) -> bool:
    """Whether a file begins, after tags, with audio of a length that its header states."""
    with suppress(AudioError, OSError), _open(path) as file:
        return begins_audio(file, 0) and ffmpeg.read_header(file).duration_s > 0
    return False


def _open(path: Path) -> FileIO:
    """Open a regular file; `AudioError` for the file's own fault, `OSError` for the machine's."""
    try:
        about = path.stat()  # before opening, which waits for the other end of a pipe
        if not stat.S_ISREG(about.st_mode):
            raise AudioError("a folder, pipe or device: give a file")
        if about.st_size == 0:
            raise AudioError(f"empty file (0 bytes); {ffmpeg.AGAIN}")
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        raise AudioError(NOT_UTF8 if NOT_TEXT in str(path) else MISSING) from None
    except OSError as error:
        if error.errno in SYSTEM_ERRORS:
            raise
        raise AudioError(f"unreadable audio ({error.strerror}); {CHECK}") from None


def _check_audio(blocks: Blocks) -> Blocks:
    seconds, lowest, highest = 0.0, math.inf, -math.inf
    for rate, block in blocks:
        if not LOWEST_HZ <= rate <= HIGHEST_HZ:
            raise AudioError(f"states a sample rate of {rate:,} Hz; {ffmpeg.AGAIN}")
        low, high = float(block.min()), float(block.max())  # NaN where there is one
        if not math.isfinite(high - low):
            raise AudioError("holds values that are not numbers (NaN or infinity); export it again")
        seconds += len(block) / rate
        lowest, highest = min(lowest, low), max(highest, high)
        yield rate, block
    if seconds < SHORTEST_S:
        raise AudioError(f"shorter than {SHORTEST_S} s ({1000 * seconds:.1f} ms); {ffmpeg.REPLACE}")
    if highest - lowest < QUIETEST:
        raise AudioError(f"silent (mixed to mono), under one 16-bit step; {ffmpeg.REPLACE}")


def _resample(blocks: Blocks, sample_rate: int) -> Iterator[np.ndarray]:
    """The blocks resampled to `sample_rate`; the division into blocks changes no sample."""
    import soxr

    end = np.empty(0, np.float32)
    for rate, group in itertools.groupby(blocks, key=itemgetter(0)):
        samples = (block for _, block in group)
        if rate == sample_rate:
            yield from samples
            continue
        resampler = soxr.ResampleStream(rate, sample_rate, 1, "float32", "HQ")
        for block in itertools.chain(samples, [end]):
            resampled = resampler.resample_chunk(block, last=block is end)
            if len(resampled):
                yield resampled


def _decode_by_soundfile(file: FileIO, head: bytes) -> Blocks:
    import soundfile

    # Of joined files, libsndfile reads only the first or decodes headers as sound.
    if head[:4] in (b"RIFF", b"RIFX", b"FORM"):
        size = int.from_bytes(head[4:8], "little" if head[:4] == b"RIFF" else "big")
        is_joined = size > 100 and begins_audio(file, 8 + size)  # a stream's header states less
    else:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            is_joined = content.find(head[:8], 8) > 0
    if is_joined:
        raise AudioError(JOINED)
    file.seek(0)
    try:
        with soundfile.SoundFile(file) as sound:  # a descriptor means nothing to it on Windows
            for stated, there in SIZES.findall(sound.extra_info):  # libsndfile only logs them
                if int(stated) not in UNKNOWN_BYTES:
                    ffmpeg.check_size(int(stated), int(there), SIZE_TOLERANCE)
            n_samples = 0
            while len(samples := sound.read(BLOCK, "float32", always_2d=True)):
                n_samples += len(samples)
                yield sound.samplerate, samples.mean(axis=1)
            ffmpeg.check_size(sound.frames, n_samples, what="samples")
    except (AudioError, soundfile.SoundFileError) as error:
        file.seek(0)
        while file.read(1 << 20):  # raises the disk errors that libsndfile hides
            pass
        if isinstance(error, AudioError):
            raise
        reason = str(error).rsplit(": ", 1)[-1].rstrip(".")
        raise AudioError(f"unreadable audio ({reason}); {ffmpeg.AGAIN}") from None
