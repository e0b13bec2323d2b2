"""Whether training is right and fast on a device: python tests/gpu.py --part correct|speed|epoch

Writes every comparison and measurement to `gpu.json`, the most telling first, and goes on where it
stopped: what is there and did not fail is not repeated, unless the card, the driver, torch or the
commit is another one. Each part begins nothing new after six minutes, and what runs after eight
has failed. Exits with 1 if a comparison has failed, and with 2 if something is left: run it again.
`--device cpu` runs the same code at a small size.
"""

import argparse
import copy
import dataclasses
import functools
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn.utils import parameters_to_vector
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).parents[1]))  # the package need not be installed

import steps

from jetatag.config import Phase, RunConfig
from jetatag.data.mtat import KNOWN_CLIPS
from jetatag.data.store import AudioStore
from jetatag.evaluation.predict import predict
from jetatag.extractors import EXTRACTORS, build_extractor, min_samples
from jetatag.files import read_json, write_json
from jetatag.joint.methods import METHODS, STAGE1, Stage
from jetatag.training import train as training
from jetatag.training.device import pick_device, pick_precision, prepare
from jetatag.training.processes import extract, launch
from jetatag.training.provenance import commit, provenance
from jetatag.training.run import CHECKPOINT, Run

BEGIN_S, END_S = 360, 480  # of a part: when it begins nothing new, and when it is stopped
TOLERANCE = {"32-true": (1e-4, 0.1), "tf32": (5e-2, 0.5), "bf16-mixed": (0.3, 1.5)}
"""Largest relative distance (L2) of features, and of all gradients, from those in float64, of
networks that have not learned: rounding decides which of two near values a pool lets through, so
that gradients in float32 on a CPU are up to 0.03 away at full size, and those in bfloat16 0.3 to
1.3."""
LEAST_COSINE, LENGTHS = 0.2, (0.5, 2.0)
"""Smallest cosine between the gradients and those in float64, and the range of their relative
length, in every precision. In bfloat16 on a CPU, cosines are 0.5 to 0.9 and lengths 0.7 to 1.2; in
the narrow networks of `--device cpu`, distances may be twice and cosines half as large, because
with AVX2 that of Music-SincNet is 0.18."""
PHASES = (Phase("sgd", 1e-3, 2),)  # Adam would turn rounding of tiny gradients into whole steps
N_CLIPS = sum(KNOWN_CLIPS["cleaned"][split] for split in ("train", "valid"))  # of 29.1 s
Item = tuple[str, Callable[[], dict]]


@dataclasses.dataclass(frozen=True)
class Size:
    """How large the networks and data are: the paper's on a GPU, small on a CPU."""

    device: torch.device
    folder: Path

    def __getattr__(self, name: str):
        full = {"width": 128, "batch": 4, "clips": N_CLIPS, "duration_s": 29.1}
        small = {"width": 4, "batch": 3, "clips": 20, "duration_s": 3.0}
        full["extractor"], small["extractor"] = "harmonic_cnn", "short_chunk_cnn"
        full["slack"], small["slack"] = 1, 2
        return (small if self.device.type == "cpu" else full)[name]

    @property
    def precisions(self) -> list[str]:
        """Those that the device has."""
        found = ["32-true", "bf16-mixed"]
        has_tf32 = pick_precision("auto", self.device) == "tf32"
        return [found[0], "tf32", found[1]] if has_tf32 else found

    def config(self, extractor: str = "", **settings) -> RunConfig:
        """A run with its steps of this size."""
        name = extractor or self.extractor
        settings = {"width": self.width, "device": str(self.device), "n_windows": 2, **settings}
        if self.device.type == "cpu":
            settings["crop_samples"] = max(min_samples(name), 32_768)
        return RunConfig(extractor=name, **settings)

    def store(self, name: str, n_clips: int, duration_s: float) -> AudioStore:
        """A store of noise in the folder `name`."""
        (self.folder / name).mkdir(exist_ok=True)
        return steps.noise_store(self.folder / name, n_clips, duration_s)


# Correct


def correct(size: Size) -> Iterator[Item]:
    """Comparisons with the CPU, and a step that must not wait."""
    first, *others = EXTRACTORS
    for precision in size.precisions:
        yield f"{first} {precision}", lambda p=precision: agrees(size, first, p)
    yield f"{first} waits for nothing", lambda: waits(size, first)
    yield f"{first} reads ahead and waits for nothing", lambda: waits(size, first, resident=False)
    yield "stage 2 waits for nothing", lambda: waits(size, first, stage=METHODS["je"].stages[1])
    for method, pair_loss in (("joint", "subset_query"), ("je", "cosine"), ("no_je", "none")):
        yield f"run of {method}", lambda m=method, p=pair_loss: trains_alike(size, m, p)
    for precision in size.precisions:
        yield f"resumed {precision}", lambda p=precision: resumes(size, p)
    if size.device.type == "cuda":  # on a CPU, `speed` compiles one
        for precision in size.precisions:
            key = f"{first} {precision} compiled"
            yield key, lambda p=precision: agrees(size, first, p, compiled=True)
    for name, precision in itertools.product(others, size.precisions):
        yield f"{name} {precision}", lambda n=name, p=precision: agrees(size, n, p)
    for name in others:
        yield f"{name} waits for nothing", lambda n=name: waits(size, n)


