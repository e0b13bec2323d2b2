"""Keras weights in: the modules against values recorded from the authors' TensorFlow code."""

import importlib.util
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from jetatag.convert import load_keras_weights
from jetatag.extractors import build_extractor

REFERENCE = Path(__file__).parents[2] / "shared" / "reference"
TOLERANCE = 1e-4  # of the largest value, float32

needs_reference = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason="the recorded TensorFlow values are not on this machine"
)


def assert_close(ours: torch.Tensor, recorded: np.ndarray, tolerance: float = TOLERANCE) -> None:
    ours = ours.detach().numpy()
    assert ours.shape == recorded.shape
    assert np.abs(ours - recorded).max() <= tolerance * np.abs(recorded).max()


def random_weights(variant: str, names: list[str], shapes: list[list[int]]) -> list[np.ndarray]:
    """The weights that were in the original when its values were recorded."""
    spec = importlib.util.spec_from_file_location("weights", REFERENCE / "reference_weights.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    weights = zip(names, shapes, strict=True)
    return [recipe.gen(variant, i, name, shape) for i, (name, shape) in enumerate(weights)]


class Reference(NamedTuple):
    recorded: dict[str, np.ndarray]
    names: list[str]
    arrays: list[np.ndarray]
    waveform: torch.Tensor
    extractor: nn.Module


def load_reference(variant: str, name: str, **options) -> Reference:
    recorded = dict(np.load(REFERENCE / f"{variant}.npz"))
    names = recorded["names"].tolist()
    arrays = random_weights(variant, names, [json.loads(shape) for shape in recorded["shapes"]])
    extractor = build_extractor(name, **options)
    load_keras_weights(extractor, names, arrays)
    waveform = torch.from_numpy(recorded["wav_int16"] / np.float32(32768))
    return Reference(recorded, names, arrays, waveform, extractor.eval())


@pytest.fixture
def harmonic() -> Reference:
    return load_reference("HC", "harmonic_cnn", form="as_coded")


@pytest.fixture
def sample() -> Reference:
    return load_reference("SCbasic", "sample_cnn")


def block_means(reference: Reference) -> list[torch.Tensor]:
    """Mean over positions of every block's output, (clip, channel) each."""
    means = []
    for block in reference.extractor.blocks:
        block.register_forward_hook(lambda *call: means.append(call[-1].flatten(2).mean(2)))
    reference.extractor(reference.waveform)
    return means


def assert_moving_statistics(reference: Reference) -> None:
    """Compare every moving mean and variance with what the original had after one such pass."""
    moving = [name for name in reference.names if "moving" in name]
    norms = [m for m in reference.extractor.modules() if hasattr(m, "running_var")]
    ours = [values for norm in norms for values in (norm.running_mean, norm.running_var)]
    for name, values in zip(moving, ours, strict=True):
        key = f"after_train_w{reference.names.index(name):03d}"
        assert_close(values, reference.recorded[key])


@needs_reference
@torch.no_grad()
def test_harmonic_front_end(harmonic):
    front_end, recorded, waveform = (
        harmonic.extractor.front_end,
        harmonic.recorded,
        harmonic.waveform,
    )
    assert_close(front_end.magnitude(waveform).mT[:, ::16], recorded["stft_mag_t16"])
    in_code_order = front_end.filter_bank().transpose(0, 1).flatten(0, 1)
    assert_close(in_code_order.T, recorded["harmonic_fb"])
    assert (in_code_order.amax(1) == 0).sum() == 15  # empty filters are kept

    level_db = front_end(waveform).permute(0, 2, 3, 1)
    assert level_db.shape == tuple(recorded["hstft_shape"])
    assert_close(level_db[:, :, ::4], recorded["hstft_t4"])
    loud_db = front_end(waveform * float(recorded["loud_gain"])).permute(0, 2, 3, 1)
    assert_close(loud_db[:, :, ::16], recorded["hstft_loud_t16"])
    assert_close(front_end(torch.zeros(1, 512)).unique(), recorded["hstft_zero_value"])


@needs_reference
@torch.no_grad()
def test_harmonic_blocks_and_features(harmonic):
    for i, mean in enumerate(block_means(harmonic), start=1):
        assert_close(mean, harmonic.recorded[f"res{i}_mean"])
    assert_close(harmonic.extractor(harmonic.waveform), harmonic.recorded["out"])


@needs_reference
@torch.no_grad()
def test_harmonic_training_pass(harmonic):
    features = harmonic.extractor.train()(harmonic.waveform)
    assert_close(features, harmonic.recorded["out_train"])
    assert_moving_statistics(harmonic)


@needs_reference
@torch.no_grad()
def test_sample_blocks_and_features(sample):
    first = sample.extractor.conv(sample.waveform.unsqueeze(1)).mT
    assert_close(first[:, ::8, :3], sample.recorded["conv0_ch3_t8"])
    ends = torch.cat([first[:, :32, :3], first[:, -32:, :3]], dim=1)
    assert_close(ends, sample.recorded["conv0_edge_ch3"])
    for i, mean in enumerate(block_means(sample), start=1):
        assert_close(mean, sample.recorded[f"pool{i}_mean"])
    assert_close(sample.extractor(sample.waveform), sample.recorded["out"])


@needs_reference
@torch.no_grad()
def test_sample_training_pass(sample):
    # The last normalisation divides the difference of two all but equal clips by itself, which
    # blows rounding up: in float64 our features are 1.3e-3 from the recorded float32 ones too.
    features = sample.extractor.train()(sample.waveform)
    assert_close(features, sample.recorded["out_train"], tolerance=2e-3)
    assert_moving_statistics(sample)


@needs_reference
@torch.no_grad()
@pytest.mark.parametrize(("head", "given"), [("projector", "feat"), ("tag_encoder", "labels")])
def test_dense_heads(head, given):
    recorded = dict(np.load(REFERENCE / "heads_mtat.npz"))
    names = recorded[f"{head}_names"].tolist()
    shapes = [recorded[f"{head}_w{i}_shape"].tolist() for i in range(len(names))]
    inputs = torch.from_numpy(recorded[given])
    layers = nn.Sequential(
        nn.Linear(inputs.shape[1], 128), nn.LeakyReLU(0.3), nn.Linear(128, 128), nn.LeakyReLU(0.3)
    )
    load_keras_weights(layers, names, random_weights(f"heads_mtat_{head}", names, shapes))
    assert_close(F.normalize(layers(inputs), dim=1), recorded[f"{head}_out"])


NAMES = ["conv1d/kernel:0", "conv1d/bias:0", "dense/kernel:0"]


def tiny() -> nn.Module:
    return nn.Sequential(nn.Conv1d(1, 2, 3), nn.Linear(4, 5, bias=False))


def tiny_arrays() -> list[np.ndarray]:
    shapes = [(3, 1, 2), (2,), (4, 5)]
    return [np.random.default_rng(i).normal(size=shape) for i, shape in enumerate(shapes)]


def test_kernels_turn_from_in_out_to_out_in():
    module, arrays = tiny(), tiny_arrays()
    load_keras_weights(module, NAMES, arrays)
    convolution, dense = module
    assert convolution.weight[1, 0, 2].item() == pytest.approx(arrays[0][2, 0, 1])
    torch.testing.assert_close(
        dense.weight.double(), torch.from_numpy(arrays[2]).T, atol=1e-6, rtol=0
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n, a: (n[:-1], a[:-1]), "takes 3 weights, the Keras model has 2"),
        (lambda n, a: (n, [*a[:2], a[2][:, :4]]), r"dense/kernel:0.*\(4, 4\).*\(5, 4\)"),
        (lambda n, a: (["conv1d/bias:0", *n[1:]], a), "conv1d/bias:0 is a bias.*is a kernel"),
        (lambda n, a: (n, a[:-1]), "3 names but 2 arrays"),
    ],
)
def test_any_mismatch_is_refused_and_changes_nothing(change, message):
    module = tiny()
    before = {name: values.clone() for name, values in module.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_keras_weights(module, *change(NAMES, tiny_arrays()))
    assert all(torch.equal(values, before[name]) for name, values in module.state_dict().items())
