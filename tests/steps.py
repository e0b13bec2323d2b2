"""Steps of training and inference through the real data path, and how long they take: what
`bench.py` and `gpu.py` measure. Imports only what training needs."""

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from jetatag.config import RunConfig
from jetatag.data import Vocabulary
from jetatag.data.store import AudioStore
from jetatag.joint.heads import build_model
from jetatag.joint.methods import STAGE1, Stage
from jetatag.training.data import Audio, StageData
from jetatag.training.device import pick_precision
from jetatag.training.processes import extract, folded, launch, place
from jetatag.training.provenance import peak_memory_mib
from jetatag.training.train import StageLosses, train_step

SECONDS, MIN_ROUNDS = 8.0, 7
"""How long each small measurement goes on, and how often it is taken at least."""
N_TAGS = 50
PRODUCT_SIZE = {"cpu": 2048, "cuda": 8192}
MODES = ("train", "infer")


def noise_store(
    folder: Path, n_clips: int, duration_s: float, sample_rate: int = 16_000, n_distinct: int = 64
) -> AudioStore:
    """A store of noise with random tags, in which a clip's audio comes again after `n_distinct`;
    the last tenth of its clips is for validation."""
    rng = np.random.default_rng(0)
    n_samples = round(duration_s * sample_rate)
    noise = [rng.integers(-10_000, 10_000, n_samples, np.int16) for _ in range(n_distinct)]
    with (folder / "audio.i16").open("wb") as file:
        for clip in itertools.islice(itertools.cycle(noise), n_clips):
            file.write(clip)
    names = [f"noise {i}" for i in range(n_clips)]
    splits = np.where(np.arange(n_clips) < 0.9 * n_clips, "train", "valid")
    columns = {"clip_id": names, "split": splits, "group": names, "n_samples": n_samples}
    tags = Vocabulary(tuple(f"tag {i}" for i in range(N_TAGS)))
    labels = (rng.random((n_clips, N_TAGS)) < 0.1).astype(np.uint8)
    about = {"name": "noise", "vocabulary": tags, "checksum": "none", "report": pd.DataFrame()}
    about |= {"peak_normalise": False}
    table = pd.DataFrame(columns)
    return AudioStore(folder, sample_rate=sample_rate, table=table, labels=labels, **about)


def steps(
    config: RunConfig,
    store: AudioStore,
    mode: str,
    resident: bool | None = None,
    stage: Stage = STAGE1,
) -> tuple[Callable[[], object], torch.device]:
    """A function whose every call is the next step of `stage`, from the store to the optimizer, or
    the features of the next windows in inference; and where it computes."""
    model, fabric = build_model(config, store.vocabulary), launch(config)
    place(model, config, fabric)
    audio, rows = Audio(store, fabric.device, resident), store.rows("train")
    if mode == "infer":
        part = np.resize(rows, config.batch_size)
        requests = itertools.repeat((part, np.zeros_like(part)))
        extractor = folded(model.extractor, config, fabric)
        windows = audio.batches(requests, config.crop_samples)
        return torch.no_grad()(lambda: extract(extractor, next(windows), fabric)), fabric.device
    data = StageData(model, stage, audio, config, fabric)
    optimizer = data.optimizer(getattr(config, stage.schedule)[0])
    losses = fabric.setup_module(StageLosses(model, stage, config, fabric))
    epochs = itertools.cycle(range(len(data.crop_epochs)))
    every = (batch for epoch in epochs for *batch, _ in data.batches(epoch, 0))
    return lambda: train_step(losses, *next(every), optimizer, fabric), fabric.device


def seconds(action: Callable[[], object], device: torch.device) -> float:
    """Wall seconds of one call, to the end of the device's work."""
    begun = time.perf_counter()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun


def count(action: Callable[[], object]) -> int:
    """Floating point operations of convolutions and matrix products, forward and backward."""
    with FlopCounterMode(display=False) as counter, torch.compiler.set_stance("force_eager"):
        action()
    return counter.get_total_flops()


class Operations(TorchDispatchMode):
    """Counts operations, forward and backward, without views: about as many kernels as a GPU has to
    be given."""

    n = 0

    def __torch_dispatch__(self, operation, types, parts=(), named=None):
        self.n += not operation.is_view
        return operation(*parts, **(named or {}))


def product(precision: str, device: torch.device) -> Callable[[], object]:
    """A large matrix product of that precision, the machine's limit."""
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    size = PRODUCT_SIZE[device.type]
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))

    def multiply() -> None:
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        torch.matmul(a, b)
        torch.backends.cuda.matmul.allow_tf32 = False  # as in training

    return multiply


def measure(config: RunConfig, mode: str) -> dict:
    """One row of the table: the step, and as long a stretch of large matrix products in turns."""
    torch.compiler.reset()  # torch compiles one piece of code so many times, then no more
    counters.clear()
    with tempfile.TemporaryDirectory() as folder:
        duration_s = 1.5 * config.crop_samples / config.sample_rate
        n_clips = 40 * config.batch_size // 9  # nine tenths of them are four whole batches
        store = noise_store(Path(folder), n_clips, duration_s, config.sample_rate)
        step, device = steps(config, store, mode)
        begun = time.perf_counter()
        seconds(step, device)  # compiles
        first_s = time.perf_counter() - begun
        peak_memory = peak_memory_mib()  # without the product's matrices
        if config.compile and not counters["stats"]["unique_graphs"]:
            raise RuntimeError(f"{config.extractor} was not compiled")
        operations = count(step)
        precision = pick_precision(config.precision, device)
        multiply = product(precision, device)
        for _ in range(2):
            step_s, product_s = seconds(step, device), seconds(multiply, device)
        n_products = max(1, round(step_s / product_s))
        taken, products = [], []
        while len(taken) < MIN_ROUNDS or sum(taken) < SECONDS:
            products += [seconds(multiply, device) for _ in range(n_products)]
            taken.append(seconds(step, device))
    limit = 2 * PRODUCT_SIZE[device.type] ** 3 / statistics.median(products)
    step_s = statistics.median(taken)
    on_gpu = device.type == "cuda"
    return {
        "extractor": config.extractor,
        "mode": mode,
        "batch": config.batch_size,
        "seconds": step_s,
        "clips_per_s": config.batch_size / step_s,
        "peak_memory_mib": peak_memory,
        "gflop": operations / 1e9,
        "limit_gflop_per_s": limit / 1e9,
        "share_of_limit": operations / (step_s * limit),
        "device": torch.cuda.get_device_name(device) if on_gpu else cpu_type(),
        "precision": precision,
        "compiled": config.compile,
        "first_s": first_s,
        "width": config.width,
        "crop_samples": config.crop_samples,
        "threads": torch.get_num_threads(),
        "rounds": len(taken),
    }


def cpu_type() -> str:
    """The vector instructions that torch uses on this CPU, such as "cpu AVX512"."""
    return f"cpu {torch.backends.cpu.get_cpu_capability()}"
