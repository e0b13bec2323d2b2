"""Decoding by FFmpeg (PyAV), of every second that a file holds.

FFmpeg is given an open file without a name and a fixed list of formats: the content alone decides
what a file is, and nothing in it can lead to another file. FFmpeg decodes as far as a file goes and
does not say which lengths were stated and which it estimated, so that truncation is found here.
"""

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from io import FileIO
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from av import AudioFifo, AudioFrame, AudioStream, Packet
    from av.container import InputContainer

FORMATS = "mp3,flac,ogg,mov,matroska,asf,aac,ac3,eac3,voc"
"""FFmpeg's names of the formats that are read."""
UNRECOGNISED = "not recognised as audio (WAV, AIFF, FLAC, Ogg, MP3, AAC, MP4, WebM, WMA, AC-3, VOC)"
OTHER_PARTS = "joined from parts of different formats, or damaged: split it into its parts"
ENCRYPTED = "encrypted (DRM), so that it cannot be decoded"
PROTECTED_CODECS = {"drms", "enca", "aavd"}
"""MP4 codec tags of FairPlay, Common Encryption and Audible."""
TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")
"""How metadata begins that may lie between the packets of an MP3."""
TOLERANCE_S = 0.1
"""Gaps that are no damage; how early a file may end before the duration that it states."""
BUFFER = 1 << 18
"""Bytes that FFmpeg reads at a time."""


class AudioError(ValueError):
    """A file that cannot be used as audio; the message says why, in one sentence."""


class AudioWarning(UserWarning):
    """A file is used although parts of it could not be decoded."""


class Header(NamedTuple):
    """What a file says of itself; empty where it does not."""

    duration_s: float = 0.0
    artist: str = ""
    title: str = ""


def decode(file: FileIO, block: int) -> Iterator[tuple[int, np.ndarray]]:
    """Sample rate (Hz) and samples, (n_samples,) float32, in blocks of at least `block` samples;
    channels are averaged. The rate changes where the parts of a joined MP3 differ."""
    import av

    states_duration = _check_bytes(file)
    with _open(file) as container:
        fifo, shape = av.AudioFifo(), None
        for frame in _frames(container, str(file.name), states_duration):
            new = frame.sample_rate, frame.layout.nb_channels, frame.format.name
            if new != shape:
                if shape and container.format.name in ("flac", "ogg"):
                    raise AudioError(OTHER_PARTS)  # FFmpeg would repeat or drop some of it
                yield from _drain(fifo)
                fifo, shape = av.AudioFifo(), new
                pack = av.AudioResampler(frame.format.packed).resample
            frame.pts = None  # a FIFO would refuse gaps
            # PyAV reads out of bounds in planar frames of 8 channels or more.
            for safe in [frame] if new[1] < 8 else pack(frame):
                fifo.write(safe)
            if fifo.samples >= block:
                yield from _drain(fifo)
        yield from _drain(fifo)


def read_header(file: FileIO) -> Header:
    """Duration, stated or estimated by FFmpeg, artist and title."""
    with _open(file) as container:
        texts = [container.metadata, *(stream.metadata for stream in container.streams.audio)]
        tags = {name.lower(): text for each in texts for name, text in each.items()}
        duration_s = (container.duration or 0) / 1e6
        return Header(duration_s, tags.get("artist", ""), tags.get("title", ""))


def _open(file: FileIO) -> "InputContainer":
    import av

    def seek(offset: int, whence: int = 0) -> int:
        try:
            return file.seek(offset, whence)
        except (OSError, OverflowError):  # a damaged index leads outside the file
            return -1

    file.seek(0)
    nameless = SimpleNamespace(read=file.read, seek=seek, tell=file.tell)
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}
    try:
        return av.open(
            nameless, container_options=options, metadata_errors="replace", buffer_size=BUFFER
        )
    except av.FFmpegError:
        raise AudioError(UNRECOGNISED) from None


