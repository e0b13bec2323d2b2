"""The settings of a run, with checks, and the presets."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from jetatag.extractors import EXTRACTORS, check_crop, min_samples, paper_crop
from jetatag.extractors.layers import Form
from jetatag.files import STRICT, Count, check_known, describe, read_json
from jetatag.joint.losses import CLASSIFICATION_LOSSES, DEFAULT_LOSS, PAIR_LOSSES, without_defaults
from jetatag.joint.methods import METHODS


def one_of(table: Mapping[str, Any], what: str, *others: str) -> AfterValidator:
    """Validator that a name is, when checked, in `table` or `others`."""

    def check(name: str) -> str:
        check_known([name], [*table, *others], what)
        return name

    return AfterValidator(check)


class Settings(BaseModel, **STRICT, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Base of the settings: frozen, with strictly checked types and one-sentence `ValueError`s."""

    def __init__(self, *positional: Any, **values: Any) -> None:
        names = list(type(self).model_fields)
        values |= zip(names[: len(positional)], positional, strict=True)
        check_known(values, names, f"{type(self).__name__} setting")
        try:
            super().__init__(**values)
        except ValidationError as error:
            problem = error.errors()[0]
            name = next((part for part in reversed(problem["loc"]) if isinstance(part, str)), "")
            raise ValueError(describe([problem], name)) from None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return self.model_dump()


class Phase(Settings):
    """A number of epochs with one optimizer at one learning rate."""

    optimizer: Literal["adam", "adamw", "sgd"]
    """adam, adamw (weight decay 0.01), or sgd with Nesterov momentum 0.9."""
    learning_rate: float = Field(gt=0)
    """Learning rate; in a one-cycle phase, the largest."""
    epochs: Count
    """Passes over the training clips, with one random crop per clip."""
    shape: Literal["constant", "one_cycle"] = "constant"
    """one_cycle: the step size rises for 30 % of the steps and then falls to almost nothing."""


PAPER_STAGE1 = (Phase("adam", 1e-4, 60), Phase("sgd", 1e-3, 20), Phase("sgd", 1e-4, 20))
PAPER_STAGE2 = (*PAPER_STAGE1, Phase("sgd", 1e-5, 100))


def _without_defaults(given: dict[str, float], info: Any) -> dict[str, float]:
    loss = info.data.get("classification_loss")  # missing if it is itself invalid
    return without_defaults(loss, given) if loss else given


Parameters = Annotated[dict[str, float], AfterValidator(_without_defaults)]


