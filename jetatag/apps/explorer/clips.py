"""A run's clips, what the run says of them, and what one can ask of them; no widget here."""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
import soundfile
from matplotlib.figure import Figure

from jetatag import figures
from jetatag.data.crops import window_starts
from jetatag.data.store import AudioStore
from jetatag.files import check_known
from jetatag.metrics import queries
from jetatag.training.runs import Run

SAID = ("clip_ids", "labels", "probs", "h", "z_audio")
Z, H, H_WITHOUT = "z", "h with JE", "h without JE"


@dataclass(frozen=True)
class Clips:
    """Clips that were scored, row by row the same in every array.

    titles, clip_ids, splits : (clip,) str; labels : (clip, tag) 0/1; probs : (clip, window, tag);
    spaces and landmarks : name → vectors of the clips (clip, dim) and of the tags (tag, dim), the
    shared space under `Z`; z_centre : (dim,), what a search subtracts from it; starts_s :
    (clip, window) seconds where each window begins, each `window_s` long (seconds); store and
    rows : where the audio lies, None and empty where it is not at hand
    """

    tags: tuple[str, ...]
    titles: np.ndarray
    clip_ids: np.ndarray
    splits: np.ndarray
    labels: np.ndarray
    probs: np.ndarray
    spaces: dict[str, np.ndarray]
    landmarks: dict[str, np.ndarray]
    z_centre: np.ndarray
    starts_s: np.ndarray
    window_s: float
    store: AudioStore | None = None
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    _layouts: dict[tuple, np.ndarray] = field(default_factory=dict, repr=False)

    @classmethod
    def read(
        cls,
        run: Run,
        plain: Run | None = None,
        store: AudioStore | None = None,
        splits: Sequence[str] = (),
    ) -> "Clips":
        """The clips that `run`, one with joint embedding, has scored; `plain`, a run without it on
        the same clips, adds its features as a space, and `store` titles, splits and sound.

        Clips of other `splits` of the store lie behind them; the runs score those now, as `predict`
        would, and keep it in their folders. Raises `ValueError` for a run without a shared space,
        for one as `plain`, for runs or a store of other clips, and for splits without a store.
        """
        said = said_of(run, store, splits)
        if "z_audio" not in said:
            raise ValueError(
                f"{run.folder} has no shared space: explore a run with joint embedding (method je)."
            )
        space, config, tags = run.read_arrays("embeddings.npz"), run.config, run.vocabulary.tags
        spaces = {H: said["h"], Z: said["z_audio"]}
        if plain:
            if plain.config.pair_loss != "none":
                raise ValueError(f"{plain.folder} has joint embedding: give a run without it.")
            other = said_of(plain, store, splits)
            if not np.array_equal(other["clip_ids"], said["clip_ids"]):
                raise ValueError(f"{plain.folder} scored other clips than {run.folder}.")
            spaces = {H_WITHOUT: other["h"], **spaces}
        labels, ids = said["labels"], said["clip_ids"]
        of_tags = {name: mean_of_carriers(points, labels) for name, points in spaces.items()}
        rows = rows_of(store, ids, run) if store else np.zeros(0, int)
        table = store.table.iloc[rows] if store else None
        lengths = store.lengths[rows] if store else np.full(len(labels), config.crop_samples)
        starts = [
            window_starts(length, config.crop_samples, config.n_windows, config.windows)
            for length in lengths
        ]
        return cls(
            tags=tags,
            titles=titles(table) if store else np.array([f"clip {c}" for c in ids]),
            clip_ids=ids,
            splits=table.split.to_numpy(str) if store else np.full(len(labels), "not told"),
            labels=labels,
            probs=said["probs"],
            spaces=spaces,
            landmarks={**of_tags, Z: space["z_query"][: len(tags)]},
            z_centre=space["z_centre"],
            starts_s=np.array(starts) / config.sample_rate,
            window_s=config.crop_samples / config.sample_rate,
            store=store,
            rows=rows,
        )

    def __len__(self) -> int:
        return len(self.clip_ids)

    # Where they lie

    def layout(self, space: str, method: str = "umap", seed: int = 0) -> np.ndarray:
        """The clips and behind them the tags of a space in one plane, (clip + tag, 2); each is
        worked out once. See `figures.layout`."""
        check_known([space], self.spaces, "space")
        told = (space, method, seed)
        if told not in self._layouts:
            points = np.concatenate([self.spaces[space], self.landmarks[space]])
            self._layouts[told] = figures.layout(points, method, seed)
        return self._layouts[told]

    # What is said of them

    @cached_property
    def mean_probs(self) -> np.ndarray:
        """Probability of every tag, mean over a clip's windows, (clip, tag) float32."""
        return self.probs.mean(axis=1)

    def true_tags(self, clip: int) -> str:
        """A clip's tags, comma-separated."""
        return ", ".join(np.array(self.tags)[self.labels[clip] == 1]) or "none"

    def predicted_tags(self, clip: int, top: int = 5) -> str:
        """A clip's `top` most probable tags with their probabilities, comma-separated."""
        best = np.argsort(-self.mean_probs[clip], kind="stable")[:top]
        return ", ".join(f"{self.tags[i]} {self.mean_probs[clip, i]:.2f}" for i in best)

    # What may be asked

    def space_scores(self, weights: Mapping[str, float]) -> np.ndarray:
        """How well each clip fits tags weighted from 1 (wanted) to −1 (not wanted), (clip,): the
        cosine in the shared space with the weighted sum of the tags' directions."""
        wanted = queries.weighted_query(self.landmarks[Z], self.z_centre, self._row(weights))
        return self._directions @ unit(wanted)

    def classifier_scores(self, weights: Mapping[str, float]) -> np.ndarray:
        """The same by the classifier, (clip,): log probability of what is wanted and of the
        absence of what is not, each by its weight."""
        row = self._row(weights)
        used = np.flatnonzero(row)
        return queries.classifier_scores(self.mean_probs[:, used], row[None, used])[:, 0]

    def like(self, clip: int) -> tuple[np.ndarray, np.ndarray]:
        """How alike each clip is to one of them, twice (clip,): the cosine in the shared space, and
        the correlation of the classifier's log odds."""
        return self._directions @ self._directions[clip], self._profiles @ self._profiles[clip]

    def compare(self, selected: Iterable[int]) -> pd.DataFrame:
        """Tags of the selected clips against all others, the most overrepresented first: how many
        of the selected carry a tag, their share, the share of the rest, and the difference."""
        inside = np.isin(np.arange(len(self)), list(selected))
        counts = self.labels[inside].sum(axis=0)
        share = counts / max(1, inside.sum())
        rest = self.labels[~inside].sum(axis=0) / max(1, (~inside).sum())
        columns = {"clips": counts, "selected": share, "rest": rest, "difference": share - rest}
        table = pd.DataFrame(columns, index=pd.Index(self.tags, name="tag"))
        return table.sort_values("difference", ascending=False, kind="stable")

    def numbers(self, clip_ids: Iterable[str]) -> list[int]:
        """Row numbers of those of the ids that are among the clips, in their order."""
        rows = pd.Index(self.clip_ids).get_indexer(list(clip_ids))
        return rows[rows >= 0].tolist()

    # What is heard

    def waveform(self, clip: int) -> tuple[np.ndarray, int]:
        """A clip's whole audio (sample,) float32 and its sample rate (Hz); refused (`ValueError`)
        where there is no store."""
        if self.store is None:
            raise ValueError("there is no sound without a store: give Clips.read the run's store.")
        row = self.rows[clip]
        return self.store.read([row], [0], self.store.lengths[row])[0], self.store.sample_rate

    def sound(self, clip: int) -> bytes:
        """A clip as a FLAC file, which browsers play and which loses nothing."""
        audio, sample_rate = self.waveform(clip)
        file = io.BytesIO()
        soundfile.write(file, audio, sample_rate, format="FLAC", subtype="PCM_16")
        return file.getvalue()

    def figure(self, clip: int) -> Figure:
        """A clip's taggram, true tags marked by •, below its spectrogram where there is a store."""
        audio, sample_rate = self.waveform(clip) if self.store else (None, 0)
        carried = zip(self.tags, self.labels[clip], strict=True)
        names = [f"• {tag}" if true else tag for tag, true in carried]
        starts_s, order = np.unique(self.starts_s[clip], return_index=True)
        halfway = (starts_s[1:] + starts_s[:-1] + self.window_s) / 2  # between two windows' centres
        edges_s = np.concatenate([starts_s[:1], halfway, starts_s[-1:] + self.window_s])
        probs = self.probs[clip, order]
        return figures.taggram(probs, edges_s, names, audio=audio, sample_rate=sample_rate)

    @cached_property
    def _directions(self) -> np.ndarray:
        return unit(self.spaces[Z] - self.z_centre)

    @cached_property
    def _profiles(self) -> np.ndarray:
        probs = np.clip(self.mean_probs, 1e-6, 1 - 1e-6)
        odds = np.log(probs / (1 - probs))
        return unit(odds - odds.mean(axis=1, keepdims=True))

    def _row(self, weights: Mapping[str, float]) -> np.ndarray:
        check_known(weights, self.tags, "tag")
        return np.array([weights.get(tag, 0.0) for tag in self.tags], np.float32)


