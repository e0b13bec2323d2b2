"""What `make bench` measures; it prints, asserts nothing, and names what each number stands on.

Speeds are of this machine at this moment: read ratios, not seconds.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from jetatag import baselines, metrics
from jetatag.crops import Crops
from jetatag.datasets import load, rendered
from jetatag.extractors import EXTRACTORS, build_extractor
from jetatag.store import AudioStore, build

SECONDS = 4.0
"""How long each small measurement goes on."""


def rate(action) -> float:
    """Calls of `action` a second, after one to warm up."""
    action()
    begun, n_calls = time.perf_counter(), 0
    while time.perf_counter() - begun < SECONDS:
        action()
        n_calls += 1
    return n_calls / (time.perf_counter() - begun)


def bench_rendering(folder: Path, n_clips: int = 200, duration_s: float = 10.0) -> None:
    """Seconds of music made a second, all cores, starting the processes included."""
    begun = time.perf_counter()
    rendered.write(folder, n_clips, duration_s, seed=1)
    seconds = time.perf_counter() - begun
    print(f"rendering: {n_clips * duration_s / seconds:.0f} s of audio a second ({n_clips} clips)")


def bench_baselines(audio: AudioStore, what: str) -> None:
    """How hard a data set is for a model that knows no time, on its test split."""
    scores = baselines.score_split(audio)
    for name in baselines.NAMES:
        macro = metrics.macro_clip(scores["labels"], scores[name])
        print(f"{name} on {what}, test, macro_clip:", {k: round(v, 3) for k, v in macro.items()})


def bench_crops(audio: AudioStore) -> None:
    """Crops of 80,000 samples a second as float32 batches of 16, from warm cache."""
    crops = Crops(audio, audio.rows("train"), 80_000, seed=0, epoch=0)
    positions = np.random.default_rng(0).integers(0, len(crops), 16).tolist()
    print(f"crops: {16 * rate(lambda: crops.__getitems__(positions)):,.0f} a second")


def bench_extractors(batch: int = 16, width: int = 16) -> None:
    """Clips a second in a training step (forward and backward) and in inference."""
    for name in EXTRACTORS:
        extractor = build_extractor(name, width=width)
        audio = torch.randn(batch, extractor.min_samples) * 0.1

        def step(extractor=extractor, audio=audio):
            extractor.train()(audio).sum().backward()

        def infer(extractor=extractor, audio=audio):
            with torch.inference_mode():
                extractor.eval()(audio)

        print(
            f"{name} width {width}, batch {batch}, {torch.get_num_threads()} threads: "
            f"train {batch * rate(step):.0f} clips/s, infer {batch * rate(infer):.0f} clips/s"
        )


def main() -> None:
    n_clips, duration_s = rendered.SIZES["demo"]
    demo = Path("data/rendered-demo")
    with tempfile.TemporaryDirectory() as temporary:
        bench_rendering(Path(temporary) / "speed")
        rendered.write(demo, n_clips, duration_s)
        audio = build(load("rendered", demo), f"{demo}.store")
        bench_baselines(audio, f"rendered demo ({n_clips} × {duration_s:.0f} s, seed 0)")
        bench_crops(audio)
    bench_extractors()


if __name__ == "__main__":
    main()
