"""Short-chunk CNNs: the published network's numbers, names and mel bands, and training."""

import runpy
import warnings

import librosa
import numpy as np
import pytest
import torch
from test_convert import REFERENCE, assert_close, needs_reference
from torch import nn

from jetatag.extractors import build_extractor
from jetatag.extractors.layers import LogMel, synchronise

CONVOLUTIONS = {"short_chunk_cnn": [""], "short_chunk_cnn_res": ["_1", "_2", "_3"]}
NORM = ("weight", "bias", "running_mean", "running_var")
HEAD = [f"dense1.{leaf}" for leaf in NORM[:2]] + [f"bn.{leaf}" for leaf in NORM]

each = pytest.mark.parametrize("name", CONVOLUTIONS)


def small(name: str, **options) -> nn.Module:
    return build_extractor(name, width=4, generator=torch.Generator().manual_seed(1), **options)


def noise(batch: int, n_samples: int) -> torch.Tensor:
    return torch.rand(batch, n_samples, generator=torch.Generator().manual_seed(0)) * 2 - 1


def published_names(name: str) -> list[str]:
    """Weights of the published network but for its head, `num_batches_tracked` left out."""
    names = [f"spec_bn.{leaf}" for leaf in NORM]
    for layer in (f"layer{number}" for number in range(1, 8)):
        for suffix in CONVOLUTIONS[name]:
            names += [f"{layer}.conv{suffix}.{leaf}" for leaf in NORM[:2]]
            names += [f"{layer}.bn{suffix}.{leaf}" for leaf in NORM]
    return names


@needs_reference
@each
@torch.no_grad()
def test_outputs_are_those_recorded_from_the_published_network(name):
    recorded = dict(np.load(REFERENCE / f"{name}.npz"))
    names, draw = recorded["names"].tolist(), runpy.run_path(REFERENCE / "reference_weights.py")
    shapes = [tuple(map(int, shape[1:-1].split(","))) for shape in recorded["shapes"].tolist()]
    weights = {
        key: torch.from_numpy(draw["gen_torch"](name, i, key, shape))
        for i, (key, shape) in enumerate(zip(names, shapes, strict=True))
    }
    sums = [values.sum() for values in weights.values()]
    np.testing.assert_allclose(sums, recorded["wstats"][:, 0], atol=1e-2)
    extractor = build_extractor(name).eval()
    loaded = extractor.load_state_dict(weights, strict=False)
    assert loaded.unexpected_keys == HEAD and names == published_names(name) + HEAD
    assert all(key.endswith("num_batches_tracked") for key in loaded.missing_keys)

    outputs = []
    for number in range(1, 8):
        layer = extractor.get_submodule(f"layer{number}")
        layer.register_forward_hook(lambda *passed: outputs.append(passed[-1]))
    waveform = torch.from_numpy(recorded["wav_int16"] / np.float32(32768))
    features = extractor(waveform)
    assert_close(extractor.front_end(waveform)[:, 0, :, ::8], recorded["mel_db_t8"])
    for number, output in enumerate(outputs, start=1):
        assert_close(output.mean((2, 3)), recorded[f"layer{number}_mean"])
    assert outputs[-1].shape == tuple(recorded["shape_last"])
    assert_close(features, recorded["three_level"])

    head = nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU()).eval()
    linear, norm = head[:2]
    linear.load_state_dict({key: weights[f"dense1.{key}"] for key in NORM[:2]})
    norm.load_state_dict({key: weights[f"bn.{key}"] for key in NORM}, strict=False)
    assert_close(head(features[:, -512:]), recorded["embedding"])


@each
def test_a_public_checkpoint_loads_but_for_its_head_and_mel_buffers(name):
    source, target = small(name), small(name)
    for values in source.state_dict().values():
        values.add_(1)
    left_out = ["spec.spectrogram.window", "spec.mel_scale.fb", *HEAD, "dense2.weight"]
    checkpoint = source.state_dict() | dict.fromkeys(left_out, torch.zeros(1))
    loaded = target.load_state_dict(checkpoint, strict=False)
    assert not loaded.missing_keys and sorted(loaded.unexpected_keys) == sorted(left_out)
    ours, theirs = target.state_dict(), source.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert [key for key in ours if "num_batches" not in key] == published_names(name)