class RunConfig(Settings):
    """All settings of a run; the defaults are the paper's (Lee & Cho 2021)."""

    method: Annotated[str, one_of(METHODS, "method")] = "je"
    """What is trained, in which stages: a name in `joint.methods.METHODS`."""
    pair_loss: Annotated[str, one_of(PAIR_LOSSES, "pair_loss", "none")] = "cosine"
    """Loss between audio and tag vectors: a name in `joint.losses.PAIR_LOSSES`; none for methods
    without joint embedding."""
    pair_weight: float | None = Field(None, ge=0)
    """Weight of the pair loss; by default the one of its entry in `PAIR_LOSSES`."""
    reconstruction_weight: float = Field(1.0, ge=0)
    """Weight of the autoencoder's loss."""
    classification_loss: Annotated[str, one_of(CLASSIFICATION_LOSSES, "classification_loss")] = (
        DEFAULT_LOSS
    )
    """Loss of the classifier: a name in `joint.losses.CLASSIFICATION_LOSSES`. asymmetric and hill
    are for data with missing labels. A multiclass task accepts only bce and uses categorical
    cross-entropy."""
    classification_parameters: Parameters = Field({})
    """Parameters of classification_loss, such as gamma_negative; default values are dropped,
    because they do not change the run."""
    extractor: Annotated[str, one_of(EXTRACTORS, "extractor")] = "harmonic_cnn"
    """Network from waveform to features: a name in `extractors.EXTRACTORS`."""
    form: Form = "as_published"
    """Which to follow where an extractor's paper and code differ."""
    width: Count = 128
    """Channels of the first convolution; features = 8 × width, 1024 in the paper."""
    embedding_dim: Count = 128
    """Dimensions of the shared space (paper: 128 MTAT, 50 DCASE, 64 Speech Commands)."""
    sample_rate: Count = 16_000
    """Sample rate in Hz, that of the store."""
    crop_samples: Count = Field(default_factory=lambda values: paper_crop(values["extractor"]))
    """Samples of a crop (training) and of a window (evaluation); by default the paper's:
    harmonic_cnn 80,000, others 59,049."""
    batch_size: Count = 16
    """Crops per training step."""
    label_share: float = Field(1.0, gt=0, le=1)
    """Share of the training clips that is used, chosen by the random seed; larger shares contain
    the smaller ones."""
    shuffle: bool = True
    """New clip order every epoch; the original code kept one order (false)."""
    optimizer_form: Form = "as_published"
    """as_coded: Keras' update rules, and optimizers that continue from phase to phase."""
    stage1: tuple[Phase, ...] = Field(PAPER_STAGE1, strict=False)
    """Phases of the first of two stages."""
    stage2: tuple[Phase, ...] = Field(PAPER_STAGE2, strict=False)
    """Phases of the second stage, and of methods with one stage."""
    stage2_crops: int = Field(0, ge=0)
    """Number of different crops of a clip in stage 2, which repeat after as many epochs; their
    features are computed once. 0: new crops in every epoch, as in the paper."""
    n_windows: Count = 16
    """Windows per clip in evaluation."""
    windows: Literal["even", "as_coded"] = "even"
    """even: the last window ends with the clip; as_coded: hop (length − window) // n_windows,
    which never reaches the end."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Random seed of weights, crops, order, dropout and queries."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, cuda:1, …"""
    precision: Literal["auto", "32-true", "tf32", "bf16-mixed"] = "auto"
    """Arithmetic of the extractor. 32-true: float32 throughout; tf32: convolutions in
    TensorFloat-32, on NVIDIA GPUs since Ampere; bf16-mixed: bfloat16 where it is safe; auto: tf32
    where the GPU has it, elsewhere 32-true."""
    compile: bool = False
    """Compile the extractor: minutes at the start, fewer passes over memory in every step. Needs a
    compiler: gcc or clang for a GPU, g++ for a CPU."""
    sync_batch_norm: bool = False
    """With several processes: batch normalisation over the crops of all processes instead of each
    process's own."""
    checkpoint_minutes: float = Field(5.0, ge=0)
    """Minutes between checkpoints; one is also written after every phase."""
    tensorboard: bool = False
    """Also write the history as TensorBoard event files, in the run's folder `tensorboard`."""

    @model_validator(mode="after")
    def _check_contradictions(self) -> Self:
        if not (self.stage1 and self.stage2):
            raise ValueError("stage1 or stage2 is empty: give each at least one phase.")
        phases = (*self.stage1, *self.stage2)
        uncoded = any(phase.optimizer == "adamw" or phase.shape != "constant" for phase in phases)
        if self.optimizer_form == "as_coded" and uncoded:
            problem = "optimizer_form 'as_coded' has adam and sgd at constant rates only"
            raise ValueError(f"{problem}: choose 'as_published' or other phases.")
        check_crop(self.extractor, self.crop_samples, min_samples(self.extractor))
        if self.is_joint != (self.pair_loss != "none"):
            *others, last = (name for name, method in METHODS.items() if method.is_joint)
            problem = f"method {self.method!r} does not go with pair_loss {self.pair_loss!r}"
            needs = f"{', '.join(others)} and {last} need a pair loss, the others pair_loss 'none'"
            raise ValueError(f"{problem}: {needs}.")
        return self

    def replace(self, **changes: Any) -> Self:
        """A copy with some settings changed; the paper's crop, or one that is too short for a new
        extractor, becomes the new extractor's own."""
        values = self.to_dict()
        shortest = min_samples(changes.get("extractor", self.extractor))
        if self._has_own_crop or self.crop_samples < shortest:
            del values["crop_samples"]
        return type(self)(**values | changes)

    def changes(self) -> dict[str, Any]:
        """The settings that are not the defaults; a crop's default is that of the extractor."""
        own = {"crop_samples"} if self._has_own_crop else None
        return self.model_dump(exclude_defaults=True, exclude=own)

    @property
    def _has_own_crop(self) -> bool:
        return self.crop_samples == paper_crop(self.extractor)

    @property
    def is_joint(self) -> bool:
        """Whether the method learns the shared space, so that it needs a pair loss."""
        return METHODS[self.method].is_joint

    @property
    def classification_name(self) -> str:
        """The classification loss with its parameters, such as asymmetric-gamma_negative2."""
        parameters = sorted(self.classification_parameters.items())
        texts = (f"{name}{str(float(value)).removesuffix('.0')}" for name, value in parameters)
        return "-".join([self.classification_loss, *texts])

    @property
    def name(self) -> str:
        """The run folder's name: method, losses, extractor, share of labelled clips, seed."""
        labels = "" if self.label_share == 1 else f"-labels{100 * self.label_share:g}"
        method = method_name(self.method, self.pair_loss, self.classification_name)
        return f"{method}-{self.extractor}{labels}-seed{self.seed}"


