"""A run's clips with its predictions, and searches over them, without widgets."""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
import soundfile
from matplotlib.figure import Figure
from scipy.special import logit
from sklearn.preprocessing import normalize

from jetatag import figures
from jetatag.apps import By
from jetatag.apps.search import as_query, log_scores, top_tags
from jetatag.data.crops import window_starts
from jetatag.data.store import AudioStore
from jetatag.evaluation.spaces import shared_map
from jetatag.files import check_known
from jetatag.metrics import queries
from jetatag.metrics.layouts import map_note, shared_layout
from jetatag.training.run import Run

Z = "z"  # the name of the shared space


@dataclass(frozen=True)
class Clips:
    """Scored clips; the rows of all arrays are in the same order.

    titles, clip_ids, splits : (clip,) str; labels : (clip, tag) 0/1; probs : (clip, window, tag);
    spaces and landmarks : name → vectors of the clips (clip, dim) and of the tags (tag, dim);
    z_centre : (dim,), subtracted before a search; z_scale : (2,), scale and offset from a cosine to
    a logit; starts_s : (clip, window), start of each window; window_s : its length, both in
    seconds; store and rows : the audio and each clip's row there, or None
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
    z_scale: np.ndarray
    starts_s: np.ndarray
    window_s: float
    store: AudioStore | None = None
    rows: np.ndarray | None = None
    _layouts: dict[tuple, np.ndarray] = field(default_factory=dict, repr=False)

    @classmethod
    def read(
        cls,
        run: Run,
        plain: Run | None = None,
        store: AudioStore | None = None,
        splits: Sequence[str] = (),
    ) -> "Clips":
        """The clips that `run`, a run with joint embedding, has scored.

        `plain`, a run without joint embedding on the same clips, adds its features as a space;
        `store` adds titles, splits and audio. Clips of other `splits` of the store are added: the
        runs score them once and keep the result in their folders. Raises `ValueError` for runs and
        stores that do not fit, and for `splits` without a store.
        """
        own = predictions_of(run, store, splits)
        if "z_audio" not in own:
            problem = f"{run.folder} has no shared space"
            raise ValueError(f"{problem}: explore a run with joint embedding.")
        spaces = {"h with JE": own["h"], Z: own["z_audio"]}
        if plain:
            other = predictions_of(plain, store, splits)
            if "z_audio" in other or not np.array_equal(other["clip_ids"], own["clip_ids"]):
                remedy = "give a run without joint embedding that scored the same clips"
                raise ValueError(f"{plain.folder} does not fit {run.folder}: {remedy}.")
            spaces = {"h without JE": other["h"], **spaces}
        config, ids, labels = run.config, own["clip_ids"], own["labels"]
        saved = run.read_arrays("embeddings.npz")
        landmarks = {name: mean_by_tag(points, labels) for name, points in spaces.items()}
        landmarks[Z] = saved["z_query"]
        rows, lengths = None, np.full(len(ids), config.crop_samples)
        table = pd.DataFrame({"title": np.char.add("clip ", ids), "path": "", "split": "unknown"})
        if store:
            rows = rows_of(store, ids, run)
            table, lengths = store.table.iloc[rows], store.lengths[rows]
        windows = config.crop_samples, config.n_windows, config.windows
        return cls(
            tags=run.vocabulary.tags,
            titles=table.title.where(table.title != "", table.path).to_numpy(str),
            clip_ids=ids,
            splits=table.split.to_numpy(str),
            labels=labels,
            probs=own["probs"],
            spaces=spaces,
            landmarks=landmarks,
            z_centre=saved["z_centre"],
            z_scale=saved["z_scale"],
            starts_s=np.array([window_starts(n, *windows) for n in lengths]) / config.sample_rate,
            window_s=config.crop_samples / config.sample_rate,
            store=store,
            rows=rows,
        )

    def __len__(self) -> int:
        return len(self.clip_ids)

    def layout(self, space: str, method: str = "umap", seed: int = 0) -> np.ndarray:
        """Coordinates of clips, then tags, (clip + tag, 2), computed once: by `shared_map` in the
        shared space, by `shared_layout` in others."""
        check_known([space], self.spaces, "space")
        key = (space, method, seed)
        if key not in self._layouts:
            clips, tags = self.spaces[space], self.landmarks[space]
            if space == Z:
                shared = {"z_audio": clips, "z_query": tags, "z_centre": self.z_centre}
                self._layouts[key], _ = shared_map(shared, method, seed)
            else:
                self._layouts[key] = shared_layout(clips, tags, method, seed)
        return self._layouts[key]

    def map_note(self, method: str = "umap", seed: int = 0) -> str:
        """How far to trust the map of the shared space."""
        fit = self._directions @ normalize(self.landmarks[Z] - self.z_centre).T
        return map_note(self.layout(Z, method, seed), self.labels, fit)

    def numbers(self, clip_ids: Iterable[str]) -> list[int]:
        """Rows of the clips with these `clip_ids`, in the order given; unknown ids are left out."""
        rows = pd.Index(self.clip_ids).get_indexer(list(clip_ids))
        return rows[rows >= 0].tolist()

    @cached_property
    def mean_probs(self) -> np.ndarray:
        """Mean probability over a clip's windows, (clip, tag) float32."""
        return self.probs.mean(axis=1)

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per clip: `clip_id`, `title`, `true tags`, and the five most probable tags with
        their probabilities as `predicted`."""
        tags = np.array(self.tags)
        true = [", ".join(tags[row == 1]) or "none" for row in self.labels]
        best = (top_tags(self.tags, row) for row in self.mean_probs)
        predicted = [", ".join(f"{tag} {prob:.2f}" for tag, prob in row) for row in best]
        columns = {"title": self.titles, "true tags": true, "predicted": predicted}
        return pd.DataFrame({"clip_id": self.clip_ids, **columns})

    def scores(self, weights: Mapping[str, float], by: By) -> np.ndarray:
        """How well each clip matches wanted tags (weights up to 1) and unwanted ones (down to −1),
        (clip,) in [0, 1], as `search.Index.tags` ranks files."""
        used, query = as_query(weights, self.tags)
        probs = {"classifier": self.mean_probs, "space": self._space_probs}
        sources = [own[:, used] for name, own in probs.items() if by in (name, "combined")]
        return np.exp(log_scores(sources, query))

    def like(self, clip: int) -> dict[By, np.ndarray]:
        """Similarity of every clip to one of them, in two ways, (clip,) each: the cosine in the
        shared space, and the correlation of the classifier's log odds."""
        log_odds = logit(np.clip(self.mean_probs, 1e-6, 1 - 1e-6))
        profiles = normalize(log_odds - log_odds.mean(axis=1, keepdims=True))
        sources = {"space": self._directions, "classifier": profiles}
        return {by: vectors @ vectors[clip] for by, vectors in sources.items()}

    def compare(self, selected: Iterable[int]) -> pd.DataFrame:
        """Tags of the selected clips compared with the rest, the most overrepresented first:
        `clips`, how many selected ones have the tag; its share in `selected` and `rest`; and the
        `difference` of the shares."""
        inside = np.isin(np.arange(len(self)), list(selected))
        labels = pd.DataFrame(self.labels, columns=pd.Index(self.tags, name="tag"))
        shares = {"selected": labels[inside].mean(), "rest": labels[~inside].mean()}
        table = pd.DataFrame({"clips": labels[inside].sum(), **shares}).fillna(0.0)
        table["difference"] = table.selected - table.rest
        return table.sort_values("difference", ascending=False, kind="stable")

    def audio(self, clip: int) -> tuple[np.ndarray, int]:
        """A clip's samples (sample,) float32 and sample rate (Hz); `ValueError` without a store."""
        if self.store is None:
            raise ValueError("audio needs a store: give Clips.read the store of the run.")
        row = self.rows[clip]
        return self.store.read([row], [0], self.store.lengths[row])[0], self.store.sample_rate

    def flac(self, clip: int) -> bytes:
        """A clip's audio as a FLAC file."""
        file = io.BytesIO()
        soundfile.write(file, *self.audio(clip), format="FLAC", subtype="PCM_16")
        return file.getvalue()

    def figure(self, clip: int) -> Figure:
        """A clip's taggram, true tags marked by •; with a store, below its spectrogram."""
        audio, sample_rate = self.audio(clip) if self.store else (None, 0)
        carried = zip(self.tags, self.labels[clip], strict=True)
        names = [f"• {tag}" if true else tag for tag, true in carried]
        starts_s, order = np.unique(self.starts_s[clip], return_index=True)
        halfway = (starts_s[1:] + starts_s[:-1] + self.window_s) / 2  # between windows' centres
        edges_s = np.concatenate([starts_s[:1], halfway, starts_s[-1:] + self.window_s])
        probs = self.probs[clip, order]
        return figures.taggram(probs, edges_s, names, audio=audio, sample_rate=sample_rate)

    @cached_property
    def _directions(self) -> np.ndarray:
        return normalize(self.spaces[Z] - self.z_centre)

    @cached_property
    def _space_probs(self) -> np.ndarray:
        tags = queries.directions(self.landmarks[Z], self.z_centre)
        return queries.space_probs(self._directions, tags, self.z_scale)


