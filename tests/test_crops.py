"""Crops and windows: pure functions of seed, epoch and clip."""

from itertools import chain

import numpy as np
import torch

from jetatag.data.crops import Crops, batches, crop_starts, middle_starts, window_starts

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
