"""Training steps on a pretended GPU: its tensors have no values, so reading one raises an error, as
it would make the CPU wait on a real GPU.

Without a GPU, torch's autograd engine cannot run on "cuda". There, gradients are pretended; those
of pretended tensors on "cpu" are computed.
"""

from contextlib import nullcontext
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode

from jetatag.config import Phase
from jetatag.extractors import EXTRACTORS
from jetatag.joint import losses
from jetatag.joint.heads import build_model
from jetatag.joint.losses import PAIR_LOSSES
from jetatag.joint.methods import METHODS
from jetatag.training import data as training_data
from jetatag.training.data import Audio, StageData
from jetatag.training.progress import Progress
from jetatag.training.train import StageLosses, train_step

PHASES = [(name, "as_published") for name in ("adam", "adamw", "sgd")]
PHASES += [(name, "as_coded") for name in ("adam", "sgd")]


class RefusesToWait(TorchDispatchMode):
    """Within it, a copy from the CPU that waits for the GPU is a failure."""

    def __torch_dispatch__(self, operation, types, parts=(), named=None):
        named = named or {}
        if operation is torch.ops.aten._to_copy.default:
            to = torch.device(named.get("device") or parts[0].device)
            assert to == parts[0].device or named.get("non_blocking"), f"{parts[0].shape} waits"
        return operation(*parts, **named)


class Pretended:
    """The first stage of a run on a device without values."""

    def __init__(self, config, store, device):
        self.model, self.config, self.store = build_model(config, store.vocabulary), config, store
        self.device = device
        self.fabric = SimpleNamespace(device=device, world_size=1, global_rank=0)
        self.fabric.autocast, self.fabric.backward = nullcontext, self.backward
        self.fabric.broadcast = lambda value: value

    def tensor(self, shape, stride=None, dtype=torch.float32):
        options = {"dtype": dtype, "device": self.device}
        return (
            torch.empty_strided(shape, stride, **options)
            if stride
            else torch.empty(shape, **options)
        )

    def move(self):
        for part in self.model.modules():
            for table in (part._parameters, part._buffers):
                for name, value in table.items():
                    moved = self.tensor(value.shape, value.stride(), value.dtype)
                    is_weight = isinstance(value, nn.Parameter)
                    table[name] = nn.Parameter(moved) if is_weight else moved

    def data(self, stage):
        audio = Audio(self.store, self.device, resident=False)
        audio.samples = self.tensor(len(self.store.samples), dtype=torch.int16)
        return StageData(self.model, stage, audio, self.config, self.fabric)

    def backward(self, loss):
        if self.device.type == "cpu":
            return loss.backward()
        for p in self.model.parameters():
            p.grad = torch.empty_like(p)

    def take_steps(self, n_steps=2, stage=0):
        """Steps of a stage, each as in the loop of `train_stage`. Features of a frozen extractor
        that other epochs use are there already."""
        self.move()
        stage = METHODS[self.config.method].stages[stage]
        data, progress = self.data(stage), Progress()
        if stage.frozen and data.crop_epochs.count(0) > 1:
            data.cache[0] = self.tensor((data.n_clips, self.model.extractor.n_features))
        stage_losses = StageLosses(self.model, stage, self.config, self.fabric)
        optimizer = data.optimizer(getattr(self.config, stage.schedule)[0])
        with RefusesToWait():
            for *batch, rows in islice(data.batches(0, 0), n_steps):
                # What several processes would move to their GPU before the losses see it.
                assert [type(part) for part in batch[1:]] == [np.ndarray] * 2
                progress.add(train_step(stage_losses, *batch, optimizer, self.fabric), rows)
        assert progress.step == n_steps and progress.loss_sums["loss"].device == self.device


@pytest.fixture(params=["cuda", "cpu"])
def device(request):
    return torch.device(request.param, 0) if request.param == "cuda" else torch.device("cpu")


@pytest.fixture
def pretended(tiny_store, tiny_config, device, monkeypatch):
    """A function of changed settings that gives a `Pretended`; all later tensors have no values."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**36, 2**36))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(training_data, "folded", lambda extractor, *_: extractor)
    if device.type == "cuda":  # one kernel, as of Adam, but torch has no pretended form of it
        monkeypatch.setattr(torch, "_fused_sgd_", lambda *parts, **settings: None)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    entered = []

    def enter(**changes):
        run = Pretended(tiny_config.replace(**changes), tiny_store, device)
        entered.append(mode.__enter__())
        return run

    yield enter
    if entered:
        mode.__exit__(None, None, None)


@pytest.mark.parametrize("name", EXTRACTORS)
def test_no_extractor_waits(pretended, name):
    pretended(extractor=name, crop_samples=73_728).take_steps()


@pytest.mark.parametrize("pair_loss", PAIR_LOSSES)
def test_no_pair_loss_waits(pretended, pair_loss):
    pretended(method="joint_shuffled", pair_loss=pair_loss).take_steps()


@pytest.mark.parametrize(("optimizer", "form"), PHASES)
def test_no_optimizer_waits(pretended, optimizer, form):
    settings = {"method": "no_je", "pair_loss": "none", "optimizer_form": form}
    pretended(**settings, stage2=(Phase(optimizer, 1e-3, 1),)).take_steps()


@pytest.mark.parametrize("stage2_crops", [1, 0], ids=["kept features", "new crops"])
def test_a_second_stage_does_not_wait(pretended, stage2_crops):
    phases = (Phase("adam", 1e-3, 2),)
    pretended(stage2_crops=stage2_crops, stage2=phases).take_steps(stage=1)


def test_waiting_is_noticed(pretended, monkeypatch):
    """Each of these would stop the CPU until the GPU has come as far."""
    run = pretended()
    values = run.tensor(3)
    waiting = (DataDependentOutputException, DynamicOutputShapeException)
    for wait in (lambda: values[0].item(), lambda: bool(values.any()), lambda: values[values > 0]):
        with pytest.raises(waiting):
            wait()
    answers = losses.answers
    monkeypatch.setattr(losses, "answers", lambda y, q: answers(y, q) * y.any().item())
    with pytest.raises(waiting):
        run.take_steps()