@pytest.mark.parametrize(
    ("sample_rate", "f_max"), [(16_000, 8_000), (44_100, 8_000), (8_000, 4_000)]
)
def test_mel_bands_are_librosas_at_every_sample_rate(sample_rate, f_max):
    waveform = 0.3 * noise(2, 40_000)
    options = {"n_fft": 512, "hop_length": 256, "n_mels": 128, "fmax": f_max}
    options |= {"htk": True, "norm": None, "pad_mode": "reflect"}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Empty filters")
        mel = librosa.feature.melspectrogram(y=waveform.numpy(), sr=sample_rate, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the empty lowest band is no news to the user
        extractor = small("short_chunk_cnn", sample_rate=sample_rate)
    ours = extractor.front_end(waveform)[:, 0]
    assert_close(ours, 10 * np.log10(np.maximum(mel, 1e-10)))


@each
def test_below_the_minimum_the_network_itself_cannot_go_on(name):
    extractor = small(name)
    extractor(noise(2, extractor.min_samples))
    extractor.min_samples -= 1
    with pytest.raises(RuntimeError):
        extractor(noise(2, extractor.min_samples))


@each
def test_initial_weights_and_normalisations_are_torchs_defaults(name):
    torch.manual_seed(0)
    extractor = build_extractor(name, width=16)
    synchronise(extractor, 2)  # knows the normalisations
    for layer in extractor.modules():
        if isinstance(layer, nn.Conv2d):
            default = nn.Conv2d(layer.in_channels, layer.out_channels, 3)
            for ours, theirs in zip(layer.parameters(), default.parameters(), strict=True):
                limit = layer.weight[0].numel() ** -0.5
                assert 0.7 * limit < ours.abs().max() <= limit and theirs.abs().max() <= limit
                assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.5)
        if isinstance(layer, nn.BatchNorm2d):
            assert (layer.eps, layer.momentum) == (1e-5, 0.1)


@each
@pytest.mark.parametrize("autocast", [False, True])
def test_training_steps_lower_the_loss_with_finite_gradients(name, autocast):
    extractor, waveform = small(name), noise(4, 33_000)
    waveform[0] = 0  # silence, whose power has no logarithm
    classifier, labels = nn.Linear(extractor.n_features, 1), torch.tensor([[0.0], [1], [0], [1]])
    torch.nn.init.zeros_(classifier.weight)
    parameters = [*extractor.parameters(), *classifier.parameters()]
    optimizer, losses, mels = torch.optim.Adam(parameters, 1e-2), [], []
    extractor.spec_bn.register_forward_hook(lambda norm, inputs, output: mels.append(inputs[0]))
    for _ in range(8):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            features = extractor(waveform)
        logits = classifier(features.float())
        losses.append(nn.functional.binary_cross_entropy_with_logits(logits, labels))
        optimizer.zero_grad()
        losses[-1].backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters)
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
    assert features.dtype == (torch.bfloat16 if autocast else torch.float32)
    assert all(torch.equal(mel, extractor.front_end(waveform)) for mel in mels)


@pytest.mark.parametrize(
    ("rate", "n_fft", "n_bands", "f_max"),
    [(16_000, 512, 128, 8_000), (8_000, 512, 128, 4_000), (22_050, 706, 96, None)],
)
def test_log_mel_is_torchaudios_to_the_last_bit(rate, n_fft, n_bands, f_max):
    from torchaudio.transforms import AmplitudeToDB, MelSpectrogram

    hop, x = n_fft // 2, noise(2, 40_000)
    with warnings.catch_warnings(action="ignore"):  # the lowest band may contain no bin
        mel = MelSpectrogram(rate, n_fft, hop_length=hop, n_mels=n_bands, f_max=f_max)
    expected = AmplitudeToDB()(mel(x))
    assert torch.equal(LogMel(rate, n_fft, hop, n_bands, f_max or rate // 2)(x), expected)
