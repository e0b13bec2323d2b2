"""What a run is: frozen settings that refuse nonsense, and the presets."""

import dataclasses
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_type_hints

import yaml

from jetatag.checks import check_known, check_type

Method = Literal[
    "je",
    "no_je",
    "no_je_linear",
    "no_je_early_stop",
    "bce_two_stage",
    "je_shuffled",
]
JOINT_METHODS = ("je", "je_shuffled")
"""Methods that learn a shared space, and so need a pair loss."""
TWO_STAGE_METHODS = (*JOINT_METHODS, "bce_two_stage")
"""Methods with a stage 1, after which the extractor is frozen."""
PairLoss = Literal[
    "none",
    "cosine",
    "cosine_as_coded",
    "margin_as_coded",
    "cosine_stop_grad",
    "cosine_variance",
    "soft_info_nce",
    "subset_query",
    "subset_completion",
]
Extractor = Literal[
    "harmonic_cnn",
    "music_sincnet",
    "sample_cnn",
    "sample_cnn_se",
    "sample_cnn_res",
    "sample_cnn_res_se",
    "short_chunk_cnn",
    "short_chunk_cnn_res",
    "own",
]


PAPER_CROPS = dict.fromkeys(get_args(Extractor), 59_049) | {"harmonic_cnn": 80_000}
"""Samples a crop in Lee & Cho 2021, 16 kHz."""


class Settings:
    """Base of the frozen settings below: every field is checked against its annotation."""

    def __post_init__(self) -> None:
        for name, annotation in get_type_hints(type(self)).items():
            object.__setattr__(self, name, check_type(getattr(self, name), annotation, name))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from plain values; unknown names are refused with the list of the valid ones."""
        fields = dataclasses.fields(cls)
        check_known(values, [field.name for field in fields], f"{cls.__name__} setting")
        for field in fields:
            if field.default is dataclasses.MISSING and field.name not in values:
                raise ValueError(f"{cls.__name__} needs {field.name!r}: {dict(values)} lacks it.")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)

    def replace(self, **changes: Any) -> Self:
        """A copy with some settings changed, checked like any other."""
        return type(self).from_dict({**self.to_dict(), **changes})


@dataclass(frozen=True)
class Phase(Settings):
    """One stretch of training with one optimizer at one learning rate."""

    optimizer: Literal["adam", "adamw", "sgd"]
    """adam, adamw (weight decay 0.01), or sgd with Nesterov momentum 0.9."""
    learning_rate: float
    """Step size; the largest one of a phase that is not constant."""
    epochs: int
    """Passes over the training clips, one random crop a clip each."""
    shape: Literal["constant", "one_cycle"] = "constant"
    """one_cycle: the step size rises in the first 30 % of the steps and falls to nothing after."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.learning_rate <= 0 or self.epochs < 1:
            raise ValueError(
                f"a phase needs a positive learning rate and at least one epoch, not {self}."
            )


PAPER_STAGE1 = (Phase("adam", 1e-4, 60), Phase("sgd", 1e-3, 20), Phase("sgd", 1e-4, 20))
PAPER_STAGE2 = (*PAPER_STAGE1, Phase("sgd", 1e-5, 100))


