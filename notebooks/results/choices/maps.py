"""How the form of the shared map was chosen: its quality for several forms on the validation clips.

    python notebooks/results/choices/maps.py STORE RUN... > notebooks/results/choices/maps.csv

prints a CSV with a row per method, form and layout, the mean and the worst over runs and layout
seeds, and draws the first form and the last, by UMAP of the first run, as maps.png beside itself.
"""

import itertools
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from jetatag import figures
from jetatag.apps import tagger
from jetatag.data.store import AudioStore
from jetatag.evaluation.predict import score_clips
from jetatag.evaluation.spaces import MAPS, shared_map
from jetatag.metrics.layouts import layout, map_quality, shared_layout
from jetatag.training.processes import launch
from jetatag.training.run import Run

Space = dict[str, np.ndarray]
SEEDS, TAG = range(3), "techno"


def together(clips: np.ndarray, tags: np.ndarray, method: str, seed: int) -> np.ndarray:
    return layout(np.concatenate([clips, tags]), method, seed)


BESIDE = "clips only, and a tag beside clips that fit it"
FORMS: dict[str, tuple[Callable[..., np.ndarray], bool]] = {  # and whether each kind is centred
    "vectors as they are": (together, False),
    "each kind centred": (together, True),
    f"{BESIDE}; spacing 1": (partial(shared_layout, spacing=1), False),
    f"{BESIDE}; spacing 2": (partial(shared_layout, spacing=2), False),
    BESIDE: (shared_layout, False),
}


def space_of(run: Run, store: AudioStore) -> Space:
    """The validation clips, and the tags with which searches compare them."""
    config, rows = run.config.replace(device="cpu"), store.rows("valid")
    model = tagger.load(run.folder, device="cpu", folded=False).model
    _, _, z_audio = score_clips(model, store, rows, config, launch(config), "valid")
    saved = run.read_arrays("embeddings.npz")
    return {"z_audio": z_audio.numpy(), "z_query": saved["z_query"], "z_centre": saved["z_centre"]}


def main(store_folder: str, *folders: str) -> None:
    store = AudioStore.open(store_folder)
    labels, rows, drawn = store.labels[store.rows("valid")], [], {}
    for run in map(Run.open, folders):
        space = space_of(run, store)
        fit = shared_map(space, "pca")[1]
        kinds = [space[name] - space["z_centre"] for name in ("z_audio", "z_query")]
        which = {"method": run.config.method, "pair_loss": run.config.pair_loss}
        for (form, (place, centred)), method, seed in itertools.product(FORMS.items(), MAPS, SEEDS):
            xy = place(*(kind - centred * kind.mean(axis=0) for kind in kinds), method, seed)
            mixing, precision = map_quality(xy, labels, fit).ratios().values()
            quality = {"mixing": mixing, "precision": precision}
            rows.append({**which, "form": form, "layout": method, **quality})
            drawn.setdefault(form, (xy, f"mixing {mixing:.2f}, precision {precision:.2f}"))
    keys = [*which, "form", "layout"]
    table = pd.DataFrame(rows).groupby(keys, sort=False).agg(["mean", "min"])
    table.columns = ["_".join(names) for names in table.columns]
    print(table.round(3).to_csv(), end="")
    before, *_, after = drawn.values()
    draw({"before": before, "after": after}, labels, store.vocabulary.tags)


def draw(maps: dict[str, tuple[np.ndarray, str]], labels: np.ndarray, tags: Sequence[str]) -> None:
    """Draw maps with their notes, by title."""
    layouts, notes = ({title: own[part] for title, own in maps.items()} for part in (0, 1))
    carriers = labels[:, tags.index(TAG)] == 1
    figure = figures.maps(layouts, carriers, TAG, tags, notes)
    figure.savefig(Path(__file__).with_name("maps.png"), dpi=80)


if __name__ == "__main__":
    main(*sys.argv[1:])
