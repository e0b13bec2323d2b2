"""Words spoken by eSpeak NG, offline; `espeakng_loader` brings the library and its data.

The synthesiser makes breath noise with its own generator, seeded by the clock, and other noise with
libc's `rand()`, and keeps state between calls. So every word is spoken in a forked child process
that seeds both first, and the same arguments give the same bytes.
"""

import ctypes
import os
import signal

import numpy as np
import pytest
from scipy.signal import resample_poly

SYNCHRONOUS, UTF8, SPEED, PITCH = 2, 1, 1, 3  # speak_lib.h
TIMEOUT_S = 20
OFFICIAL_RATE = 16_000
VOICES = [f"en-us+{variant}" for variant in ("f1", "f2", "f3", "f5", "m1", "m3", "m4", "m7")]
CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


def speak(
    word: str, voice: str = "en-us", pitch: int = 50, speed: int = 175, seed: int = 0
) -> tuple[np.ndarray, int]:
    """`word` as (n_samples,) float32 in [-1, 1] and its rate (Hz).

    voice : such as en-us+f2 or en-us+m3; pitch : 0 … 99; speed : words a minute.
    """
    espeak = pytest.importorskip("espeakng_loader", reason="espeakng-loader is not installed")
    library, data = str(espeak.get_library_path()), str(espeak.get_data_path())
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(TIMEOUT_S)  # ends a child that hangs
            os.close(reading)
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(_speak_here(library, data, word, voice, pitch, speed, seed))
            os._exit(0)
        finally:
            os._exit(1)  # after any error, so that the child does not continue as a second pytest
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        output = pipe.read()
    _, status = os.waitpid(child, 0)
    if status or len(output) < 4:
        raise RuntimeError(f"eSpeak could not say {word!r} as {voice!r}")
    rate, samples = np.frombuffer(output[:4], np.int32), np.frombuffer(output[4:], np.int16)
    return samples.astype(np.float32) / 32_768, int(rate[0])


def one_second(samples: np.ndarray, rate: int) -> np.ndarray:
    """Speech as in the official clips: (16_000,) float32, padded with silence or cut."""
    step = np.gcd(rate, OFFICIAL_RATE)
    samples = resample_poly(samples, OFFICIAL_RATE // step, rate // step)[:OFFICIAL_RATE]
    return np.pad(samples, (0, OFFICIAL_RATE - len(samples))).astype(np.float32)


def spoken(word: str, speaker: int) -> np.ndarray:
    """`word` by one of many speakers, who differ in voice, pitch and speed."""
    rng = np.random.default_rng(speaker)
    pitch, speed = int(rng.integers(30, 70)), int(rng.integers(150, 210))
    return one_second(*speak(word, VOICES[speaker % len(VOICES)], pitch, speed, seed=speaker))


def _speak_here(
    library: str, data: str, word: str, voice: str, pitch: int, speed: int, seed: int
) -> bytes:
    """Speak in this process: the rate as int32, then the samples as int16."""
    espeak, samples_so_far = ctypes.CDLL(library), bytearray()

    @CALLBACK
    def receive(samples, n_samples, events):
        if samples:
            samples_so_far.extend(ctypes.string_at(samples, 2 * n_samples))
        return 0

    rate = espeak.espeak_Initialize(SYNCHRONOUS, 0, os.fsencode(data), 0)
    espeak.espeak_SetSynthCallback(receive)
    if rate <= 0 or espeak.espeak_SetVoiceByName(voice.encode()):
        return b""
    espeak.espeak_SetParameter(PITCH, pitch, 0)
    espeak.espeak_SetParameter(SPEED, speed, 0)
    espeak.espeak_ng_SetRandSeed(ctypes.c_long(seed))
    ctypes.CDLL(None).srand(seed)
    text = word.encode()
    espeak.espeak_Synth(text, ctypes.c_size_t(len(text) + 1), 0, 0, 0, UTF8, None, None)
    espeak.espeak_Synchronize()
    return np.int32(rate).tobytes() + bytes(samples_so_far)