def predictions_of(
    run: Run, store: AudioStore | None, splits: Sequence[str]
) -> dict[str, np.ndarray]:
    """Arrays for the clips that a run has scored, then for those of other `splits`."""
    own = run.read_arrays("embeddings.npz") | run.read_arrays("scores.npz")
    parts = [own]
    if splits:
        if store is None:
            raise ValueError("clips of other splits need a store: give Clips.read that of the run.")
        check_known(splits, store.table.split.unique(), "split")
        scored = set(store.table.split.iloc[rows_of(store, own["clip_ids"], run)])
        parts += [score_split(run, store, split) for split in splits if split not in scored]
    names = own.keys() & {"clip_ids", "labels", "probs", "h", "z_audio"}
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def score_split(run: Run, store: AudioStore, split: str) -> dict[str, np.ndarray]:
    """One split's arrays, kept in the run's folder until its test clips are scored again."""
    from jetatag.apps import tagger  # these imports take seconds
    from jetatag.evaluation.predict import score_clips
    from jetatag.training.processes import launch

    kept, rows = run.folder / f"explored.{split}.npz", store.rows(split)
    if kept.is_file() and kept.stat().st_mtime >= (run.folder / "scores.npz").stat().st_mtime:
        arrays = run.read_arrays(kept.name)
        if np.array_equal(arrays["clip_ids"], store.table.clip_id.iloc[rows]):
            return arrays
    run.check_store(store)
    loaded = tagger.load(run.folder, folded=False)
    config = run.config.replace(device=loaded.device.type)
    probs, h, z_audio = score_clips(loaded.model, store, rows, config, launch(config), split)
    arrays = {**store.describe(rows), "probs": probs, "h": h.numpy()}
    if config.is_joint:
        arrays["z_audio"] = z_audio.numpy()
    run.write_arrays(kept.name, arrays)
    return arrays


def rows_of(store: AudioStore, clip_ids: np.ndarray, run: Run) -> np.ndarray:
    """Rows of a run's clips in its store."""
    rows = pd.Index(store.table.clip_id).get_indexer(clip_ids)
    if (rows < 0).any():
        raise ValueError(f"{store.folder} lacks clips of {run.folder}: open the store of that run.")
    return rows


def mean_by_tag(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean of the clips with each tag, (tag, dim), or of all clips for a tag that none has."""
    weights = np.where(labels.any(axis=0), labels, 1).astype(np.float32)
    return weights.T @ points / weights.sum(axis=0)[:, None]