def agrees(size: Size, name: str, precision: str, compiled: bool = False) -> dict:
    """Features and gradients in training mode against float64 on the CPU."""
    extractor, audio, pull, *exact = reference(size, name)
    config = size.config(name, precision=precision, compile=compiled)
    own = prepare(copy.deepcopy(extractor).to(size.device), config, size.device)
    fabric = launch(config)
    found = pulled(own, lambda: extract(own, audio.to(size.device), fabric), pull)
    distances = [float((a - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True)]
    cosine = float(torch.cosine_similarity(found[1], exact[1], dim=0))
    length = float(found[1].norm() / exact[1].norm())
    limits = zip(distances, TOLERANCE[precision], strict=True)
    ok = all(distance <= size.slack * limit for distance, limit in limits)  # NaN is not
    ok = ok and size.slack * cosine >= LEAST_COSINE and LENGTHS[0] <= length <= LENGTHS[1]
    row = {"ok": ok, "features": distances[0], "gradients": distances[1]}
    return {**row, "cosine": cosine, "length": length}


@functools.cache
def reference(size: Size, name: str) -> tuple:
    """An extractor, audio, factors of its features, and its features and gradients in float64."""
    config, generator = size.config(name), torch.Generator().manual_seed(0)
    extractor = build_extractor(name, width=config.width, generator=generator).train()
    audio = 0.1 * torch.randn(size.batch, config.crop_samples, generator=generator)
    pull = torch.randn(size.batch, extractor.n_features, generator=generator)
    for layer in extractor.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0  # its random numbers differ between devices
    exact = copy.deepcopy(extractor).double()
    return extractor, audio, pull, *pulled(exact, lambda: exact(audio.double()), pull)


def pulled(
    extractor: torch.nn.Module, compute: Callable[[], torch.Tensor], pull: torch.Tensor
) -> list[torch.Tensor]:
    """The features that `compute` gives, and all gradients of their sum times `pull`."""
    h = compute()
    (h * pull.to(h)).sum().backward()
    learning = [p for p in extractor.parameters() if p.grad is not None]
    grads = parameters_to_vector([p.grad.contiguous() for p in learning])
    return [part.detach().cpu().double() for part in (h, grads)]


@contextmanager
def refusing_to_wait(device: torch.device) -> Iterator[None]:
    """On a GPU, any operation that makes the CPU wait raises an error."""
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")


def waits(size: Size, name: str, resident: bool | None = None, stage: Stage = STAGE1) -> dict:
    """Training steps after the first, data included; stage 2 keeps the features of its crops."""
    settings = {"pair_loss": "subset_completion", "batch_size": size.batch, "stage2_crops": 1}
    config = size.config(name, **settings)
    store = size.store("few", 10 * size.batch, 1.2 * config.crop_samples / config.sample_rate)
    step, device = steps.steps(config, store, "train", resident, stage)
    step()
    with refusing_to_wait(device):
        losses = [step() for _ in range(2)]
    return {"ok": all(bool(loss["loss"].isfinite()) for loss in losses)}


def trained(size: Size, folder: str, config: RunConfig) -> Run:
    """A run of a small store, scored."""
    store = size.store("runs", 12, 1.2 * config.crop_samples / config.sample_rate)
    run = Run.start(size.folder / folder, config, store)
    predict(run, training.train(run, store), store, "valid")
    return run


def killed(size: Size, folder: str, config: RunConfig) -> bool:
    """Train such a run in a process that is killed in the second epoch, and return whether it has
    left a checkpoint."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import gpu; gpu.train_until_killed()"
    settings = [str(size.device), str(size.folder), folder, json.dumps(config.to_dict())]
    command = [sys.executable, "-c", code, str(Path(__file__).parent), *settings]
    status = subprocess.run(command, stderr=subprocess.DEVNULL).returncode
    return status == -signal.SIGKILL and (size.folder / folder / config.name / CHECKPOINT).is_file()


def train_until_killed() -> None:
    """The other process of `killed`, which gets its arguments from the command line."""
    device, parent, folder, settings = sys.argv[2:]
    step, n_steps = training.train_step, itertools.count()

    def step_or_die(*batch: object) -> dict:
        if next(n_steps) == 4:  # an epoch has three
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*batch)

    training.train_step = step_or_die
    size = Size(torch.device(device), Path(parent))
    trained(size, folder, RunConfig(**json.loads(settings)))


def resumes(size: Size, precision: str) -> dict:
    """A run that was killed in the middle of an epoch and resumed against one that was not: as
    near, up to a factor, as those that were not, which are equal on a CPU."""
    config = size.config(method="joint", pair_loss="subset_query", precision=precision)
    config = config.replace(batch_size=size.batch, stage2=(Phase("adam", 1e-4, 2),))
    names = ("whole", "again", "once more")[: 2 if size.device.type == "cpu" else 3]
    whole, *others = (trained(size, f"{name} {precision}", config) for name in names)
    every_step = config.replace(checkpoint_minutes=0)
    was_killed = killed(size, f"broken {precision}", every_step)
    broken = trained(size, f"broken {precision}", every_step)
    *spreads, distance = (
        float((whole.history.loss / run.history.loss - 1).abs().max()) for run in (*others, broken)
    )
    spread = max(spreads)
    limit = 0 if size.device.type == "cpu" else max(10 * spread, 1e-6)
    return {"ok": was_killed and distance <= limit, "loss": distance, "spread": spread}


@contextmanager
def no_dropout() -> Iterator[None]:
    """Within it, dropout layers pass everything."""
    forward = torch.nn.Dropout.forward
    torch.nn.Dropout.forward = lambda self, x: x
    try:
        yield
    finally:
        torch.nn.Dropout.forward = forward


def trains_alike(size: Size, method: str, pair_loss: str) -> dict:
    """A short run against the same on a CPU, in float32; the scores also against its own size."""
    config = size.config(method=method, pair_loss=pair_loss, precision="32-true", width=4)
    config = config.replace(stage1=PHASES, stage2=PHASES, batch_size=4)
    with no_dropout():  # whose random numbers differ between devices
        both = [
            trained(size, f"{method} {device}", config.replace(device=device))
            for device in (str(size.device), "cpu")
        ]
    loss = float((both[0].history.loss / both[1].history.loss - 1).abs().max())
    probs = [run.read_arrays("scores.npz")["probs"] for run in both]
    apart = float(np.abs(probs[0] - probs[1]).max())
    return {"ok": loss <= 1e-3 and apart <= 1e-2, "loss": loss, "probabilities": apart}


# Speed


def speed(size: Size) -> Iterator[Item]:
    """Rows of `steps.measure`, the first those of Harmonic-CNN at the paper's batch."""
    on_gpu = size.device.type == "cuda"
    cases = [("sample_cnn", mode, 2, "32-true", HOW[0]) for mode in steps.MODES]
    cases += [("sample_cnn", "infer", 2, "32-true", HOW[1])]
    if on_gpu:
        names, precisions = list(EXTRACTORS), size.precisions[::-1]
        cases = itertools.product(names, steps.MODES, (16, 64), precisions, HOW)
        cases = [case for case in cases if case[0] == names[0] or case[4] != HOW[2]]
        cases = sorted(cases, key=lambda case: (case[0] != "harmonic_cnn", case[2], case[4]))
    for name, mode, batch, precision, how in cases:
        settings = {"precision": precision, "compile": how != HOW[0], "batch_size": batch}
        key = f"{name} {mode} {batch} {precision}{how}"
        yield key, lambda m=mode, n=name, h=how, s=settings: measured(size, n, m, h, s)


HOW = ("", " compiled", " compiled, CUDA graphs")
"""How the extractor is run; CUDA graphs are only measured, to see whether training should use
them."""


def measured(size: Size, name: str, mode: str, how: str, settings: dict) -> dict:
    """One row."""
    if size.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with torch._inductor.config.patch({"triton.cudagraphs": how == HOW[2]}):
        return steps.measure(size.config(name, **settings), mode)


# Epoch


def epoch(size: Size) -> Iterator[Item]:
    """Whole epochs of a run with joint embedding of MagnaTagATune's size."""
    yield f"{size.extractor} bf16-mixed", lambda: epochs(size, "bf16-mixed")
    if size.device.type == "cuda":
        key = f"{size.extractor} bf16-mixed compiled"
        yield key, lambda: epochs(size, "bf16-mixed", compiled=True)
        yield f"{size.extractor} tf32", lambda: epochs(size, "tf32")


def epochs(size: Size, precision: str, compiled: bool = False, n_epochs: int = 4) -> dict:
    """Seconds of an epoch of each stage, validation included, and the share of them in which the
    device computes. The first epoch, which warms up, is not counted, nor is the last, which the
    profiler slows down while it counts. The estimate is for the paper's 100 + 200 epochs."""
    phases = (Phase("adam", 1e-4, n_epochs),)
    settings = {"precision": precision, "compile": compiled, "stage1": phases, "stage2": phases}
    config = size.config(pair_loss="subset_query", **settings)
    store = size.store("mtat", size.clips, size.duration_s)
    run = Run.start(size.folder / f"epochs {precision} {compiled}", config, store)
    ends, profiled = {"stage1": [], "stage2": []}, {}

    def end(table: pd.DataFrame, model: object) -> None:
        last = table.iloc[-1]
        ends[last.stage].append(time.perf_counter())
        if last.epoch == n_epochs - 1:
            profiled[last.stage] = profile(activities=[activity])
            profiled[last.stage].start()
        elif last.epoch == n_epochs:
            profiled[last.stage].stop()

    activity = getattr(ProfilerActivity, size.device.type.upper())
    training.train(run, store, on_epoch=end)
    row = {"clips": len(store)}
    for stage, times in ends.items():
        row[f"{stage}_s"] = float(np.median(np.diff(times[:-1])))
        row[f"{stage}_busy"] = computing_seconds(profiled[stage], size.device) / row[f"{stage}_s"]
    minutes = (100 * row["stage1_s"] + 200 * row["stage2_s"]) / 60
    return {**row, "paper_run_minutes": minutes}


def computing_seconds(profiled: profile, device: torch.device) -> float:
    """How long the device has computed, summed over its operations."""
    kind = "device" if device.type == "cuda" else "cpu"
    rows = [row for row in profiled.key_averages() if not row.is_user_annotation]
    rows = [row for row in rows if row.device_type.name == device.type.upper()]
    return sum(getattr(row, f"self_{kind}_time_total") for row in rows) / 1e6


# Report

PARTS = {"correct": correct, "speed": speed, "epoch": epoch}


def machine(device: torch.device) -> dict:
    """Card, driver, versions and commit."""
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else steps.cpu_type()
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = "none"
    with suppress(OSError, subprocess.CalledProcessError):
        driver = subprocess.check_output(query, text=True).splitlines()[0]
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda}
    versions["cudnn"] = torch.backends.cudnn.version()
    for name in ("triton", "lightning-fabric", "numpy", "scipy", "pandas", "safetensors"):
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {"card": card, "driver": driver, **provenance(), **versions}