@dataclass(frozen=True)
class RunConfig(Settings):
    """Everything that decides a run's numbers; the defaults are the paper's (Lee & Cho 2021)."""

    method: Method = "je"
    """je: stage 1 jointly, stage 2 on the frozen extractor; no_je: end to end with the paper's
    classifier; and the controls. no_je_linear: end to end with one linear layer; no_je_early_stop:
    no_je as it was after its best validation epoch; bce_two_stage: stage 1 a linear layer and
    binary cross-entropy, stage 2 as je; je_shuffled: je whose stage 1 hears other clips' tags."""
    pair_loss: PairLoss = "cosine"
    """What ties music to tags in stage 1 (`joint.losses`); none where there is no stage 1."""
    extractor: Extractor = "harmonic_cnn"
    """Which network turns a waveform into features; own: the module given to `train`, which knows
    its form and width itself."""
    form: Literal["as_published", "as_coded"] = "as_published"
    """Where an extractor's paper and code differ, which one to follow."""
    width: int = 128
    """Channels of the first convolution; features = 8 × width, 1024 in the paper."""
    embedding_dim: int = 128
    """Dimensions of the shared space (paper: 128 MTAT, 50 DCASE, 64 Speech Commands)."""
    sample_rate: int = 16_000
    """Hz; the store must have been prepared at this rate."""
    crop_samples: int = 0
    """Samples an extractor sees at once, in training (crop) and evaluation (window); 0 stands for
    the paper's (harmonic_cnn 80,000, the others 59,049)."""
    batch_size: int = 16
    """Crops a training step."""
    label_share: float = 1.0
    """Share of the training clips that is used, chosen by the seed, a smaller share among those of
    a larger one: what is learned from few labels."""
    shuffle: bool = True
    """New clip order each epoch; the original code kept one order (false)."""
    optimizer_form: Literal["as_published", "as_coded"] = "as_published"
    """as_coded: Keras' update rules, and optimizers that go on from phase to phase."""
    stage1: tuple[Phase, ...] = PAPER_STAGE1
    """Phases of joint training."""
    stage2: tuple[Phase, ...] = PAPER_STAGE2
    """Phases of classifier training, and of end-to-end training without joint embedding."""
    stage2_crops: int = 0
    """Different crops a clip in stage 2, whose frozen features are kept in memory and reused after
    that many epochs (an interrupted run computes them again); 0 takes fresh crops in every epoch,
    as the paper does."""
    n_windows: int = 16
    """Windows a clip in evaluation."""
    windows: Literal["even", "as_coded"] = "even"
    """even: the last window ends with the clip; as_coded: hop (length − window) // n_windows,
    which never reaches the end."""
    seed: int = 0
    """Start of all chance: weights, crops, order, dropout, queries."""
    device: str = "auto"
    """auto (GPU where there is one), cpu, cuda, cuda:1, …"""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """bf16-mixed runs the extractor's convolutions and matrix products in bfloat16, compiled (which
    takes a minute or two at the start) and with the channels innermost: what a GPU wants."""
    sync_batch_norm: bool = False
    """With several processes: batch normalisation over the crops of all of them, as one process
    would have it, instead of over each one's own."""
    checkpoint_minutes: float = 5.0
    """Training stands on the disk at least this often (minutes), and after every phase."""
    tensorboard: bool = False
    """Also write the history as TensorBoard event files into the run's folder `tensorboard`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop_samples == 0:
            object.__setattr__(self, "crop_samples", PAPER_CROPS[self.extractor])
        sizes = ("width", "embedding_dim", "sample_rate", "crop_samples", "batch_size", "n_windows")
        for name in sizes:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.stage2_crops < 0 or self.seed < 0 or self.checkpoint_minutes < 0:
            raise ValueError("stage2_crops, seed and checkpoint_minutes must not be negative.")
        if not 0 < self.label_share <= 1:
            raise ValueError(f"label_share must be above 0 and at most 1, not {self.label_share}.")
        if self.seed >= 2**63:
            raise ValueError(f"seed must be below 2⁶³, not {self.seed}.")
        phases = (*self.stage1, *self.stage2)
        if self.optimizer_form == "as_coded" and any(
            phase.optimizer == "adamw" or phase.shape != "constant" for phase in phases
        ):
            raise ValueError(
                "optimizer_form 'as_coded' knows adam and sgd at constant rates alone: choose "
                "'as_published' or other phases."
            )
        if (self.method in JOINT_METHODS) != (self.pair_loss != "none"):
            raise ValueError(
                f"method {self.method!r} does not go with pair_loss {self.pair_loss!r}: "
                f"{' and '.join(JOINT_METHODS)} need a pair loss, the others take pair_loss 'none'."
            )
        if not (self.stage1 and self.stage2):
            raise ValueError("stage1 and stage2 need at least one phase each.")

    def replace(self, **changes: Any) -> Self:
        """A copy with some settings changed; the paper's crop goes with its extractor."""
        if self.crop_samples == PAPER_CROPS[self.extractor]:
            changes = {"crop_samples": 0} | changes
        return super().replace(**changes)

    @property
    def name(self) -> str:
        """The run folder's name: method, pair loss, extractor, share of labels and seed."""
        method = self.method if self.pair_loss == "none" else f"{self.method}-{self.pair_loss}"
        labels = "" if self.label_share == 1 else f"-labels{100 * self.label_share:g}"
        return f"{method}-{self.extractor}{labels}-seed{self.seed}"


PRESETS: Mapping[str, RunConfig] = types.MappingProxyType(
    {
        "smoke": RunConfig(
            width=4,
            embedding_dim=16,
            crop_samples=73_728,
            stage1=(Phase("adam", 1e-3, 2), Phase("sgd", 1e-3, 1)),
            stage2=(Phase("adam", 1e-3, 3), Phase("sgd", 1e-3, 1)),
            stage2_crops=2,
            n_windows=4,
            device="cpu",
        ),
        "demo": RunConfig(
            extractor="sample_cnn",
            width=16,
            crop_samples=59_049,
            batch_size=8,
            stage1=(Phase("adam", 2e-3, 16), Phase("adam", 2e-4, 4)),
            stage2=(Phase("adam", 2e-3, 16), Phase("adam", 2e-4, 4)),
            stage2_crops=16,
        ),
        "study": RunConfig(
            extractor="sample_cnn",
            width=8,
            embedding_dim=64,
            stage1=(Phase("adamw", 5e-3, 16, "one_cycle"),),
            stage2=(Phase("adamw", 5e-3, 24, "one_cycle"),),
            stage2_crops=4,
            n_windows=4,
        ),
        "fast": RunConfig(
            stage1=(Phase("adamw", 1e-3, 25, "one_cycle"),),
            stage2=(Phase("adamw", 1e-3, 36, "one_cycle"),),
            stage2_crops=16,
        ),
        "paper": RunConfig(),
    }
)
"""Each preset runs the same code. `smoke`, `demo` and `study` have fewer epochs, less width and
shorter crops, and to learn from few clips in few epochs they also step faster. `fast` is `paper` in
at most a fifth of its passes through the extractor, a training step counted as three: for joint
embedding 25 · 3 + 16 instead of 100 · 3 + 200, because stage 2 reuses the features of 16 crops
(`stage2_crops`); end to end 36 · 3 instead of 200 · 3."""


def preset(name: str, **changes: Any) -> RunConfig:
    """The preset `name` with some settings changed; unknown names are refused (`ValueError`)."""
    check_known([name], PRESETS, "preset")
    return PRESETS[name].replace(**changes)


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML mapping; a missing file or anything else in it is refused in one sentence."""
    path = Path(path)
    if not path.is_file():
        told = "is no file" if path.exists() else "does not exist"
        raise FileNotFoundError(f"{path} {told}: give the path of a YAML file.")
    try:
        values = yaml.safe_load(path.read_text())
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text: save it as that.") from None
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise ValueError(f"{path} is not valid YAML: {problem}.") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold `name: value` lines.")
    return values