def said_of(
    run: Run, store: AudioStore | None, splits: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """What a run says of the clips that it has scored and, behind them, of those of other splits:
    clip_ids, labels, probs, h and, with joint embedding, z_audio."""
    own = run.read_arrays("embeddings.npz") | run.read_arrays("scores.npz")
    parts = [own]
    if splits:
        if store is None:
            raise ValueError("clips of other splits lie in the store: give Clips.read the run's.")
        from jetatag.apps.explorer.splits import score_once  # whose imports take seconds

        check_known(splits, store.table.split.unique(), "split")
        scored = set(store.table.split.iloc[rows_of(store, own["clip_ids"], run)])
        parts += [score_once(run, store, split) for split in splits if split not in scored]
    names = [name for name in SAID if name in own]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def rows_of(store: AudioStore, clip_ids: np.ndarray, run: Run) -> np.ndarray:
    """Where a run's clips lie in its store; a store that lacks some is refused (`ValueError`)."""
    rows = pd.Index(store.table.clip_id).get_indexer(clip_ids)
    if (rows < 0).any():
        raise ValueError(f"{store.folder} lacks clips of {run.folder}: open its own store.")
    return rows


def titles(table: pd.DataFrame) -> np.ndarray:
    """What to call the clips of a store's table: their titles, or else their paths, (clip,) str."""
    return np.where(table.title != "", table.title, table.path).astype(str)


def mean_of_carriers(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Where each tag lies in a space that has no place for tags: the mean of the clips that carry
    it, (tag, dim); of all clips for one that none carries."""
    weights = np.where(labels.any(axis=0), labels, 1).astype(np.float32)
    return weights.T @ points / weights.sum(axis=0)[:, None]


def unit(vectors: np.ndarray) -> np.ndarray:
    """`vectors` (…, dim) at length 1; what has no direction stays 0."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.maximum(length, 1e-12)).astype(np.float32)
