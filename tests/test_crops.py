"""Crops and windows: pure functions of seed, epoch and clip."""

from itertools import chain

import numpy as np
import pytest
import torch

from jetatag.config import RunConfig
from jetatag.data.crops import Crops, batches, crop_starts, middle_starts, window_starts
from jetatag.data.memory import RUNS_PER_GPU
from jetatag.training.data import Audio
from jetatag.training.device import RESERVE, fits, inference_batch

IDS = [str(i) for i in range(4000)]


def test_a_crop_depends_on_seed_epoch_and_clip_alone():
    lengths = np.full(4000, 160_000)
    starts = crop_starts(lengths, 59_049, 0, 3, IDS)
    order = np.random.default_rng(1).permutation(4000)
    shuffled = crop_starts(lengths, 59_049, 0, 3, [IDS[i] for i in order])
    np.testing.assert_array_equal(shuffled, starts[order])
    assert (crop_starts(lengths, 59_049, 1, 3, IDS) != starts).mean() > 0.99
    assert (crop_starts(lengths, 59_049, 0, 4, IDS) != starts).mean() > 0.99


def test_crops_are_uniform_and_within_the_clip():
    starts = crop_starts(np.full(4000, 1_009), 10, 5, 0, IDS)
    assert starts.min() >= 0 and starts.max() <= 999
    counts = np.histogram(starts, bins=10, range=(0, 1000))[0]
    assert abs(counts - 400).max() < 80
    neighbours = crop_starts(np.full(4000, 1_009), 10, 5, 1, IDS)
    assert abs(np.corrcoef(starts, neighbours)[0, 1]) < 0.06


def test_crops_of_short_clips_start_at_zero():
    assert crop_starts(np.array([5, 10]), 10, 0, 0, ["a", "b"]).tolist() == [0, 0]
    assert window_starts(5, 10, 4).tolist() == [0, 0, 0, 0]
    assert middle_starts(np.array([5, 20]), 10).tolist() == [0, 5]


def test_even_windows_end_with_the_clip_and_as_coded_ones_do_not():
    even = window_starts(465_984, 80_000, 16)
    assert even[0] == 0 and even[-1] + 80_000 == 465_984 and len(even) == 16
    coded = window_starts(465_984, 80_000, 16, "as_coded")
    assert coded[1] == (465_984 - 80_000) // 16 and coded[-1] + 80_000 < 465_984


def test_batches_hold_every_clip_once_in_nearly_equal_sizes():
    for n_clips in (1, 15, 16, 17, 100):
        parts = batches(n_clips, 16, 0, 2, shuffle=True)
        assert sorted(chain.from_iterable(parts)) == list(range(n_clips))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        assert max(map(len, parts)) <= 16
    assert batches(20, 16, 0, 0, True) != batches(20, 16, 0, 1, True)
    assert list(chain.from_iterable(batches(20, 16, 0, 1, False))) == list(range(20))


def test_crops_taken_together_equal_those_taken_alone(tiny_store):
    crops = Crops(tiny_store, tiny_store.rows("train"), 16_000, seed=0, epoch=1)
    together = crops.take([3, 0, 7])
    assert together.shape == (3, 16_000) and together.dtype == torch.float32
    torch.testing.assert_close(together[2:], crops.take([7]), rtol=0, atol=0)


@pytest.mark.parametrize(("resident", "ahead"), [(True, False), (False, True), (False, False)])
def test_audio_is_the_same_wherever_the_store_is(tiny_store, rng, resident, ahead):
    """Gathered from the whole store on the device, read ahead by a thread, or read when asked for:
    the crops are equal to the last bit, padding included."""
    audio = Audio(tiny_store, torch.device("cpu"), resident)
    assert not audio.reads_ahead
    audio.reads_ahead = ahead
    rows = [rng.integers(0, len(tiny_store), n) for n in (5, 4, 5, 1)]
    requests = [(own, rng.integers(0, 32_000, len(own))) for own in rows]
    read = [*audio.batches(iter(requests), 20_000)]
    assert len(read) == len(requests)
    for (own, starts), crops in zip(requests, read, strict=True):
        assert crops.dtype == torch.float32
        np.testing.assert_array_equal(crops, tiny_store.read(own, starts, 20_000))


def test_the_store_goes_to_a_gpu_that_has_room_beside_the_reserve(monkeypatch):
    gpu, free = torch.device("cuda:0"), 140 * 2**30
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, free))
    assert fits(free - RESERVE, gpu) and not fits(free - RESERVE + 1, gpu)
    assert not fits(1, torch.device("cpu"))
    with monkeypatch.context() as shared:
        shared.setenv(RUNS_PER_GPU, "2")  # although all is free when this run starts
        assert fits(free // 2 - RESERVE, gpu) and not fits(free // 2 - RESERVE + 1, gpu)
    config = RunConfig()  # at its sizes the layer's values, not its memory, are the limit
    assert inference_batch(config, gpu, least=16) == 2**31 // (128 * 80_000) == 209
    free = 4 * 2**30
    assert inference_batch(config, gpu, least=4) == 8
    assert inference_batch(config, gpu, least=16) == 16
    assert inference_batch(config, torch.device("cpu"), least=16) == 16
