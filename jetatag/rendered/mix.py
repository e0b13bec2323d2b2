"""Render MIDI as a recording: SoundFont, room, equaliser, noise and level."""

import io
from pathlib import Path

import midirenderer
import numpy as np
import pretty_midi
import soundfile
from numpy.random import Generator
from scipy import fft

RENDER_RATE = 48_000  # Hz, fixed by midirenderer
BANDS_HZ = np.array([60.0, 150.0, 400.0, 1000.0, 2500.0, 6000.0])  # of the equaliser
LEAD_IN_S = 0.5  # rendered and cut off, so that a clip starts within the music
DRIVE = {-1: 0.1, 0: 0.4, 1: 1.6}  # saturation of quiet, ordinary and loud pieces


class Mix:
    """How an artist's recordings sound, drawn by `rng`."""

    def __init__(self, rng: Generator):
        tilt = rng.uniform(-3, 3) * np.arange(-2.5, 3.0)
        self.sample_rate = int(rng.choice([16_000, 16_000, 16_000, 22_050]))  # Hz
        self.reverb_s = float(rng.uniform(0.2, 2.0))  # time to decay by 60 dB
        self.wet = float(rng.uniform(0.0, 0.6))  # level relative to the direct sound
        self.tone_db = tilt + rng.normal(0, 3, size=len(BANDS_HZ))  # gain at BANDS_HZ
        self.noise_tilt_db = float(rng.uniform(-6, 1))  # per octave
        self.snr_db = float(rng.uniform(8, 27))


def record(midi: bytes, mix: Mix, duration_s: float, dynamic: int, rng: Generator) -> np.ndarray:
    """Render a MIDI file: `duration_s` seconds of mono float32 at `mix.sample_rate`, peak below 1.
    `dynamic` as in `Score`; `rng` varies tone, noise and level from piece to piece."""
    n_samples = round(duration_s * mix.sample_rate)
    dry = _render(midi, duration_s + LEAD_IN_S)
    music = _reverberate(dry, mix, rng)[round(LEAD_IN_S * mix.sample_rate) :][:n_samples]
    music /= np.sqrt(np.mean(music**2)) + 1e-9
    music = np.tanh(DRIVE[dynamic] * music)
    snr_db = np.clip(mix.snr_db + rng.uniform(-4, 4), 5, 30)
    # Gaussian noise whose spectrum falls by `noise_tilt_db` per octave.
    spectrum = fft.rfft(rng.standard_normal(n_samples))
    octaves = np.log2(np.maximum(fft.rfftfreq(n_samples, 1 / mix.sample_rate), 30) / 1000)
    noise = fft.irfft(spectrum * 10 ** (mix.noise_tilt_db * octaves / 20), n_samples)
    noise /= np.sqrt(np.mean(noise**2))
    mixed = music + np.sqrt(np.mean(music**2)) * 10 ** (-snr_db / 20) * noise
    peak_db = rng.uniform(-16, -6) + min(0, 6 * dynamic)
    return (mixed * 10 ** (peak_db / 20) / np.abs(mixed).max()).astype(np.float32)


def _render(midi: bytes, duration_s: float) -> np.ndarray:
    """Mono audio at 48 kHz, padded with silence to `duration_s`."""
    soundfont = Path(pretty_midi.__file__).with_name("TimGM6mb.sf2").read_bytes()
    wav = midirenderer.render_wave_from(soundfont, midi)
    stereo, sample_rate = soundfile.read(io.BytesIO(wav), dtype="float32")
    if sample_rate != RENDER_RATE:
        raise RuntimeError(f"midirenderer gave {sample_rate} Hz, not 48000: install version 0.1.3.")
    mono = stereo.mean(axis=1)
    mono.resize(round(duration_s * RENDER_RATE), refcheck=False)
    return mono


def _reverberate(dry: np.ndarray, mix: Mix, rng: Generator) -> np.ndarray:
    """Resample, equalise and reverberate, all three in one Fourier transform."""
    step = RENDER_RATE // 50  # 20 ms are a whole number of samples at every rate
    n_blocks = fft.next_fast_len(-(-len(dry) // step) + int(50 * mix.reverb_s), real=True)
    n_out = n_blocks * mix.sample_rate // 50
    spectrum = fft.rfft(dry, n_blocks * step)[: n_out // 2 + 1] * (mix.sample_rate / RENDER_RATE)
    tone_db = mix.tone_db + rng.normal(0, 2, size=len(BANDS_HZ))
    hz = fft.rfftfreq(n_out, 1 / mix.sample_rate)
    gain = 10 ** (np.interp(np.log(hz + 1), np.log(BANDS_HZ), tone_db) / 20)
    # The room's impulse response: the direct sound and decaying noise of energy wet².
    time_s = np.arange(int(mix.reverb_s * mix.sample_rate)) / mix.sample_rate
    tail = rng.standard_normal(len(time_s)) * 10 ** (-3 * time_s / mix.reverb_s)
    response = mix.wet * tail / np.sqrt(np.sum(tail**2))
    response[0] += 1.0
    return fft.irfft(spectrum * gain * fft.rfft(response, n_out), n_out)