def _sound_track(container: "InputContainer") -> "AudioStream":
    track = container.streams.best("audio")
    if track is None:
        raise AudioError("holds no sound track")
    codec = track.codec_context
    if codec is None:
        raise AudioError("its sound track is of a kind that FFmpeg cannot decode")
    with suppress(UnicodeDecodeError):  # a damaged tag
        if codec.codec_tag in PROTECTED_CODECS:
            raise AudioError(ENCRYPTED)
    if codec.name == "flac":
        codec.options = {"err_detect": "crccheck+explode"}  # else damage is decoded to noise
    return track


def _drain(fifo: "AudioFifo") -> Iterator[tuple[int, np.ndarray]]:
    """All that a FIFO holds, as one block."""
    if frame := fifo.read():
        samples = frame.to_ndarray()
        if frame.format.is_packed:  # (1, sample * channel), else (channel, sample)
            samples = samples.reshape(-1, frame.layout.nb_channels).T
        mono = samples.mean(axis=0, dtype=np.float32)
        if samples.dtype == np.uint8:
            mono = (mono - 128) / 128
        elif samples.dtype.kind == "i":
            mono /= 2 ** (8 * samples.itemsize - 1)
        yield frame.sample_rate, mono


@dataclass
class _Tally:
    """What was decoded of a sound track: seconds, and bytes of good and of damaged packets."""

    seconds: float = 0.0
    good: int = 0
    damaged: int = 0
    trailing: int = 0
    """Damaged, behind the last good packet: anything may follow the sound."""
    is_cut: bool = False
    last: "dict[int, Packet]" = field(default_factory=dict)
    """The last good packet of each stream."""

    def count(self, packet: "Packet") -> None:
        self.good, self.damaged = self.good + packet.size, self.damaged + self.trailing
        self.trailing, self.is_cut = 0, packet.is_corrupt
        self.last[packet.stream_index] = packet

    def skip(self, packet: "Packet") -> None:
        if packet.has_sidedata("encryption_info"):
            raise AudioError(ENCRYPTED)
        self.is_cut = packet.is_corrupt
        if not bytes(packet).startswith(TAGS):
            self.trailing += packet.size


def _frames(
    container: "InputContainer", name: str, states_duration: bool
) -> Iterator["AudioFrame"]:
    """Decode the main sound track and skip its damaged packets."""
    import av

    track, tally = _sound_track(container), _Tally()
    try:
        for packet in container.demux():
            if packet.stream_index != track.index:
                if packet.size:  # the last one of each stream is empty
                    tally.last[packet.stream_index] = packet
                continue
            try:
                frames = packet.decode()
            except av.FFmpegError:
                tally.skip(packet)
                track.codec_context.flush_buffers()  # an MP3 would go on with a burst of noise
                continue
            for frame in frames:
                tally.seconds += frame.samples / frame.sample_rate
                yield frame
            if packet.size:
                tally.count(packet)
    except av.FFmpegError:
        raise AudioError(OTHER_PARTS) from None
    _check_end(tally, name, track, (container.duration or 0) / 1e6 if states_duration else 0)


def _check_end(tally: _Tally, name: str, track: "AudioStream", stated_s: float) -> None:
    """Refuse (`AudioError`) what is truncated or mostly damaged, and warn of other damage."""
    if tally.good <= tally.damaged:
        raise AudioError(f"{UNRECOGNISED}, or damaged: most of it cannot be decoded")
    tolerance_s = 1e-5 if track.codec_context.name == "flac" else TOLERANCE_S
    ends = {
        stream: float(((packet.pts or 0) + (packet.duration or 0)) * packet.time_base)
        for stream, packet in tally.last.items()
    }
    if tally.is_cut or stated_s - max(tally.seconds, *ends.values()) > tolerance_s:
        raise AudioError(f"truncated: its sound ends after {tally.seconds:.2f} s")
    gap_s = ends[track.index] - float((track.start_time or 0) * track.time_base) - tally.seconds
    if tally.damaged or gap_s > tolerance_s:
        lost = f"{tally.damaged:,} bytes" if tally.damaged else f"{gap_s:.2f} s"
        warnings.warn(f"{name} is damaged: {lost} were skipped.", AudioWarning, stacklevel=2)