def method_name(method: str, pair_loss: str, classification: str) -> str:
    """What identifies a method in names and tables: joint-subset_query, no_je_linear-hill, …"""
    pair_loss = "" if pair_loss == "none" else f"-{pair_loss}"
    return method + pair_loss + ("" if classification == DEFAULT_LOSS else f"-{classification}")


def small(epochs: int) -> RunConfig:
    """A network that learns from a few hundred clips in minutes on a CPU."""
    cycle = (Phase("adamw", 5e-3, epochs, "one_cycle"),)
    return RunConfig(
        extractor="short_chunk_cnn",
        width=16,
        embedding_dim=64,
        crop_samples=32_768,
        stage1=cycle,
        stage2=cycle,
        stage2_crops=8,
        n_windows=4,
    )


PRESETS = {
    "smoke": RunConfig(
        width=4,
        embedding_dim=16,
        crop_samples=73_728,
        stage1=(Phase("adam", 1e-3, 2), Phase("sgd", 1e-3, 1)),
        stage2=(Phase("adam", 1e-3, 3), Phase("sgd", 1e-3, 1)),
        stage2_crops=2,
        n_windows=4,
    ),
    "demo": small(epochs=40),
    "study": small(epochs=24),
    "fast": RunConfig(
        method="joint",
        pair_loss="subset_query",
        extractor="short_chunk_cnn",
        stage1=(Phase("adamw", 1e-3, 25, "one_cycle"),),
        stage2=(Phase("adamw", 1e-3, 36, "one_cycle"),),
        stage2_crops=16,
    ),
    "paper": RunConfig(),
}
"""`smoke`, `demo` and `study` run the same code as `paper` at a smaller scale: fewer epochs, less
width, shorter crops, and a higher learning rate, to learn from few clips. `fast` is what to train
first on data of MagnaTagATune's size: joint embedding in one stage with a CNN that is among the
strongest there (Won et al. 2020), in at most a fifth of `paper`'s passes through it."""


def preset(name: str, **changes: Any) -> RunConfig:
    """The preset `name` with some settings changed; raises `ValueError` for an unknown name."""
    check_known([name], PRESETS, "preset")
    return PRESETS[name].replace(**changes)


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Read a mapping from YAML, or from JSON such as a run's config.json; raises
    `FileNotFoundError`, or `ValueError` for other content."""
    path = Path(path)
    if not path.is_file():
        problem = "is not a file" if path.exists() else "does not exist"
        raise FileNotFoundError(f"{path} {problem}: give the path of a YAML file.")
    try:
        is_json = path.suffix == ".json"  # in which 1e-05 is a number
        values = read_json(path) if is_json else yaml.safe_load(path.read_text("utf-8"))
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text: save it as UTF-8.") from None
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise ValueError(f"{path} is not valid YAML ({problem}): correct it.") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} does not hold settings: write `name: value` lines.")
    return values
