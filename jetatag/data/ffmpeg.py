"""Decoding with FFmpeg (PyAV): all audio that a file contains, or the reason why it cannot be used.

FFmpeg gets an open file without a name and a fixed list of formats, so that no file can refer to
another. Truncation is detected here, because FFmpeg decodes whatever is there.
"""

import itertools
import math
import mmap
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import FileIO
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import av

FORMATS = "mp3,flac,ogg,mov,matroska,asf,aac,ac3,eac3,voc,wav,aiff,caf,au,w64"  # FFmpeg's names
KINDS = "WAV, AIFF, FLAC, Ogg, MP3, AAC, MP4, WebM, WMA, AC-3, VOC"
AGAIN, REPLACE = "copy the file again", "use another recording"
UNRECOGNISED = f"unreadable: not recognised as audio ({KINDS}); convert or remove it"
ENCRYPTED = "encrypted (DRM); get it without copy protection"
JOINED = "joined from several files: split it"
PROTECTED_CODECS = {"drms", "enca", "aavd"}  # MP4: FairPlay, Common Encryption, Audible
TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")  # metadata that may lie between MP3 packets
TOLERANCE_S = 0.1  # longer gaps are damage, and sound that ends earlier than stated is truncated
OnDamage = Callable[[str], object]  # is called with a description of what was skipped


class AudioError(ValueError):
    """A file that cannot be used as audio; the message says why and what to do."""


class Header(NamedTuple):
    """What a file states about itself; 0 or empty where it states nothing."""

    duration_s: float = 0.0
    artist: str = ""
    title: str = ""


def decode(file: FileIO, block: int, on_damage: OnDamage) -> Iterator[tuple[int, np.ndarray]]:
    """Sample rate (Hz) and samples, (n_samples,) float32, in blocks of `block` samples or more,
    except the last; channels are averaged. The rate changes if files of different rates have been
    joined."""
    import av

    # A FIFO takes frames of one kind.
    kind = attrgetter("layout.nb_channels", "sample_rate", "format.name", "time_base")
    for _, frames in itertools.groupby(_all_frames(file, on_damage), key=kind):
        fifo = av.AudioFifo()
        for frame in frames:
            frame.pts = None  # a FIFO refuses gaps
            fifo.write(frame)
            if fifo.samples >= block:
                yield _to_mono(fifo.read())
        if fifo.samples:
            yield _to_mono(fifo.read())


def _to_mono(frame: "av.AudioFrame") -> tuple[int, np.ndarray]:
    import av

    n_channels = frame.layout.nb_channels
    # PyAV reads out of bounds in planar frames of 8 channels or more.
    (frame,) = av.AudioResampler("fltp" if n_channels < 8 else "flt").resample(frame)
    samples = frame.to_ndarray().reshape((n_channels, -1), order="F")
    return frame.sample_rate, samples.mean(axis=0)


def read_header(file: FileIO) -> Header:
    """What a file states; raises `AudioError` for one of no known format."""
    brief = {"max_probe_packets": "1"}  # otherwise FFmpeg looks for DTS in a WAV
    with _open(file, 0, _size(file), **brief) as container:
        texts = [container.metadata, *(stream.metadata for stream in container.streams.audio)]
        tags = {name.lower(): text for each in texts for name, text in each.items()}
        artist = tags.get("artist") or tags.get("author", "")  # the latter in AIFF
        return Header((container.duration or 0) / 1e6, artist, tags.get("title", ""))


def _all_frames(file: FileIO, on_damage: OnDamage) -> Iterator["av.AudioFrame"]:
    """Decode joined files and the links of chained Oggs one by one: FFmpeg loses frames between
    FLACs and stops when the codec, rate or channels change."""
    states_duration = _check_bytes(file)
    for start, end in itertools.pairwise([0, *_joints(file), _size(file)]):
        with _open(file, start, end) as container:
            yield from _frames(container, on_damage, states_duration)


def _open(file: FileIO, start: int, end: int, **options: str) -> "av.container.InputContainer":
    import av

    options |= {"format_whitelist": FORMATS, "protocol_whitelist": "none"}
    how = {"metadata_errors": "replace", "buffer_size": 1 << 18}
    try:
        return av.open(_Part(file, start, end), container_options=options, **how)
    except av.FFmpegError:
        raise AudioError(UNRECOGNISED) from None


class _Part:
    """The bytes from `start` to `end` of an open file, as a file without a name."""

    def __init__(self, file: FileIO, start: int, end: int) -> None:
        self._file, self._start, self._end = file, start, end
        file.seek(start)

    def read(self, n_bytes: int) -> bytes:
        return self._file.read(max(0, min(n_bytes, self._end - self._file.tell())))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        position = offset + (self._start, self._file.tell(), self._end)[whence]
        if not self._start <= position <= self._end:
            return -1  # a damaged index may point anywhere
        return self._file.seek(position) - self._start

    def tell(self) -> int:
        return self._file.tell() - self._start


