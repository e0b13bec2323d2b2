"""The benchmark's rows on a tiny network; their times are printed and not judged."""

import importlib.util
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import steps

from jetatag.config import RunConfig


@pytest.fixture
def bench(monkeypatch):
    spec = importlib.util.spec_from_file_location("bench", Path(__file__).with_name("bench.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, value in {"SECONDS": 0.0, "MIN_ROUNDS": 1}.items():
        monkeypatch.setattr(steps, name, value)
    monkeypatch.setitem(steps.PRODUCT_SIZE, "cpu", 256)
    return module


def test_rows_say_what_was_measured(bench):
    config = RunConfig(extractor="sample_cnn", width=4, batch_size=2, device="cpu")
    rows = {mode: steps.measure(config, mode) for mode in steps.MODES}
    for mode, row in rows.items():
        print(row)
        assert (row["extractor"], row["mode"], row["batch"]) == ("sample_cnn", mode, 2)
        assert row["device"] == steps.cpu_type() and row["crop_samples"] == 59_049
        assert row["clips_per_s"] == pytest.approx(2 / row["seconds"])
        work = row["seconds"] * row["limit_gflop_per_s"] * row["share_of_limit"]
        assert work == pytest.approx(row["gflop"])
    # Twice the multiply-adds of each convolution and of the dense layer, by hand.
    channels, frames, n = [4, 4, 4, 8, 8, 8, 8, 8, 8, 16], 59_049 // 3, 0
    n += 3 * 1 * 4 * frames
    for n_in, n_out in itertools.pairwise(channels):
        n += 3 * n_in * n_out * frames
        frames //= 3
    n += 32 * 32
    assert rows["infer"]["gflop"] == pytest.approx(2 * 2 * n / 1e9)
    assert rows["train"]["gflop"] > 2.5 * rows["infer"]["gflop"]  # backward, heads


def test_operations_of_a_run_are_those_of_its_crops(bench):
    small = {"extractor": "sample_cnn", "width": 4, "method": "je", "pair_loss": "cosine"}
    config = RunConfig(**small, crop_samples=59_049)
    told, n_clips = bench.operations(config), bench.MTAT["train"]
    assert told["steps"] == pytest.approx(told["a step and crop"] * 100 * n_clips)
    assert told["passes"] == pytest.approx(told["a pass and crop"] * 200 * n_clips)
    assert told["a step and crop"] > 2.5 * told["a pass and crop"] > 0


def test_noise_feeds_like_any_store(bench, tmp_path):
    store = steps.noise_store(tmp_path, n_clips=10, duration_s=1)
    assert store.read([9], [8_000], 16_000).shape == (1, 16_000)
    assert len(store.rows("train")) == 9 and store.labels.shape == (10, steps.N_TAGS)


def test_the_tagger_is_timed_from_files(bench, tmp_path):
    config = RunConfig(extractor="sample_cnn", width=4, device="cpu")
    run = bench.untrained_run(tmp_path / "run", config)
    noise = 0.1 * np.random.default_rng(0).standard_normal(80_000)
    soundfile.write(tmp_path / "a.wav", noise, 16_000)
    taken, worked, peak = bench.tagger_seconds(run, [tmp_path / "a.wav"] * 3)
    assert 0 < taken < 60 and 0 < worked < 60 and peak > 100


@pytest.mark.parametrize("mode", steps.MODES)
def test_a_step_beside_the_original_is_timed_at_each_line(mode):
    script = Path(__file__).with_name("original_steps.py")
    command = [sys.executable, script, "jetatag", "sample_cnn", mode]
    done = subprocess.run(command, input="\n\n", capture_output=True, text=True, check=True)
    seconds = [float(line) for line in done.stdout.splitlines()]
    assert len(seconds) == 2 and min(seconds) > 0.01
