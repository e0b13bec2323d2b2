"""Modules with Keras weights against values recorded from the authors' TensorFlow code."""

import copy
import importlib.util
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from jetatag.extractors import build_extractor
from jetatag.extractors.harmonic import filter_centres
from jetatag.extractors.sinc import band_edges
from jetatag.joint import heads
from jetatag.original.importing import load_keras_weights

REFERENCE = Path(__file__).parents[2] / "shared" / "reference"
TOLERANCE = 1e-4  # of the largest value, float32

needs_reference = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason="the recorded TensorFlow values are missing"
)


def assert_close(ours: torch.Tensor, recorded: np.ndarray, tolerance: float = TOLERANCE) -> None:
    ours = ours.detach().numpy()
    assert ours.shape == recorded.shape
    assert np.abs(ours - recorded).max() <= tolerance * np.abs(recorded).max()


def random_weights(
    variant: str, names: list[str], shapes: list[list[int]], stored: Mapping = MappingProxyType({})
) -> list[np.ndarray]:
    """The original's weights when its values were recorded; some are `stored`."""
    spec = importlib.util.spec_from_file_location("weights", REFERENCE / "reference_weights.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    weights = enumerate(zip(names, shapes, strict=True))
    return [
        stored[i] if i in stored else recipe.gen(variant, i, name, shape)
        for i, (name, shape) in weights
    ]


class Reference(NamedTuple):
    recorded: dict[str, np.ndarray]
    names: list[str]
    arrays: list[np.ndarray]
    waveform: torch.Tensor
    extractor: nn.Module


def load_reference(variant: str, name: str, **options) -> Reference:
    recorded = dict(np.load(REFERENCE / f"{variant}.npz"))
    names = recorded["names"].tolist()
    shapes = [json.loads(shape) for shape in recorded["shapes"]]
    stored = {i: recorded[key] for i in range(2) if (key := f"w{i:03d}") in recorded}
    arrays = random_weights(variant, names, shapes, stored)
    assert np.allclose([array.sum() for array in arrays], recorded["wstats"][:, 0], atol=1e-2)
    extractor = build_extractor(name, **options)
    load_keras_weights(extractor, names, arrays)
    waveform = torch.from_numpy(recorded["wav_int16"] / np.float32(32768))
    return Reference(recorded, names, arrays, waveform, extractor.eval())


SAMPLE_CNNS = {
    "SCbasic": "sample_cnn",
    "SCse": "sample_cnn_se",
    "SCres": "sample_cnn_res",
    "SCrese": "sample_cnn_res_se",
}
SINC_OPTIONS = {"MSmtat": {}, "MSkeyword": {"n_filters": 128, "n_taps": 251, "filter_rate": 16_000}}


@pytest.fixture(scope="module")
def harmonic() -> Reference:
    return load_reference("HC", "harmonic_cnn", form="as_coded")


@pytest.fixture(scope="module", params=SAMPLE_CNNS)
def sample(request) -> Reference:
    return load_reference(request.param, SAMPLE_CNNS[request.param])


@pytest.fixture(scope="module", params=SINC_OPTIONS)
def sinc(request) -> Reference:
    options = SINC_OPTIONS[request.param]
    return load_reference(request.param, "music_sincnet", form="as_coded", **options)


def means_of(
    layers: Iterable[nn.Module], reference: Reference, what: str = "output"
) -> list[torch.Tensor]:
    """Mean over positions of every layer's output (or input) on the recorded waveforms."""
    means = []

    def keep(layer, inputs, output):
        means.append((output if what == "output" else inputs[0]).flatten(2).mean(2))

    hooks = [layer.register_forward_hook(keep) for layer in layers]
    reference.extractor(reference.waveform)
    for hook in hooks:
        hook.remove()
    return means


def assert_training_pass(reference: Reference, tolerance: float = TOLERANCE) -> None:
    """Compare features, moving means and variances with the original's after one such pass."""
    extractor = copy.deepcopy(reference.extractor).train()
    recorded = reference.recorded
    assert_close(extractor(reference.waveform), recorded["out_train"], tolerance)
    moving = [name for name in reference.names if "moving" in name]
    norms = [layer for layer in extractor.modules() if hasattr(layer, "running_var")]
    ours = [values for norm in norms for values in (norm.running_mean, norm.running_var)]
    for name, values in zip(moving, ours, strict=True):
        assert_close(values, recorded[f"after_train_w{reference.names.index(name):03d}"])


def assert_first_convolution(reference: Reference, first: torch.Tensor) -> None:
    """Compare (clip, channel, frame) with the recorded channels, frames, ends and means."""
    recorded = reference.recorded
    assert first.mT.shape[1:] == tuple(recorded["conv0_shape"][1:])
    assert_close(first.mT[:, ::8, :3], recorded["conv0_ch3_t8"])
    ends = torch.cat([first[:, :3, :32], first[:, :3, -32:]], dim=2)
    assert_close(ends.mT, recorded["conv0_edge_ch3"])
    assert_close(first.mean(2), recorded["conv0_mean"])


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
    coded = filter_centres(16_000, "as_coded").T.flatten()
    assert_close(coded, recorded["f0"])

    level_db = front_end(waveform).permute(0, 2, 3, 1)
    assert level_db.shape == tuple(recorded["hstft_shape"])
    assert_close(level_db[:, :, ::4], recorded["hstft_t4"])
    loud_db = front_end(waveform * float(recorded["loud_gain"])).permute(0, 2, 3, 1)
    assert_close(loud_db[:, :, ::16], recorded["hstft_loud_t16"])
    assert_close(front_end(torch.zeros(1, 512)).unique(), recorded["hstft_zero_value"])


@needs_reference
@torch.no_grad()
def test_harmonic_blocks_and_features(harmonic):
    for i, mean in enumerate(means_of(harmonic.extractor.blocks, harmonic), start=1):
        assert_close(mean, harmonic.recorded[f"res{i}_mean"])
    assert_close(harmonic.extractor(harmonic.waveform), harmonic.recorded["out"])


@needs_reference
@torch.no_grad()
def test_harmonic_training_pass(harmonic):
    assert_training_pass(harmonic)


@needs_reference
@torch.no_grad()
def test_sample_blocks_and_features(sample):
    extractor, recorded = sample.extractor, sample.recorded
    assert_first_convolution(sample, extractor.first.conv(sample.waveform.unsqueeze(1)))
    means = {"pool": means_of(extractor.blocks, sample)}
    if "semul1_mean" in recorded:  # +SE: its blocks go on behind the pool
        excited = [block.excite for block in extractor.blocks]
        means = {"pool": means_of(excited, sample, "input"), "semul": means["pool"]}
    for what, of_blocks in means.items():
        for i, mean in enumerate(of_blocks, start=1):
            assert_close(mean, recorded[f"{what}{i}_mean"])
    assert_close(extractor(sample.waveform), recorded["out"])


@needs_reference
@torch.no_grad()
def test_sample_training_pass(sample):
    if "out_train" not in sample.recorded:
        pytest.skip("no training pass was recorded, because dropout makes it random")
    # The last normalisation divides by the deviation of two almost equal clips, which amplifies
    # rounding: in float64, too, the features are 1.3e-3 from the recorded float32 ones.
    assert_training_pass(sample, tolerance=2e-3)


@needs_reference
@torch.no_grad()
def test_sinc_front_end(sinc):
    recorded, conv = sinc.recorded, sinc.extractor.first.conv
    n_filters, n_taps, filter_rate = recorded["sinc_cfg"]
    low, high = band_edges(n_filters, filter_rate)
    assert_close(torch.from_numpy(low[:, None] / filter_rate), recorded["init_b1"])
    assert_close(torch.from_numpy((high - low)[:, None] / filter_rate), recorded["init_band"])

    filters = conv.filters()
    assert filters.shape == (n_filters, n_taps)
    assert_close(filters[:3].T, recorded["filters_ch3"])
    assert_close(filters[-3:].T, recorded["filters_last3"])
    assert_close(filters.double().square().sum(1), recorded["filters_sumsq"])

    padded = F.pad(sinc.waveform.unsqueeze(1), (conv.n_zeros, conv.n_zeros))
    filtered = F.conv1d(padded, filters[:3].unsqueeze(1)).mT
    assert filtered.shape[1] == recorded["sinc_shape"][1]
    assert_close(filtered[:, ::16], recorded["sinc_ch3_t16"])
    assert_close(torch.cat([filtered[:, :64], filtered[:, -64:]], dim=1), recorded["sinc_edge_ch3"])
    assert_close(filtered.square().mean(1).sqrt(), recorded["sinc_rms"][:, :3])
    assert_first_convolution(sinc, conv(sinc.waveform.unsqueeze(1)))


@needs_reference
@torch.no_grad()
def test_sinc_blocks_and_features(sinc):
    assert_close(sinc.extractor(sinc.waveform), sinc.recorded["out"])
    # These random weights amplify rounding a thousandfold up to the last block, whose mean is up
    # to 4e-4 off in float32; in float64 only the recording's own rounding remains.
    for i, mean in enumerate(means_of(sinc.extractor.blocks[:-1], sinc), start=1):
        assert_close(mean, sinc.recorded[f"pool{i}_mean"])
    exact = sinc._replace(
        extractor=copy.deepcopy(sinc.extractor).double(), waveform=sinc.waveform.double()
    )
    for i, mean in enumerate(means_of(exact.extractor.blocks, exact), start=1):
        assert_close(mean, sinc.recorded[f"pool{i}_mean"])


HEADS = {
    "projector": ("feat", lambda n_tags, dim: heads.encoder(1024, dim)),
    "tag_encoder": ("labels", lambda n_tags, dim: heads.encoder(n_tags, dim)),
    "tag_decoder": ("tag_encoder_out", lambda n_tags, dim: heads.tag_decoder(dim, n_tags)),
    "classifier": ("feat", lambda n_tags, dim: heads.classifier(1024, n_tags)),
}


@needs_reference
@torch.no_grad()
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("dataset", ["mtat", "dcase", "keyword"])
def test_heads(dataset, head):
    recorded = dict(np.load(REFERENCE / f"heads_{dataset}.npz"))
    names = recorded[f"{head}_names"].tolist()
    shapes = [recorded[f"{head}_w{i}_shape"].tolist() for i in range(len(names))]
    given, build = HEADS[head]
    module = build(recorded["labels"].shape[1], recorded["tag_encoder_out"].shape[1]).eval()
    load_keras_weights(module, names, random_weights(f"heads_{dataset}_{head}", names, shapes))
    out = module(torch.from_numpy(recorded[given]))
    if head in ("tag_decoder", "classifier"):  # ours end with logits
        out = out.softmax(1) if dataset == "keyword" else out.sigmoid()
    assert_close(out, recorded[f"{head}_out"])
    if f"{head}_hidden1" in recorded:
        first = module[1](module[0](torch.from_numpy(recorded[given])))
        assert_close(first, recorded[f"{head}_hidden1"])


NAMES = ["conv1d/kernel:0", "conv1d/bias:0", "dense/kernel:0"]


def tiny() -> nn.Module:
    return nn.Sequential(nn.Conv1d(1, 2, 3), nn.Linear(4, 5, bias=False))


def tiny_arrays() -> list[np.ndarray]:
    shapes = [(3, 1, 2), (2,), (4, 5)]
    return [np.random.default_rng(i).normal(size=shape) for i, shape in enumerate(shapes)]


def test_layers_are_paired_by_number_and_not_by_depth():
    module = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    names = ["dense_10/kernel:0", "dense_9/kernel:0"]
    load_keras_weights(module, names, [np.full((1, 1), 10.0), np.full((1, 1), 9.0)])
    assert [layer.weight.item() for layer in module] == [9, 10]


def test_kernels_are_transposed():
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
        (lambda n, a: (n[:-1], a[:-1]), "takes 1 dense layers, the Keras model has 0"),
        (lambda n, a: (n, [*a[:2], a[2][:, :4]]), r"layer dense .*\(4, 4\).*\(5, 4\)"),
        (lambda n, a: ([*n[:1], "conv1d/beta:0", n[2]], a), "layer conv1d has .*'beta'"),
        (lambda n, a: ([*n[:1], "conv1d/kernel:0", n[2]], a), "conv1d/kernel:0 comes twice"),
        (lambda n, a: ([*n[:2], "dense/weight:0"], a), "takes 1 dense layers.* has 0"),
        (lambda n, a: (n, a[:-1]), "argument 2 is shorter"),
    ],
)
def test_a_mismatch_is_refused_and_changes_nothing(change, message):
    module = tiny()
    before = {name: values.clone() for name, values in module.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_keras_weights(module, *change(NAMES, tiny_arrays()))
    assert all(torch.equal(values, before[name]) for name, values in module.state_dict().items())
