"""Extractors: shapes, refusals, and equality with direct or slower computation."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from jetatag.config import RunConfig
from jetatag.extractors import EXTRACTORS, build_extractor, layers, sample_cnn
from jetatag.extractors.harmonic import HarmonicSTFT, filter_centres
from jetatag.extractors.layers import ConvNorm, synchronise
from jetatag.extractors.sinc import SincConv, SincFilters, band_edges
from jetatag.training import processes

WIDTH = 2
MIN_SAMPLES = dict.fromkeys(EXTRACTORS, 59_049) | {
    "harmonic_cnn": 73_728,
    "short_chunk_cnn": 32_512,
    "short_chunk_cnn_res": 257,
}

every_extractor = pytest.mark.parametrize("name", EXTRACTORS)


def noise(batch: int, n_samples: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, n_samples, generator=generator) * 2 - 1


def small(name: str, **options) -> torch.nn.Module:
    return build_extractor(name, width=WIDTH, generator=torch.Generator().manual_seed(1), **options)


@every_extractor
def test_shortest_and_longer_waveforms_give_eight_features_a_channel(name):
    extractor = small(name)
    assert extractor.min_samples == MIN_SAMPLES[name]
    assert extractor.n_features == 8 * WIDTH
    for n_samples in (MIN_SAMPLES[name], 80_000, 3 * MIN_SAMPLES[name] + 17):
        assert extractor(noise(2, n_samples)).shape == (2, 8 * WIDTH)


@every_extractor
def test_one_sample_less_than_the_minimum_is_refused(name):
    minimum = f"at least {MIN_SAMPLES[name]:,} samples, not {MIN_SAMPLES[name] - 1:,}.*silence"
    with pytest.raises(ValueError, match=minimum):
        small(name)(noise(2, MIN_SAMPLES[name] - 1))


@every_extractor
@pytest.mark.parametrize(
    "waveform",
    [
        torch.zeros(80_000),
        torch.zeros(1, 1, 80_000),
        torch.zeros(1, 80_000).short(),
        torch.zeros(1, 80_000).double(),
        np.zeros((1, 80_000), np.float32),
    ],
)
def test_other_shapes_and_types_are_refused(name, waveform):
    with pytest.raises(ValueError, match=r"shape \(batch, sample\).*one row per crop"):
        small(name)(waveform)


@every_extractor
def test_the_smallest_batch_of_training_is_the_one_stated(name):
    extractor, shortest = small(name), noise(1, MIN_SAMPLES[name])
    assert extractor.eval()(shortest).shape == (1, 8 * WIDTH)
    if name in ("harmonic_cnn", "short_chunk_cnn"):
        assert not hasattr(extractor, "min_batch")
        assert extractor.train()(shortest).shape == (1, 8 * WIDTH)
    else:
        assert extractor.min_batch == 2
        with pytest.raises(ValueError, match="more than 1 value per channel when training"):
            extractor.train()(shortest)


@every_extractor
def test_features_of_a_clip_do_not_depend_on_the_batch(name):
    extractor = small(name).eval()
    waveform = noise(3, 80_000)
    together = extractor(waveform)
    alone = torch.cat([extractor(row[None]) for row in waveform])
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-5 * together.abs().max().item())


@every_extractor
def test_gradient_reaches_every_parameter(name):
    extractor = small(name)
    extractor(noise(4, 80_000)).square().sum().backward()
    gradients = {n: p.grad for n, p in extractor.named_parameters() if not n.endswith("conv.bias")}
    assert all(grad is not None and grad.isfinite().all() for grad in gradients.values())
    # Batch normalisation removes a bias before it with the mean, so its gradient is only rounding.
    untouched = [name for name, grad in gradients.items() if not grad.any()]
    assert [name for name in untouched if not name.endswith("bias")] == []


def test_a_bias_before_normalisation_neither_learns_nor_changes_what_does():
    one = ConvNorm(torch.nn.Conv2d(3, 4, 3)).double()
    one.conv.bias.data.normal_()
    x, pull = torch.randn(2, 3, 9, 9).double(), torch.randn(2, 4, 7, 7).double()
    plain = copy.deepcopy(one)
    (one(x) * pull).sum().backward()
    (plain.norm(plain.conv(x)) * pull).sum().backward()
    assert one.conv.bias.grad is None and plain.conv.bias.grad.abs().max() < 1e-12
    assert torch.equal(one.conv.weight.grad, plain.conv.weight.grad)
    assert torch.equal(one.norm.bias.grad, plain.norm.bias.grad)
    assert torch.equal(one.norm.running_mean, plain.norm.running_mean)


@every_extractor
def test_the_generator_alone_decides_the_weights(name):
    torch.manual_seed(2)
    first = small(name).state_dict()
    second = small(name).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    other = build_extractor(name, width=WIDTH).state_dict()
    assert any(not torch.equal(first[key], other[key]) for key in first)


@every_extractor
def test_bfloat16_autocast_trains_near_float32(name):
    extractor, waveform = small(name).eval(), noise(2, 80_000)
    exact = extractor(waveform)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = extractor(waveform)
    rough.float().sum().backward()
    assert (rough - exact).abs().max() < 0.05 * exact.abs().max()
    assert all(p.grad.isfinite().all() for p in extractor.parameters())


@pytest.mark.parametrize("name", [n for n in EXTRACTORS if "short_chunk" not in n])  # no ConvNorm
def test_folding_the_normalisation_changes_neither_features_nor_gradients(name, monkeypatch):
    extractor, waveform = small(name).double(), noise(2, 80_000).double()
    extractor(waveform)  # changes the moving statistics
    extractor.eval()

    def features_and_gradients():
        extractor.zero_grad()
        features = extractor(waveform)
        features.square().sum().backward()
        return features, {n: p.grad.clone() for n, p in extractor.named_parameters()}

    folded, folded_gradients = features_and_gradients()
    monkeypatch.setattr(ConvNorm, "forward", lambda self, x: self.norm(self.conv(x)))
    features, gradients = features_and_gradients()
    torch.testing.assert_close(folded, features)
    torch.testing.assert_close(folded_gradients, gradients, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(  # together all layers
    "name", ["harmonic_cnn", "music_sincnet", "short_chunk_cnn", "short_chunk_cnn_res"]
)
def test_extractors_compile(name, monkeypatch):
    monkeypatch.setattr(sample_cnn, "BLOCK_WIDTHS", (1, 1, 4))  # each block takes seconds
    extractor, waveform = small(name), noise(2, 80_000)
    plain = copy.deepcopy(extractor)
    torch.compiler.reset()
    extractor.compile(backend="aot_eager")  # everything but generating machine code
    for module in (extractor, plain):
        torch.manual_seed(3)  # dropout
        module.train()(waveform).sum().backward()
        module.eval()
    with torch.no_grad():
        torch.testing.assert_close(extractor(waveform), plain(waveform))
    ours, theirs = extractor.named_parameters(), plain.named_parameters()
    for (_, one), (_, other) in zip(ours, theirs, strict=True):
        if other.grad is None:  # a bias before normalisation
            assert one.grad is None
        else:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "trainable", "moving"),
    [
        ("harmonic_cnn", 4_437_901, 4_876),
        ("sample_cnn", 2_632_192, 6_912),
        ("sample_cnn_se", 24_691_456, 6_912),
        ("sample_cnn_res", 4_869_632, 13_056),
        ("sample_cnn_res_se", 26_928_896, 13_056),
        ("music_sincnet", 27_027_328, 13_056),
    ],
)
def test_paper_width_has_the_published_number_of_parameters(name, trainable, moving):
    extractor = build_extractor(name)
    assert extractor.n_features == 1024
    assert sum(p.numel() for p in extractor.parameters()) == trainable
    buffers = extractor.state_dict().items()
    assert sum(values.numel() for key, values in buffers if "running" in key) == moving


def test_initial_weights_follow_the_original():
    names = ("sample_cnn_res_se", "harmonic_cnn", "music_sincnet")
    sample_cnn, harmonic_cnn, sincnet = map(build_extractor, names)
    drawn = [
        (sample_cnn.blocks[4].conv_1.conv, 6 / (3 * 256)),  # He
        (sample_cnn.blocks[2].shortcut.conv, 6 / (128 + 256)),  # Glorot
        (sample_cnn.blocks[0].excite.widen, 6 / (128 + 2048)),  # Glorot
        (sample_cnn.dense, 6 / (1024 + 1024)),  # Glorot
        (sincnet.first.conv, 6 / (3 * 256)),  # He
        (harmonic_cnn.blocks[3].conv.conv, 6 / (9 * (128 + 256))),  # Glorot
    ]
    for layer, squared_limit in drawn:
        assert layer.weight.abs().max().item() == pytest.approx(squared_limit**0.5, rel=1e-3)
        assert not layer.bias.any()


def test_as_coded_only_reorders_the_harmonic_axis():
    published, coded = (HarmonicSTFT(16_000, form) for form in ("as_published", "as_coded"))
    waveform = noise(1, 8_192)
    by_harmonic = published(waveform)  # (batch, harmonic, level, frame)
    read_as_coded = by_harmonic.flatten(1, 2).unflatten(1, (128, 6)).transpose(1, 2)
    torch.testing.assert_close(coded(waveform), read_as_coded)
    assert not torch.equal(by_harmonic, read_as_coded)


def test_every_published_channel_is_one_harmonic():
    centres = filter_centres(16_000)
    assert centres.shape == (6, 128)
    assert centres[0, 0].item() == pytest.approx(32.703, abs=1e-3)  # C1
    torch.testing.assert_close(centres, torch.arange(1, 7)[:, None] * centres[:1])
    assert centres.max() < 8_000


def test_level_has_a_floor_80_db_below_each_examples_peak():
    tone = torch.sin(2 * torch.pi * 440 * torch.arange(16_000) / 16_000)[None]
    level_db = HarmonicSTFT(16_000, "as_published")(torch.cat([1e4 * tone, 1e-4 * tone]))
    assert level_db[0].min().item() == pytest.approx(level_db[0].max().item() - 80, abs=1e-3)
    assert level_db[1].min().item() == pytest.approx(-50)


def direct(conv: SincConv, x: torch.Tensor) -> torch.Tensor:
    """The filters, then the strided convolution, without FFT."""
    padded = F.pad(x, (conv.n_zeros, conv.n_zeros))
    filtered = F.conv1d(padded, conv.filters().unsqueeze(1))
    return F.conv1d(filtered, conv.weight, conv.bias, stride=3)


@pytest.mark.parametrize("form", ["as_published", "as_coded"])
@pytest.mark.parametrize(
    ("n_taps", "n_samples"), [(251, 2_999), (251, 3_000), (251, 3_001), (2501, 9_000)]
)
def test_one_fft_convolution_equals_filters_and_convolution(form, n_taps, n_samples):
    options = {"n_filters": 3, "n_taps": n_taps, "form": form}
    conv = small("music_sincnet", **options).first.conv.double()
    x = noise(2, n_samples).double().unsqueeze(1).requires_grad_()
    inputs = [x, *conv.parameters()]
    pull = torch.randn(direct(conv, x).shape, generator=torch.Generator().manual_seed(0)).double()
    slow = [direct(conv, x), *torch.autograd.grad(direct(conv, x), inputs, pull)]
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        x, conv = x.detach().to(dtype).requires_grad_(), conv.to(dtype)
        inputs = [x, *conv.parameters()]
        fast = [conv(x), *torch.autograd.grad(conv(x), inputs, pull.to(dtype))]
        for one, other in zip(fast, slow, strict=True):
            assert one.shape == other.shape
            assert (one - other).abs().max() <= tolerance * other.abs().max()


def test_the_published_filters_pass_their_bands():
    filters = SincFilters(64, 2501, 16_000, "as_published")()
    response = torch.fft.rfft(filters, 16_000).abs()  # one bin a Hz
    low, high = band_edges(64, 16_000)
    for i in (8, 32, 56):
        middle = (low[i] + 50 + high[i] + 100) / 2
        inside, outside = response[i, int(middle)], response[i, int(high[i]) + 300]
        assert inside > 100 * outside
        assert response[i].argmax().item() == pytest.approx(middle, rel=0.3)


def test_as_coded_sinc_pads_twice():
    lengths = {}
    for form in ("as_published", "as_coded"):
        conv = small("music_sincnet", form=form).first.conv
        lengths[form] = conv(noise(1, 59_049).unsqueeze(1)).shape[2]
    assert lengths == {"as_published": 19_683, "as_coded": 20_516}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("harmonic", {}, "unknown extractor 'harmonic'.*harmonic_cnn, music_sincnet, sample_cnn"),
        ("sample_cnn", {"form": "as_coded"}, "unknown option of sample_cnn 'form'.*width"),
        ("harmonic_cnn", {"form": "coded"}, "'coded'.*as_published, as_coded"),
        ("music_sincnet", {"form": "coded"}, "'coded'.*as_published, as_coded"),
        ("music_sincnet", {"n_taps": 2500}, "n_taps must be an odd number of at least 3, not 2500"),
        ("music_sincnet", {"n_filters": 0}, "n_filters must be at least 1, not 0"),
        ("music_sincnet", {"filter_rate": 0}, "filter_rate must be at least 1000, not 0"),
        ("harmonic_cnn", {"sample_rate": "16"}, "sample_rate must be of type float"),
        ("harmonic_cnn", {"sample_rate": 8_000}, "128 levels, 8,000 Hz give 104"),
        ("sample_cnn", {"width": 0}, "width.*at least 1, not 0"),
        ("harmonic_cnn", {"width": 1.5}, "width must be of type int, not 1.5"),
    ],
)
def test_unknown_names_and_options_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_extractor(name, **options)


def test_batch_norm_that_cannot_be_synchronised_is_refused():
    own = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3), torch.nn.BatchNorm1d(2))
    with pytest.raises(ValueError, match=r"not torch\.nn\.modules\.batchnorm\.BatchNorm1d"):
        synchronise(own, 2)
    synchronise(build_extractor("sample_cnn", width=2), 2)


@every_extractor
def test_folded_once_an_extractor_gives_the_same_bits(name):
    extractor, audio = small(name), 0.1 * noise(2, MIN_SAMPLES[name])
    with torch.no_grad():
        extractor.train()(audio)  # changes the moving statistics
        plain = extractor.eval()(audio)
        folded = layers.fold(copy.deepcopy(extractor))
        assert plain.std() > 0 and torch.equal(folded(audio), plain)
        assert torch.equal(layers.fold(folded)(audio), plain)


@every_extractor
@pytest.mark.parametrize("n_extra", [0, 500])
@pytest.mark.parametrize("n_clips", [1, 3])
def test_in_onednns_layout_an_extractor_is_the_same_function(name, n_extra, n_clips):
    extractor, audio = small(name), 0.1 * noise(3, MIN_SAMPLES[name] + n_extra)
    with torch.no_grad():
        extractor.train()(audio)  # changes the moving statistics
        plain = extractor.eval()(audio)[:n_clips]
        kept = layers.fold(copy.deepcopy(extractor), onednn=True)
        found = kept(audio[:n_clips])
    assert plain.std() > 0 and found.is_contiguous()
    torch.testing.assert_close(found, plain, rtol=0, atol=2e-5 * plain.abs().max().item())
    in_layout = any(isinstance(part, sample_cnn.OneDNNConv) for part in kept.modules())
    assert in_layout == (name in ("sample_cnn", "sample_cnn_res"))


@pytest.mark.parametrize(
    "changes, kept", [({}, True), ({"compile": True}, False), ({"precision": "bf16-mixed"}, False)]
)
def test_frozen_extractors_keep_onednns_layout_in_float32_without_compiling(changes, kept):
    config = RunConfig(extractor="sample_cnn", width=WIDTH, device="cpu", **changes)
    frozen = processes.folded(small("sample_cnn"), config, processes.launch(config))
    assert any(isinstance(part, sample_cnn.OneDNNConv) for part in frozen.modules()) == kept


def test_harmonic_cnn_chooses_its_memory_format_by_the_machine(monkeypatch):
    wide, narrow = (build_extractor("harmonic_cnn", width=width) for width in (64, 4))
    for capability in ("AVX2", "AVX512"):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda c=capability: c)
        assert wide.prefers_channels_last(torch.device("cpu")) == (capability == "AVX512")
        assert not narrow.prefers_channels_last(torch.device("cpu"))
        assert narrow.prefers_channels_last(torch.device("cuda:0"))
    x, waveform = [], torch.randn(1, 73_728, generator=torch.Generator().manual_seed(0)) / 10
    for memory_format in (torch.contiguous_format, torch.channels_last):
        narrow.to(memory_format=memory_format).zero_grad()
        hook = narrow.blocks[0].register_forward_hook(lambda *parts: x.append(parts[1][0]))
        narrow.train()(waveform).sum().backward()
        hook.remove()
        assert x[-1].is_contiguous(memory_format=memory_format)
    assert_close = torch.testing.assert_close
    assert_close(x[0], x[1])