def _sound_track(container: "av.container.InputContainer") -> "av.AudioStream":
    track = container.streams.best("audio")
    if track is None:
        raise AudioError(f"holds no sound track; {REPLACE}")
    codec = track.codec_context
    if codec is None:
        raise AudioError("its sound track is in a format that FFmpeg cannot decode; convert it")
    with suppress(UnicodeDecodeError):  # a damaged tag
        if codec.codec_tag in PROTECTED_CODECS:
            raise AudioError(ENCRYPTED)
    if codec.name == "flac":
        codec.options = {"err_detect": "crccheck+explode"}  # otherwise damage becomes noise
    return track


def _frames(
    container: "av.container.InputContainer", on_damage: OnDamage, is_stated: bool
) -> Iterator["av.AudioFrame"]:
    """Decode the main sound track and skip its damaged packets. Raises `AudioError` for a file that
    is truncated (where its duration is stated) or mostly damaged."""
    import av

    track, seconds, is_cut = _sound_track(container), 0.0, False
    good, damaged = 0, 0  # bytes of packets
    trailing = 0  # bytes damaged after the last good packet, which need not be audio
    last = {}  # good packet of each stream
    try:
        for packet in container.demux():
            is_sound = packet.stream_index == track.index
            try:
                frames = packet.decode() if is_sound else []
            except av.FFmpegError:
                if packet.has_sidedata("encryption_info"):
                    raise AudioError(ENCRYPTED) from None
                is_cut = packet.is_corrupt
                trailing += 0 if bytes(packet).startswith(TAGS) else packet.size
                track.codec_context.flush_buffers()  # otherwise noise follows in an MP3
                continue
            for frame in frames:
                seconds += frame.samples / frame.sample_rate
                yield frame
            if packet.size:  # the last one of each stream is empty
                last[packet.stream_index] = packet
            if packet.size and is_sound:
                good, damaged = good + packet.size, damaged + trailing
                trailing, is_cut = 0, packet.is_corrupt
    except av.FFmpegError:
        raise AudioError(f"damaged: nothing can be read after {seconds:.2f} s; {AGAIN}") from None
    if good <= damaged:
        raise AudioError(f"unreadable: not audio, or most of it cannot be decoded; {AGAIN}")
    duration_s = (container.duration or 0) / 1e6
    tolerance_s = 1e-5 if track.codec_context.name == "flac" else TOLERANCE_S
    ends = {
        stream: float(((packet.pts or 0) + (packet.duration or 0)) * packet.time_base)
        for stream, packet in last.items()
    }
    is_cut &= container.format.name != "wav"  # whose size is not stated
    if is_cut or (is_stated and duration_s - max(seconds, *ends.values()) > tolerance_s):
        raise AudioError(f"truncated: its sound ends after {seconds:.2f} s; {AGAIN}")
    end_s = min(ends[track.index], duration_s or math.inf)  # Ogg: the last packet may seem endless
    gap_s = end_s - float((track.start_time or 0) * track.time_base) - seconds
    if damaged or gap_s > tolerance_s:
        lost = f"{damaged:,} bytes" if damaged else f"{gap_s:.2f} s"
        on_damage(f"damaged: {lost} were skipped")


# Lengths that files state, read here because FFmpeg decodes a cut file without an error

HEAD = 1 << 16  # bytes read of a header, more than the longest Ogg page has
TEXT = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]+")
ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
JOINTS = {
    b"OggS": re.compile(rb"OggS\x00[\x02\x06]\x00{8}.{12}\x01(.)", re.S),
    b"\x1a\x45\xdf\xa3": re.compile(rb"\x1a\x45\xdf(\xa3).{5,40}?(?:webm|matroska)", re.S),
    ASF[:4]: re.compile(re.escape(ASF[:15]) + b"(\x6c)"),
    b"fLaC": re.compile(rb"fLaC[\x00\x80]\x00\x00(\x22)"),
    b"RIFF": re.compile(rb"RIFF....WAVEfmt( )", re.S),
    b"ftyp": re.compile(rb"\x00\x00\x00.ftyp(.)", re.S),
}
"""First bytes of files that may be joined; in Ogg, to the page's size."""
BEGINNINGS = re.compile(
    rb"RIF[FX]|RF64|FORM|caff|\.snd|dns\.|riff|fLaC|OggS|\x1a\x45\xdf\xa3|0&\xb2\x75|"
    rb"....ftyp|\x0b\x77|Creative Voice|\xff[\xe2-\xfd]",
    re.S,
)
"""First bytes of audio files of all kinds."""
XING = re.compile(rb"\xff[\xe2-\xff].{11,36}(?:Xing|Info)\0\0\0(.)(.{8})", re.S)
VBRI = re.compile(rb"\xff[\xe2-\xff].{34}VBRI.{6}(.{4})", re.S)
MP3_FRAME = 1_441  # bytes of the longest MP3 frame (ISO 11172-3)
MP3_HEAD = 8_192  # bytes in which an MP3's header must begin
MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")
ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
ASF_ENCRYPTION = bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e")


