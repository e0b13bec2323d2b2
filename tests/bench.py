"""What `make bench` measures; it asserts nothing, and names what each number stands on.

Speeds are of this machine at this moment: read ratios, not seconds. The extractors' rows go into
`benchmarks.json`; each is measured in a process of its own, so that its peak memory is its own.
A row (`steps.measure`) takes the step, from the store to the optimizer, and as long a stretch of
large matrix products in turns, so that both see the same machine, and keeps the median of each.
"""

import argparse
import dataclasses
import itertools
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import original_steps
import pandas as pd
import psutil
import pyarrow as pa
import soundfile
import soxr
import steps
import torch
from steps import MODES, N_TAGS, noise_store

from jetatag import metrics, rendered
from jetatag.apps import indexing, search, tagger
from jetatag.config import Phase, RunConfig, preset
from jetatag.data import Index, Vocabulary, load
from jetatag.data.crops import Crops
from jetatag.data.mtat import KNOWN_CLIPS
from jetatag.data.store import AudioStore, build
from jetatag.evaluation import baselines
from jetatag.extractors import EXTRACTORS
from jetatag.files import write_json
from jetatag.joint.heads import build_model
from jetatag.joint.methods import METHODS, Stage, crop_epochs, phases_by_epoch
from jetatag.training.provenance import peak_memory_mib
from jetatag.training.run import Run
from jetatag.training.train import train


def rate(action: Callable[[], object]) -> float:
    """Calls of `action` a second, after one to warm up."""
    action()
    begun, n_calls = time.perf_counter(), 0
    while time.perf_counter() - begun < steps.SECONDS:
        action()
        n_calls += 1
    return n_calls / (time.perf_counter() - begun)


MTAT = KNOWN_CLIPS["cleaned"]


