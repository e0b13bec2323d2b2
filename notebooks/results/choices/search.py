"""How the form of search was chosen: mean average precision of many forms on the validation clips.

    python notebooks/results/choices/search.py STORE RUN... > notebooks/results/choices/search.csv

prints a CSV with a row per form for each method and pair loss, the mean over its runs.
"""

import sys

import numpy as np
import pandas as pd
import torch
from scipy.special import expit, logit
from scipy.stats import rankdata
from tqdm import tqdm

from jetatag.data.crops import window_starts
from jetatag.data.store import AudioStore
from jetatag.joint.heads import JointModel, build_model
from jetatag.joint.losses import PAIR_LOSSES
from jetatag.joint.methods import METHODS
from jetatag.metrics import queries as q
from jetatag.metrics import tag_areas
from jetatag.training.run import Run


def trained_model(run: Run) -> JointModel:
    method = METHODS[run.config.method]
    model = build_model(run.config, run.vocabulary, method.head)
    run.load_weights(method.stages[-1].name, model)
    return model.eval().requires_grad_(False)


@torch.inference_mode()
def windows_of(run: Run, model: JointModel, store: AudioStore) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (clip, window, tag) and z_audio (clip, window, dim) of the validation clips."""
    config, outputs = run.config, []
    for row in tqdm(store.rows("valid"), config.name, unit="clip"):
        starts = window_starts(
            store.lengths[row], config.crop_samples, config.n_windows, config.windows
        )
        audio = store.read([row] * len(starts), starts, config.crop_samples)
        h = model.extractor(torch.from_numpy(audio))
        outputs.append((model.probabilities(model.classifier(h)), model.projection(h)))
    probs, z = zip(*outputs, strict=True)
    return torch.stack(probs).numpy(), torch.stack(z).numpy()


def forms(run: Run, store: AudioStore, queries: np.ndarray) -> dict[str, np.ndarray]:
    """Form of search → scores (clip, query)."""
    model = trained_model(run)
    probs, z_windows = windows_of(run, model, store)
    probs, zero = probs.mean(axis=1).astype(np.float64), 0.0
    middle, z = (q.directions(points, zero) for points in (z_windows[:, 2], z_windows.mean(axis=1)))
    wanted, unwanted = queries > 0, queries < 0
    excludes = unwanted.any(axis=1)

    def encoded(tag_sets):
        return model.tag_encoder(torch.from_numpy(np.float32(tag_sets))).detach().numpy()

    train = store.labels[store.rows("train", run.config.label_share, run.config.seed)]
    z_train = encoded(train)
    centre = z_train.mean(axis=0)

    def mean_of_answering(clips):  # (clip, query) 0/1
        means = clips.T @ z_train / np.maximum(clips.sum(axis=0), 1)[:, None]
        means = np.where(clips.any(axis=0)[:, None], means, centre)
        return q.directions(means, centre)

    scale = np.array([model.query_scale.log_scale.exp().item(), model.query_scale.offset.item()])
    shares = (train.sum(axis=0) + 1) / (len(train) + 2)
    singles, sets, other_sets = (encoded(s) for s in (np.eye(len(probs.T)), wanted, unwanted))
    from_centre, carriers = q.directions(z_windows.mean(axis=1), centre), mean_of_answering(train)
    by_carriers = q.query_scores(q.space_probs(from_centre, carriers, scale), queries)
    logits = standardised(from_centre @ carriers.T) + logit(shares)
    by_standardised = q.query_scores(expit(logits), queries)
    if PAIR_LOSSES[run.config.pair_loss].searchable_by_tags:
        audio, audio_middle, tags = z, middle, q.directions(singles, zero)
    else:
        audio, tags = from_centre, carriers
        audio_middle = q.directions(z_windows[:, 2], centre)
    in_space, in_middle = (q.space_probs(each, tags, scale) for each in (audio, audio_middle))
    set_probs, other_probs = (q.space_probs(z, vectors, scale) for vectors in (sets, other_sets))
    by_set = np.log(set_probs) + excludes * np.log1p(-other_probs)
    difference = sets - 0.25 * excludes[:, None] * other_sets
    classifier, space = (q.query_scores(each, queries) for each in (probs, in_space))
    directions = np.where(unwanted, 0.25 * queries, queries) @ tags
    return {
        "classifier, product over tags": classifier,
        "space, cosine with the set, middle window": middle @ difference.T,
        "space, cosine with the set": z @ difference.T,
        "space, cosine with the sum of the tags": audio @ directions.T,
        "space, cosine with the mean of clips that match": from_centre
        @ mean_of_answering(q.answers(train, queries)).T,
        "space, probability of the set": by_set,
        "space, product over tags, middle window": q.query_scores(in_middle, queries),
        "space, product over tags": space,
        "space by clips with the tags, product over tags": by_carriers,
        "space by clips with the tags, standardised, product over tags": by_standardised,
        "space, smallest over tags": smallest(in_space, queries),
        "combined, product": classifier + space,
        "combined, product, space squared": classifier + 2 * space,
        "combined, product, classifier squared": 2 * classifier + space,
        "combined, product with the set": classifier + by_set,
        "combined, product, by clips with the tags": classifier + by_carriers,
        "combined, product, by clips with the tags, standardised": classifier + by_standardised,
        "combined, mean of probabilities": q.query_scores((probs + in_space) / 2, queries),
        "combined, mean of log odds": q.query_scores(
            expit((log_odds(probs) + log_odds(in_space)) / 2), queries
        ),
        "combined, sum of standardised scores": standardised(classifier) + standardised(space),
        "combined, sum of ranks": rankdata(classifier, axis=0) + rankdata(space, axis=0),
    }


def smallest(probs: np.ndarray, queries: np.ndarray) -> np.ndarray:
    rows = [np.hstack([probs[:, row > 0], 1 - probs[:, row < 0]]).min(axis=1) for row in queries]
    return np.stack(rows, axis=1)


def log_odds(probs: np.ndarray) -> np.ndarray:
    return logit(np.clip(probs, 1e-12, 1 - 1e-12))


def standardised(scores: np.ndarray) -> np.ndarray:
    return (scores - scores.mean(axis=0)) / np.maximum(scores.std(axis=0), 1e-12)


def main(store_folder: str, *folders: str) -> None:
    store, rows = AudioStore.open(store_folder), []
    queries = q.choose_queries(store.labels[store.rows("train")])
    relevant = q.answers(store.labels[store.rows("valid")], queries)
    queries, relevant = queries[relevant.any(axis=0)], relevant[:, relevant.any(axis=0)]
    kinds, weights = q.kinds(queries), np.ones((1, len(relevant)))
    for run in map(Run.open, folders):
        for form, scores in forms(run, store, queries).items():
            areas = tag_areas(relevant, scores, weights)["average_precision"][0]
            means = {kind: areas[kinds == kind].mean() for kind in q.KINDS}
            own = {"method": run.config.method, "pair_loss": run.config.pair_loss}
            rows.append({**own, "form": form, **means})
    table = pd.DataFrame(rows).groupby(["method", "pair_loss", "form"], sort=False).mean()
    table["mean"] = table.mean(axis=1)
    print(table.round(4).to_csv(), end="")


if __name__ == "__main__":
    main(*sys.argv[1:])