# What a file states

HEAD = 1 << 16
"""Bytes of a header that are read; an Ogg page is no longer."""
TEXT = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]+")
XING = re.compile(rb"\xff[\xe2-\xff].{11,36}(?:Xing|Info)\0\0\0(.)(.{8})", re.S)
VBRI = re.compile(rb"\xff[\xe2-\xff].{34}VBRI.{6}(.{4})", re.S)
MP3_FRAME = 1_441
"""Bytes of an MP3 frame at most (ISO 11172-3)."""
MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")
ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
ASF_ENCRYPTION = bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e")


def read_head(file: FileIO) -> tuple[int, bytes]:
    """Offset of the first byte behind all ID3v2 tags, and the `HEAD` bytes from there."""
    start = 0
    while True:
        file.seek(start)
        head = file.read(HEAD)
        if head[:3] != b"ID3" or len(head) < 10:
            return start, head
        start += 10 + sum(b << shift for b, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))


def _check_bytes(file: FileIO) -> bool:
    """Refuse (`AudioError`) text, encrypted WMA, and files of fewer bytes than they state. Returns
    whether the duration that FFmpeg will name is one that the file states."""
    size = os.fstat(file.fileno()).st_size
    start, head = read_head(file)
    if TEXT.fullmatch(head):
        raise AudioError("not recognised as audio: it is text, such as a playlist or a web page")
    if head[4:8] in MP4_BOXES:
        _check_boxes(file, start, size)
    elif head.startswith(b"OggS"):
        _check_last_page(file, size)
    elif head.startswith(ASF):
        _check_size(_asf_size(head), size)
    elif found := VBRI.search(head):
        _check_size(int.from_bytes(found[1]), size - start - found.start(), MP3_FRAME)
    elif found := XING.search(head):
        flags, fields = found[1][0], found[2]  # 1: it states frames, 2: and bytes
        if not flags & 2:
            return bool(flags & 1)
        stated = int.from_bytes(fields[4:] if flags & 1 else fields[:4])
        _check_size(stated, size - start - found.start(), MP3_FRAME)
    return head.startswith((b"fLaC", b"\x1a\x45\xdf\xa3"))


def _check_size(stated: int, there: int, tolerance: int = 0) -> None:
    if there + tolerance < stated:
        raise AudioError(f"truncated: {there:,} of {stated:,} bytes are there")


def _asf_size(head: bytes) -> int:
    """Bytes that a WMA states (ASF specification, 3.2); 0 for a broadcast."""
    if ASF_ENCRYPTION in head:
        raise AudioError(ENCRYPTED)
    properties = head[head.find(ASF_PROPERTIES) :]
    is_broadcast = int.from_bytes(properties[88:92], "little") & 1
    return 0 if is_broadcast else int.from_bytes(properties[40:48], "little")


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
            break  # something else behind the last box
        kinds.append(kind)
        start += length or size - start  # 0: up to the end
    _check_size(start, size)
    if b"moov" not in kinds:
        raise AudioError("truncated: the MP4's index (its moov box) is missing")
    if kinds.count(b"moov") > 1:
        raise AudioError("joined from several MP4 files: split it into its parts")


def _check_last_page(file: FileIO, size: int) -> None:
    """Ogg (RFC 3533): the last page is whole and marked as the end of its stream."""
    file.seek(max(0, size - 2 * HEAD))
    tail = file.read()
    page = tail[tail.rfind(b"OggS\0") :]
    if page.startswith(b"OggS"):
        sizes = page[27 : 27 + page[26]] if len(page) > 26 else b""
        is_whole = sizes and len(page) >= 27 + len(sizes) + sum(sizes)
        if not (is_whole and page[5] & 4):
            raise AudioError("truncated: its end is not marked as such")
