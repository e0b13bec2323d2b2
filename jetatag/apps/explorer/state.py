"""The explorer's settings, and the ranking and colours that follow from them; no widget here."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jetatag import figures
from jetatag.apps.explorer.clips import Clips, mean_of_carriers
from jetatag.checks import check_known, check_type
from jetatag.files import check_writable, write_json

DEFAULTS = {
    "layout": "umap",
    "colour": "tag",
    "tag": "",
    "weights": {},
    "selection": [],
    "clip": "",
    "like": "",
    "play_on_hover": False,
}
"""All settings, in JSON's types: clips by their ids, `weights` from −1 to 1 by tag."""
COLOURINGS = {
    "split": "split",
    "true tag": "tag",
    "score of a tag": "score",
    "fit to the query": "fit",
}
"""Label → value of `colour`: what the points of the maps are coloured by."""


class State:
    """The settings `state` (see `DEFAULTS`) for `clips`, saved to the JSON file `keep` at every
    change and read from it at the start.

    Raises `ValueError` for invalid settings and for a file that does not hold settings of these
    clips.
    """

    def __init__(
        self,
        clips: Clips,
        state: Mapping[str, Any] | None = None,
        keep: Path | str | None = None,
        seed: int = 0,
    ) -> None:
        self.clips, self.keep, self.seed = clips, Path(keep) if keep else None, seed
        given = check_type(state or {}, Mapping, "the explorer's state")
        self.state = check_state({**DEFAULTS, "tag": clips.tags[0], **given}, clips.tags)
        if self.keep:
            check_writable(self.keep)
            self.state |= self._saved()

    def _saved(self) -> dict[str, Any]:
        if not self.keep.is_file():
            return {}
        try:
            saved = check_type(json.loads(self.keep.read_text()), dict, "the explorer's state")
            return check_state({**self.state, **saved}, self.clips.tags)
        except (ValueError, RecursionError) as error:
            problem = str(error).rstrip(".")
            raise ValueError(
                f"{self.keep} holds no state of these clips ({problem}): delete it or name "
                "another file."
            ) from None

    def change(self, **settings: Any) -> None:
        """Change settings, and save them."""
        self.state |= settings
        if self.keep:
            write_json(self.keep, self.state)

    @property
    def clip(self) -> int | None:
        """Row of the clip that is shown; None before one was chosen."""
        return next(iter(self.clips.numbers([self.state["clip"]])), None)

    @property
    def weights(self) -> dict[str, float]:
        """The weighted tags of the query, without weights of 0."""
        return {tag: weight for tag, weight in self.state["weights"].items() if weight}

    def query(self) -> str:
        """The query in words."""
        if like := self.clips.numbers([self.state["like"]]):
            return f"more like {self.clips.titles[like[0]]}"
        return (
            ", ".join(f"{tag} {weight:+.1f}" for tag, weight in self.weights.items()) or "nothing"
        )

    def scores(self) -> tuple[np.ndarray, np.ndarray] | None:
        """How well each clip answers the query, (clip,), in the shared space and by the classifier;
        None without a query."""
        if like := self.clips.numbers([self.state["like"]]):
            return self.clips.like(like[0])
        if not self.weights:
            return None
        return self.clips.space_scores(self.weights), self.clips.classifier_scores(self.weights)

    def best(self, top: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the `top` clips for the query, in the shared space and by the classifier; empty
        without a query. The clip that others are to be like is left out."""
        like = self.clips.numbers([self.state["like"]])
        scores = self.scores() or (np.zeros(0), np.zeros(0))
        orders = [np.argsort(-each, kind="stable")[: top + len(like)] for each in scores]
        in_space, by_classifier = (order[~np.isin(order, like)][:top] for order in orders)
        return in_space, by_classifier

    def ranking(self, top: int = 10) -> pd.DataFrame:
        """The clips of `best` side by side, with their scores and true tags."""
        columns: dict[tuple[str, str], Any] = {}
        names = ("shared space", "classifier")
        for name, scores, best in zip(names, self.scores() or (), self.best(top), strict=False):
            columns[name, "clip"] = self.clips.titles[best]
            columns[name, "score"] = scores[best]
            columns[name, "true tags"] = [self.clips.true_tags(clip) for clip in best]
        table = pd.DataFrame(columns)
        return table.set_axis(pd.RangeIndex(1, len(table) + 1, name="rank"))

    def selected(self) -> pd.DataFrame:
        """The selected clips: `clip_id`, `title`, `true tags`, `predicted`."""
        return self.clips.table().iloc[self.clips.numbers(self.state["selection"])]

    def colours(self) -> tuple[str, np.ndarray]:
        """What the points are coloured by, and its value (clip + tag,) for every clip, then for
        every tag: the mean over the clips that carry it."""
        kind, tag, scores = self.state["colour"], self.state["tag"], self.scores()
        column = self.clips.tags.index(tag)
        if kind == "split":
            return "split", np.append(self.clips.splits, ["tag"] * len(self.clips.tags))
        if kind == "tag":
            name, values = f"tag: {tag}", self.clips.labels[:, column].astype(float)
        elif kind == "score":
            name, values = f"score: {tag}", self.clips.mean_probs[:, column]
        else:
            name, values = self.query(), scores[0] if scores else np.zeros(len(self.clips))
        return name, np.append(values, mean_of_carriers(values[:, None], self.clips.labels))


def check_state(state: Mapping[str, Any], tags: Sequence[str]) -> dict[str, Any]:
    """Return `state` if it is valid for clips with these tags; raise `ValueError` otherwise."""
    check_known(state, DEFAULTS, "setting of the explorer")
    for name, value in state.items():
        check_type(value, type(DEFAULTS[name]), f"the explorer's {name}")
    check_type(state["selection"], Sequence[str], "the explorer's selection")
    check_known([state["layout"]], figures.LAYOUTS, "layout")
    check_known([state["colour"]], COLOURINGS.values(), "colouring")
    check_known([state["tag"], *state["weights"]], tags, "tag")
    for tag, weight in state["weights"].items():
        if abs(check_type(weight, float, f"the weight of {tag!r}")) > 1:
            raise ValueError(f"the weight of {tag!r} must be between −1 and 1, not {weight}.")
    return dict(state)