def operations(config: RunConfig) -> dict[str, float]:
    """What a run on MagnaTagATune computes, in 10¹⁵ operations: its training steps and passes
    through the frozen extractor, validation after every epoch, and all windows at the end."""
    one = config.replace(method="je", pair_loss="cosine", batch_size=2, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        store = noise_store(Path(folder), 4, one.crop_samples / one.sample_rate, one.sample_rate)
        made = [steps.steps(one, store, mode)[0] for mode in MODES]
        step, crop = (steps.count(step) / one.batch_size for step in made)
    n_steps, n_passes, n_windows = 0, 0, config.n_windows * (MTAT["valid"] + MTAT["test"])
    for stage in METHODS[config.method].stages:
        n_epochs = len(phases_by_epoch(stage, config))
        crops = MTAT["train"] * len(set(crop_epochs(stage, config)))
        if stage.frozen:
            n_passes += crops
        else:
            n_steps += crops
        n_windows += MTAT["valid"] * (1 if stage.frozen else n_epochs)
    return {
        "a step and crop": step / 1e15,
        "a pass and crop": crop / 1e15,
        "steps": n_steps * step / 1e15,
        "passes": n_passes * crop / 1e15,
        "validation and windows": n_windows * crop / 1e15,
    }


def kernels(stage: Stage) -> int:
    """Operations in a training step of Harmonic-CNN (`steps.Operations`); stage 2 is on kept
    features."""
    config = RunConfig(width=4, batch_size=4, device="cpu", stage2_crops=1)
    with tempfile.TemporaryDirectory() as folder:
        store = noise_store(Path(folder), 40, config.crop_samples / config.sample_rate)
        step, _ = steps.steps(config, store, "train", stage=stage)
        step()  # makes the optimizer's state, and the features of stage 2
        with steps.Operations() as counted:
            step()
    return counted.n


def bench_cost() -> None:
    """Operations of a whole run of every extractor, as published and fast, with and without JE."""
    rows = []
    for name in EXTRACTORS:
        for which in ("paper", "fast"):
            for method, pair_loss in (("je", "cosine"), ("no_je", "none")):
                cell = {"extractor": name, "method": method, "pair_loss": pair_loss}
                config = preset(which, **cell)
                told = operations(config)
                rows.append({**cell, "preset": which, **told})
    for stage in METHODS["je"].stages:
        print(f"Harmonic-CNN, {stage.name}: {kernels(stage)} operations a step, without views")
    table = pd.DataFrame(rows)
    table["whole run"] = table[["steps", "passes", "validation and windows"]].sum(axis=1)
    print(table.to_string(index=False, float_format="{:.4g}".format))


def bench_extractors(batches: list[int], path: Path, **settings: Any) -> None:
    """Every extractor at the paper's width, in training and inference, each in a new process."""
    rows = []
    for name in EXTRACTORS:
        for mode in MODES:
            for batch in batches:
                config = RunConfig(extractor=name, batch_size=batch, **settings)
                with multiprocessing.get_context("spawn").Pool(1) as process:
                    rows.append(process.apply(steps.measure, (config, mode)))
                print(json.dumps(rows[-1]), flush=True)
                write_json(path, rows)
    table = pd.DataFrame(rows)
    print(table[[*rows[0]][:9]].round(3).to_string(index=False))
    by_batch = table[table["mode"] == "train"].pivot(index="batch", columns="extractor")
    for what in ("seconds", "peak_memory_mib"):
        ratio = by_batch[what].music_sincnet / by_batch[what].sample_cnn_res_se
        print(f"music_sincnet : sample_cnn_res_se, {what}, by batch: {ratio.round(2).to_dict()}")


def bench_beside(
    checkout: Path | None = None, python: str = sys.executable, n_turns: int = 9
) -> None:
    """A step of the original's extractors in TensorFlow, or of another `checkout` of this package,
    by this `python`; a step of ours; and large matrix products, in turns: medians of seconds, of
    the ratios of each turn, and of the shares of the products' rate.
    """
    script, rows = Path(__file__).with_name("original_steps.py"), []
    other, extractors = "original", ("harmonic_cnn", "sample_cnn", "sample_cnn_res")
    if checkout:
        other, extractors = "jetatag", EXTRACTORS
    multiply = steps.product("32-true", torch.device("cpu"))
    pipes = {"text": True, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    theirs = {**os.environ, "PYTHONPATH": str(checkout or "")}
    for name, mode in itertools.product(extractors, MODES):
        both = [
            subprocess.Popen([runs, script, whose, name, mode], env=env, **pipes)
            for runs, whose, env in ((python, other, theirs), (sys.executable, "jetatag", None))
        ]
        turns = []
        for _ in range(2 + n_turns):  # the first two warm up
            turns.append([steps.seconds(multiply, torch.device("cpu"))])
            for process in both:
                print(file=process.stdin, flush=True)
                turns[-1].append(float(process.stdout.readline()))
        for process in both:
            process.communicate()
        product_s, before, now = np.transpose(turns[2:])
        operations = steps.count(original_steps.jetatag(name, mode))
        share = operations / (2 * steps.PRODUCT_SIZE["cpu"] ** 3) * product_s  # of a second
        whose = "before" if checkout else "original"
        row = {f"{whose}_s": before, "jetatag_s": now, "ratio": now / before}
        row |= {f"{whose}_share": share / before, "jetatag_share": share / now}
        medians = {column: float(np.median(values)) for column, values in row.items()}
        instructions = torch.backends.cpu.get_cpu_capability()
        rows.append({"extractor": name, "mode": mode, "instructions": instructions, **medians})
        print(json.dumps(rows[-1]), flush=True)
    print(pd.DataFrame(rows).round(3).to_csv(index=False))


def bench_crops(folder: Path) -> None:
    """Crops of 80,000 samples a second as float32 batches of 16, from warm cache, of clips of
    different length."""
    for n_clips, duration_s in ((360, 10), (6, 600)):
        store = noise_store(folder, n_clips, duration_s)
        crops = Crops(store, np.arange(n_clips), 80_000, seed=0, epoch=0)
        positions = np.random.default_rng(0).integers(0, n_clips, (1000, 16)).tolist()
        turns = itertools.cycle(positions)
        speed = 16 * rate(lambda crops=crops, turns=turns: crops.take(next(turns)))
        print(f"crops: {speed:,.0f} a second, of clips of {duration_s} s")


def bench_stage_2(folder: Path, device: str, n_epochs: int = 200, n_crops: int = 16) -> None:
    """What stage 2 costs on kept features, in passes of the fastest extractor over the clips: a
    real run of a few epochs, validation and checkpoints included, of which the first passes."""
    store = noise_store(folder, n_clips=280, duration_s=4)
    phases = (Phase("adam", 1e-4, 21),)
    config = RunConfig(extractor="sample_cnn", stage2=phases, stage2_crops=1, device=device)
    run = Run.start(folder, config, store)
    run.write_tensors("stage1.safetensors", build_model(config, store.vocabulary).state_dict())
    ends = [time.perf_counter()]
    train(run, store, on_epoch=lambda history, model: ends.append(time.perf_counter()))
    first, *others = np.diff(ends)
    epoch_s = statistics.median(others)
    passes = n_crops + n_epochs * epoch_s / (first - epoch_s)
    print(
        f"stage 2, {n_epochs} epochs on {n_crops} kept crops a clip: as long as {passes:.1f} "
        f"passes of sample_cnn at the paper's width ({len(store.rows('train'))} clips)"
    )


def bench_rendering(folder: Path, n_clips: int = 200, duration_s: float = 10.0) -> None:
    """Seconds of music made a second, all cores, starting the processes included."""
    begun = time.perf_counter()
    rendered.write(folder, n_clips, duration_s, seed=1)
    taken = time.perf_counter() - begun
    print(f"rendering: {n_clips * duration_s / taken:.0f} s of audio a second ({n_clips} clips)")


def mtat_like(folder: Path, n_clips: int = 16, copies: int = 12) -> Index:
    """MagnaTagATune's kind of file: mono MP3s of 29 s at 22.05 kHz and 32 kbit/s, each under
    several names."""
    rendered.write(folder / "made", n_clips, 29.0, seed=2)
    paths = []
    for number, made in enumerate(sorted((folder / "made" / "mp3").rglob("*.mp3"))):
        clip = soxr.resample(*soundfile.read(made, dtype="float32"), 22_050, "HQ")
        soundfile.write(
            folder / f"{number}.mp3",
            clip,
            22_050,
            format="MP3",
            bitrate_mode="CONSTANT",
            compression_level=0.85,
        )
        for copy in range(copies):
            paths.append(f"{number}-{copy}.mp3")
            (folder / paths[-1]).hardlink_to(folder / f"{number}.mp3")
    columns = {"clip_id": paths, "path": paths, "split": "train", "group": "", "title": ""}
    labels = np.ones((len(paths), 1), np.uint8)
    return Index("like mtat", folder, Vocabulary(("tag",)), pd.DataFrame(columns), labels)


def decode_alone(index: Index, folder: Path, workers: int) -> None:
    for path in index.table.path:
        soundfile.read(index.audio_root / path, dtype="float32")


def decode_and_soxr(index: Index, folder: Path, workers: int) -> None:
    for path in index.table.path:
        clip, rate = soundfile.read(index.audio_root / path, dtype="float32")
        soxr.resample(clip, rate, 16_000, "HQ")


def librosa_load(index: Index, folder: Path, workers: int) -> None:
    for path in index.table.path:
        librosa.load(index.audio_root / path, sr=16_000)


def prepare(index: Index, folder: Path, workers: int) -> None:
    build(index, folder, workers=workers)


def on_cores(
    action: Callable[[Index, Path, int], None], index: Index, n_cores: int
) -> tuple[float, float]:
    """Clips of `action` a second and a second of processor time, on so many cores, in this process
    and those it starts, after as many clips to warm up, for a data set has thousands."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:n_cores])
    with tempfile.TemporaryDirectory() as folder:
        action(index, Path(folder) / "warm", n_cores)
        begun, worked = time.perf_counter(), processor_seconds()
        action(index, Path(folder) / "store", n_cores)
        taken, worked = time.perf_counter() - begun, processor_seconds() - worked
        return len(index) / taken, len(index) / worked


def processor_seconds() -> float:
    """Of this process and the running ones that it started."""
    every = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in every)


def memory_of(index: Index) -> float:
    """Peak memory (MiB) of this process after preparing `index` alone."""
    with tempfile.TemporaryDirectory() as folder:
        prepare(index, Path(folder) / "store", 1)
    return peak_memory_mib()


def repeated(index: Index, n: int) -> Index:
    """The clips of `index`, `n` times over."""
    ids = [f"{turn}/{name}" for turn in range(n) for name in index.table.clip_id]
    table = pd.concat([index.table] * n, ignore_index=True).assign(clip_id=ids)
    return dataclasses.replace(index, table=table, labels=np.tile(index.labels, (n, 1)))


def bench_memory(index: Index, times: tuple[int, ...] = (1, 10)) -> None:
    """Peak memory of preparing, for the clips of `index` once and ten times over."""
    for n in times:
        many = repeated(index, n)
        with multiprocessing.get_context("spawn").Pool(1) as process:
            peak = process.apply(memory_of, (many,))
        print(f"preparing {len(many):,} clips of 29 s takes {peak:,.0f} MiB a process")


def bench_preparing(folder: Path, rounds: int = 5) -> None:
    """Preparing against what it is made of, on 29-s MP3s from 22.05 to 16 kHz: each in a process
    of its own, pinned to its cores, in turns; medians. On two cores five times as many, since the
    second process takes a while to start. Other work on the machine moves processor time far less
    than seconds."""
    index, speeds = mtat_like(folder), {}
    cases = [(decode_alone, 1), (decode_and_soxr, 1), (librosa_load, 1), (prepare, 1)]
    cases += [(prepare, 2)] if (os.cpu_count() or 1) > 1 else []
    for _ in range(rounds):
        for action, n_cores in cases:
            # Unlike those of a `Pool`, this process may start others.
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                clips = repeated(index, 5) if n_cores > 1 else index
                speed = process.submit(on_cores, action, clips, n_cores).result()
            speeds.setdefault((action.__name__, n_cores), []).append(speed)
    values = {case: np.array(speed) for case, speed in speeds.items()}  # (round, clock)
    for (name, n_cores), speed in values.items():
        told = "{:.1f} clips of 29 s a second, {:.1f} a second of processor time"
        print(f"{name} on {n_cores} core(s):", told.format(*np.median(speed, axis=0)))
    for case, other in ((("prepare", 1), ("decode_and_soxr", 1)), (("prepare", 2), ("prepare", 1))):
        if case in values:
            ratio = np.median(values[case] / values[other], axis=0).round(2)
            print(f"{case} : {other}: {ratio[0]}, by processor time {ratio[1]}")
    bench_memory(index)


def bench_baselines(store: AudioStore, what: str) -> None:
    """How hard a data set is for a model that knows no time, on its test split."""
    scores = baselines.score_split(store)
    for name in baselines.NAMES:
        macro = metrics.macro_clip(scores["labels"], scores[name])
        print(f"{name} on {what}, test, macro_clip:", {k: round(v, 3) for k, v in macro.items()})


def bootstrap_seconds(n_resamples: int) -> tuple[float, float]:
    """Seconds, and of processor time, of all `macro_clip` areas in so many resamples on one core:
    MagnaTagATune's test clips and numbers of tags, carried by 1 to 25 % of them; drawing included.
    """
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    rng = np.random.default_rng(0)
    labels = rng.random((MTAT["test"], N_TAGS)) < np.geomspace(0.01, 0.25, N_TAGS)
    scores = rng.normal(1.5 * labels).astype(np.float32)
    begun, worked = time.perf_counter(), time.process_time()
    weights = metrics.clip_weights(len(labels), n_resamples, seed=0)
    metrics.macro_clip(labels, scores, weights)
    return time.perf_counter() - begun, time.process_time() - worked


def bench_bootstrap(n_resamples: int = 2_000, rounds: int = 5) -> None:
    """The exact areas of every resample of a test split, in a process of its own; medians."""
    with multiprocessing.get_context("spawn").Pool(1) as process:
        taken = [process.apply(bootstrap_seconds, (n_resamples,)) for _ in range(rounds)]
    told = "bootstrap of {:,} × {:,} clips × {} tags on one core: {:.1f} s, {:.1f} s of its time"
    print(told.format(n_resamples, MTAT["test"], N_TAGS, *np.median(taken, axis=0)))


PEER_NAME = "musicnn (MTT)"
PEER = """
import os, sys, time
os.environ |= {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
from musicnn.tagger import top_tags
first, *paths = sys.argv[1:]
top_tags(first, model="MTT_musicnn", print_tags=False)
begun, worked = time.perf_counter(), time.process_time()
for path in paths:
    top_tags(path, model="MTT_musicnn", print_tags=False)
print(time.perf_counter() - begun, time.process_time() - worked)
"""
"""musicnn as its authors offer it: a call a file, 3-s windows without overlap."""


def peer_seconds(python: Path, paths: list[Path]) -> tuple[float, float]:
    """Seconds, and of processor time, that musicnn takes for `paths` but the first, which warms it
    up, in a process of its own."""
    done = subprocess.run([python, "-c", PEER, *paths], capture_output=True, text=True, check=True)
    return tuple(float(word) for word in done.stdout.split()[-2:])


def untrained_run(folder: Path, config: RunConfig) -> Path:
    """A finished run but for its training: weights of chance, for which speed is the same."""
    (folder / "store").mkdir(parents=True)
    store = noise_store(folder / "store", n_clips=10, duration_s=1)
    run = Run.start(folder, config, store)
    last = METHODS[config.method].stages[-1].name
    run.write_tensors(f"{last}.safetensors", build_model(config, store.vocabulary).state_dict())
    return run.folder


def tagger_seconds(run: Path, paths: list[Path]) -> tuple[float, float, float]:
    """Seconds, and of processor time, of tagging `paths` but the first, which warms it up; and the
    process's peak memory in MiB."""
    model = tagger.load(run, device="cpu")
    model.predict(paths[0])
    begun, worked = time.perf_counter(), time.process_time()
    for _, prediction in model.predict_files(paths[1:], workers=len(os.sched_getaffinity(0))):
        prediction.clip_probs  # noqa: B018
    taken, worked = time.perf_counter() - begun, time.process_time() - worked
    return taken, worked, peak_memory_mib()


def tagging_files(folder: Path) -> dict[str, list[Path]]:
    """A file to warm up and those to measure: clips of MagnaTagATune's kind, a song's length, and
    ten minutes."""
    clips = [folder / path for path in mtat_like(folder, copies=1).table.path]
    heard, rates = zip(*(soundfile.read(path, dtype="float32") for path in clips), strict=True)
    long, rate = np.concatenate([*heard, *heard]), rates[0]
    files = {"16 clips of 29 s": clips[:1] + clips}
    for minutes in (4, 10):
        path = folder / f"{minutes} minutes.mp3"
        soundfile.write(path, long[: minutes * 60 * rate], rate, format="MP3")
        files[path.stem] = [clips[0], path]
    return files


def bench_tagging(peer: Path | None, n_cores: int, rounds: int = 3) -> None:
    """Seconds of audio a second from file to tags, decoding included, beside musicnn where `peer`
    is a Python that has it; each in a process of its own, pinned to the same cores, in turns;
    medians. On one core, processor time tells under other load, too."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-n_cores:])  # children inherit it
    cases = {
        "sample_cnn, width 128": RunConfig(extractor="sample_cnn"),
        "harmonic_cnn, width 128": RunConfig(),
        "demo (short_chunk_cnn, width 16)": preset("demo", pair_loss="subset_query"),
    }
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        files = tagging_files(Path(temporary))
        runs = {name: untrained_run(Path(temporary) / name, c) for name, c in cases.items()}
        turns = itertools.product(
            range(rounds), files.items(), [*runs, *([PEER_NAME] * bool(peer))]
        )
        for _, (what, paths), name in turns:
            if name == PEER_NAME:
                taken, worked = peer_seconds(peer, paths)
                peak = float("nan")
            else:
                with multiprocessing.get_context("spawn").Pool(1) as process:
                    taken, worked, peak = process.apply(tagger_seconds, (runs[name], paths))
            duration_s = sum(soundfile.info(path).duration for path in paths[1:])
            speeds = {"s/s": duration_s / taken, "s/s of processor": duration_s / worked}
            rows.append({"files": what, "model": name, **speeds, "peak MiB": peak})
            print(json.dumps(rows[-1]), flush=True)
    table = pd.DataFrame(rows).groupby(["files", "model"], sort=False).median()
    print(table.round(1).to_string())


def noise_index(folder: Path, n_files: int, dim: int) -> tuple[search.Index, Path]:
    """An index of random unit vectors and probabilities under made-up paths, and one real file."""
    rng, song = np.random.default_rng(0), folder / "song.mp3"
    vectors = rng.standard_normal((n_files, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    probs = rng.random((N_TAGS, n_files), dtype=np.float32)
    paths = [f"artist {i // 1000:04}/album {i // 10:06}/{i:07}.mp3" for i in range(n_files - 1)]
    song.write_bytes(b"x")
    facts = {"tags": [f"tag {i}" for i in range(N_TAGS)], "music": os.path.realpath(folder)}
    facts |= {"z_query": vectors[:N_TAGS].tolist(), "z_centre": [0.0] * dim, "dim": dim}
    facts |= {"z_scale": [10.0, -2.0], "by": "combined"}
    schema = search.Facts(model="noise", run="", identity="", **facts).schema()
    about = {"size": 1, "mtime_ns": song.stat().st_mtime_ns, "duration_s": 200.0}
    about |= {"title": "", "damage": ""}
    files = pd.DataFrame({"path": [*paths, song.name], **about})
    columns = [files[name] for name in ("path", *about)]
    columns += [pa.FixedSizeListArray.from_arrays(vectors.ravel(), dim), *probs]
    indexing.write_table(
        pa.Table.from_arrays(list(map(pa.array, columns)), schema=schema), folder / search.INDEX
    )
    return search.Index.open(folder), song


def search_seconds(n_files: int, dim: int, n_rounds: int = 21) -> pd.DataFrame:
    """Median seconds (and of processor time) of searching such an index for 20 files and of what
    bounds it, in turns, after one to warm up, so that its files lie in the page cache; two cores.
    """
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    with tempfile.TemporaryDirectory() as folder:
        index, song = noise_index(Path(folder), n_files, dim)
        vectors, tags = index.vectors, {"tag 1": 1.0, "tag 2": 1.0, "tag 3": -1.0}
        query = np.array(vectors[0])
        actions = {
            "by tags": lambda: index.tags(tags),
            "by tags, space": lambda: index.tags(tags, by="space"),
            "by tags, classifier": lambda: index.tags(tags, by="classifier"),
            "by example": lambda: index.like(song),
            "numpy's product alone": lambda: vectors @ query,
            "reading the vectors once": lambda: vectors.max(),
            "opening the index": lambda: search.Index.open(folder),
        }
        rows = []
        for number, (name, action) in itertools.product(range(n_rounds + 1), actions.items()):
            begun, worked = time.perf_counter(), time.process_time()
            action()
            taken = time.perf_counter() - begun, time.process_time() - worked
            rows += [(name, *taken)] if number else []
    table = pd.DataFrame(rows, columns=["what", "seconds", "processor"])
    return table.groupby("what", sort=False).median()


def bench_search(n_files: int = 1_000_000, dim: int = RunConfig().embedding_dim) -> None:
    """Exact searches of a million files, in a process of their own."""
    with multiprocessing.get_context("spawn").Pool(1) as process:
        taken = process.apply(search_seconds, (n_files, dim))
    print(f"search of {n_files:,} files × {dim} dimensions, two cores, warm page cache:")
    for row in taken.itertuples():
        print(f"  {row.Index}: {1e3 * row.seconds:.0f} ms ({1e3 * row.processor:.0f} of its time)")
    bandwidth = 4e-9 * n_files * dim / taken.seconds["reading the vectors once"]
    print(f"  (they are read at {bandwidth:.1f} GB/s)")


def bench_exploring() -> None:
    """Frames a second while one of three maps is dragged and zoomed, of few clips and of many, in a
    browser that draws without a GPU; a page has at most 60. Before, how long many take to rank."""
    from lab import started  # which needs selenium
    from test_explore_browser import MANY, maps_of, opened_and_run, pan_and_zoom

    many: dict = {}
    exec(MANY, many)  # the cell that is drawn below
    taken = timeit.repeat(lambda: many["explorer"].best(10), number=1, repeat=20)
    print(f"20,000 clips ranked in the space and by the classifier: {np.median(taken):.4f} s")
    with tempfile.TemporaryDirectory() as folder, started(Path(folder)) as lab:
        for n_clips in (200, 20_000):
            lab.write("many", MANY.replace("20_000", str(n_clips)))
            opened_and_run(lab, "many")
            moves = {
                "at rest": lambda: time.sleep(3),
                "moved": lambda: pan_and_zoom(lab, maps_of(lab)[0], n_steps=20),
            }
            for what, move in moves.items():
                frames_ms = lab.frames_ms(move)
                told = f"{len(frames_ms) / sum(frames_ms) * 1000:.0f} frames a second"
                print(f"maps of {n_clips:,} clips {what}: {told}", flush=True)


def bench_data(device: str) -> None:
    """The built-in data set: making it, what it asks of a model; feeding; stage 2."""
    n_clips, duration_s = rendered.SIZES["demo"]
    demo = Path("data/rendered-demo")
    with tempfile.TemporaryDirectory() as temporary:
        bench_preparing(Path(temporary) / "preparing")
        bench_rendering(Path(temporary) / "speed")
        rendered.write(demo, n_clips, duration_s)
        store = build(load("rendered", demo), f"{demo}.store")
        bench_baselines(store, f"rendered demo ({n_clips} × {duration_s:.0f} s, seed 0)")
        bench_crops(Path(temporary))
        bench_stage_2(Path(temporary), device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[4, 16], help="crops a step")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, …")
    parser.add_argument("--precision", default="auto", help="auto, 32-true, tf32 or bf16-mixed")
    parser.add_argument("--compile", action="store_true", help="compile the extractors")
    parser.add_argument("--out", type=Path, default=Path("benchmarks.json"))
    parser.add_argument(
        "--tagging",
        action="store_true",
        help="measure the tagger only, beside musicnn where --peer or JETATAG_MUSICNN names a "
        "Python that has it (pip install --no-deps musicnn; librosa, tensorflow, tf-keras)",
    )
    peer = os.environ.get("JETATAG_MUSICNN")
    parser.add_argument("--peer", type=Path, default=peer and Path(peer), help="see --tagging")
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="of --tagging")
    parser.add_argument("--searching", action="store_true", help="measure searches only")
    parser.add_argument("--bootstrap", action="store_true", help="measure the resampling only")
    parser.add_argument("--exploring", action="store_true", help="measure maps in a browser only")
    parser.add_argument(
        "--original",
        nargs="?",
        const=sys.executable,
        help="measure beside TensorFlow only: a Python that has it and tf-keras (default: this)",
    )
    parser.add_argument("--before", type=Path, help="measure beside another checkout only")
    parser.add_argument("--cost", action="store_true", help="count a paper run's operations only")
    given = parser.parse_args()
    print(f"CPU: {steps.cpu_type()}")
    if given.cost:
        return bench_cost()
    if given.original:
        return bench_beside(python=given.original)
    if given.before:
        return bench_beside(given.before)
    if given.bootstrap:
        return bench_bootstrap()
    if given.exploring:
        return bench_exploring()
    if given.searching:
        return bench_search()
    if given.tagging:
        return bench_tagging(given.peer, given.cores)
    settings = {name: getattr(given, name) for name in ("device", "precision", "compile")}
    bench_extractors(given.batches, given.out, **settings)
    bench_data(given.device)
    bench_bootstrap()
    bench_search()
    bench_tagging(given.peer, given.cores)


if __name__ == "__main__":
    main()