def read_head(file: FileIO, start: int = 0) -> tuple[int, bytes]:
    """Offset of the first byte from `start` after all ID3v2 tags, and `HEAD` bytes from there."""
    while True:
        file.seek(start)
        head = file.read(HEAD)
        if head[:3] != b"ID3" or len(head) < 10:
            return start, head
        start += 10 + sum(b << shift for b, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))


def begins_audio(file: FileIO, start: int) -> bool:
    """Whether an audio file seems to begin at the offset `start`."""
    return bool(BEGINNINGS.match(read_head(file, start)[1]))


def _size(file: FileIO) -> int:
    return os.fstat(file.fileno()).st_size


def _joints(file: FileIO) -> list[int]:
    """Offsets of further files, or links of a chained Ogg: of the same kind, or of any kind where
    the first file's kind has no pattern (MP3, AAC, AC-3, VOC)."""
    start, head = read_head(file)
    if head[4:8] in MP4_BOXES:
        return []
    patterns = [JOINTS[head[:4]]] if head[:4] in JOINTS else JOINTS.values()
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found = (page for pattern in patterns for page in pattern.finditer(content))
        pages = sorted((page.start(), page.end() + ord(page[1])) for page in found)
    # A link of several streams begins with one such page for each of them.
    ends = {end for _, end in pages}
    return [begin for begin, _ in pages if begin > start and begin not in ends]


def _check_bytes(file: FileIO) -> bool:
    """Raise `AudioError` for text, encrypted WMA, and files with fewer bytes than they state.
    Returns whether the file states its duration, which FFmpeg may estimate."""
    size = _size(file)
    start, head = read_head(file)
    if TEXT.fullmatch(head):
        raise AudioError(f"unreadable: it is text, such as a playlist or a web page; {REPLACE}")
    if head[4:8] in MP4_BOXES:
        _check_boxes(file, start, size)
    elif head.startswith(b"OggS"):
        _check_last_page(file, size)
    elif head.startswith(ASF):  # ASF specification, 3.2
        if ASF_ENCRYPTION in head:
            raise AudioError(ENCRYPTED)
        properties = head[head.find(ASF_PROPERTIES) :]
        is_broadcast = int.from_bytes(properties[88:92], "little") & 1
        check_size(0 if is_broadcast else int.from_bytes(properties[40:48], "little"), size)
    elif found := VBRI.search(head, 0, MP3_HEAD):
        check_size(int.from_bytes(found[1]), size - start - found.start(), MP3_FRAME)
    elif found := XING.search(head, 0, MP3_HEAD):
        flags, fields = found[1][0], found[2]  # flags: 1 for the number of frames, 2 for bytes
        if not flags & 2:
            return bool(flags & 1)
        stated = int.from_bytes(fields[4:] if flags & 1 else fields[:4])
        check_size(stated, size - start - found.start(), MP3_FRAME)
    return head.startswith((b"fLaC", b"\x1a\x45\xdf\xa3"))


def check_size(stated: int, there: int, tolerance: int = 0, what: str = "bytes") -> None:
    """Raise `AudioError` if more than `tolerance` of what is `stated` is missing."""
    if there + tolerance < stated:
        raise AudioError(f"truncated: {there:,} of {stated:,} {what} are there; {AGAIN}")


def _check_boxes(file: FileIO, start: int, size: int) -> None:
    """MP4 (ISO 14496-12, 4.2): the boxes fit into the file, and one `moov` describes the sound."""
    kinds = []
    while start + 8 <= size:
        file.seek(start)
        header = file.read(16)
        length, kind = int.from_bytes(header[:4]), header[4:8]
        if length == 1:
            length = int.from_bytes(header[8:])
        if not kind.isalnum() or 0 < length < 8:
            if begins_audio(file, start):
                raise AudioError(JOINED)
            break  # no box, but something after the last one
        kinds.append(kind)
        start += length or size - start  # 0: up to the end
    check_size(start, size)
    if b"moov" not in kinds:
        raise AudioError(f"truncated: the MP4's index (its moov box) is missing; {AGAIN}")
    if kinds.count(b"moov") > 1:
        raise AudioError(JOINED)


def _check_last_page(file: FileIO, size: int) -> None:
    """Ogg (RFC 3533): the last page is whole and marked as the end of its stream."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.rfind(b"OggS\0")
        page = content[start : start + HEAD].ljust(27, b"\0")
    sizes = page[27 : 27 + page[26]]
    end = start + 27 + len(sizes) + sum(sizes)
    if not (sizes and end <= size and page[5] & 4):
        raise AudioError(f"truncated: it lacks an end-of-stream page; {AGAIN}")
    if begins_audio(file, end):
        raise AudioError(JOINED)