SAME = ("card", "driver", "torch", "commit")


def run_part(name: str, size: Size, path: Path) -> int:
    """Do what is missing in `path` of one part, until its time is over; how many items are left."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"part {name} has taken {END_S} seconds")

    signal.signal(signal.SIGALRM, stop)
    begun, n_left = time.monotonic(), 0
    for key, action in PARTS[name](size):
        report = read_json(path)
        rows = report.setdefault(name, {})
        if rows.get(key, {"ok": False}).get("ok", True):
            continue
        action_begun = time.monotonic()
        if action_begun - begun > BEGIN_S:
            n_left += 1
            continue
        signal.setitimer(signal.ITIMER_REAL, END_S - (action_begun - begun))
        try:
            rows[key] = action()
        except Exception as error:  # the others go on
            rows[key] = {"ok": False, "error": f"{type(error).__name__}: {error}"[:2000]}
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        took_s = round(time.monotonic() - action_begun, 2)
        rows[key] |= {"took_s": took_s, "commit": commit()}
        write_json(path, report)
        print(name, key, json.dumps(rows[key]), flush=True)
    return n_left


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=PARTS, help="by default all")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, …")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    given = parser.parse_args()
    device = pick_device(given.device)
    found = machine(device)
    before = read_json(given.out)["machine"] if given.out.is_file() else {}
    # A commit ends in + once a tracked file differs, such as the one that is written here.
    if any(before.get(name, "").rstrip("+") != found[name].rstrip("+") for name in SAME):
        write_json(given.out, {"machine": found})
    if device.type == "cpu":
        steps.SECONDS, steps.MIN_ROUNDS = 0.0, 2
        steps.PRODUCT_SIZE["cpu"] = 256
    else:
        steps.SECONDS = 2.0
    with tempfile.TemporaryDirectory() as folder:
        parts = [given.part] if given.part else PARTS
        n_left = sum(run_part(part, Size(device, Path(folder)), given.out) for part in parts)
    report = read_json(given.out)
    for part in PARTS:
        if part in report:
            table = pd.DataFrame(report[part]).T
            print(f"\n{part}\n{table.to_string()}")
    rows = [row for part in PARTS for row in report.get(part, {}).values()]
    if not all(row.get("ok", True) for row in rows):
        return 1
    if n_left:
        print(f"{n_left} items are left: run it again.")
    return 2 if n_left else 0


if __name__ == "__main__":
    sys.exit(main())
