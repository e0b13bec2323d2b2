"""The explorer's settings, and the rankings and colours that they determine, without widgets."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from jetatag.apps import RANKINGS, By
from jetatag.apps.explorer.clips import Clips, mean_by_tag
from jetatag.config import Settings, one_of
from jetatag.files import check_known, check_type, check_writable, write_json
from jetatag.metrics.layouts import LAYOUTS

COLOURS = {"split": "split", "tag": "true tag", "score": "score of a tag"}
COLOURS |= {"fit": "fit to the query"}
"""What can colour the points of the maps, and its names."""


class View(Settings):
    """What a user sets: clips by their ids, and `colour`, which colours the points of the maps."""

    layout: Annotated[str, one_of(LAYOUTS, "layout")] = "umap"
    colour: Literal[*COLOURS] = "tag"
    tag: str = ""
    weights: dict[str, Annotated[float, Field(ge=-1, le=1)]] = Field({})
    selection: list[str] = Field([])
    clip: str = ""
    like: str = ""
    play_on_hover: bool = False


class State:
    """The settings `state` (those of `View`) for `clips`, saved to the JSON file `keep` at every
    change and restored from it. Raises `ValueError` for invalid settings and an invalid file."""

    def __init__(
        self, clips: Clips, state: dict | None = None, keep: Path | str | None = None, seed: int = 0
    ) -> None:
        self.clips, self.keep, self.seed = clips, Path(keep) if keep else None, seed
        self.state = {"tag": clips.tags[0]}
        self._set(state or {})
        if self.keep:
            check_writable(self.keep)
        if self.keep and self.keep.is_file():
            try:
                self._set(json.loads(self.keep.read_text("utf-8")))
            except (ValueError, RecursionError) as error:
                problem = f"{keep} holds no state of these clips ({str(error).rstrip('.')})"
                raise ValueError(f"{problem}: delete it or name another file.") from None

    def _set(self, settings: Any) -> None:
        state = self.state | check_type(settings, dict, "the explorer's state")
        self.state = View(**state).to_dict()  # in JSON's types
        check_known([self.state["tag"], *self.state["weights"]], self.clips.tags, "tag")

    def change(self, **settings: Any) -> None:
        """Change settings, and save them."""
        self.state |= settings
        if self.keep:
            write_json(self.keep, self.state)

    def query(self) -> str:
        """The query in words."""
        if like := self.clips.numbers([self.state["like"]]):
            return f"more like {self.clips.titles[like[0]]}"
        weights = self.state["weights"].items()
        return ", ".join(f"{tag} {weight:+.1f}" for tag, weight in weights if weight) or "nothing"

    def scores(self) -> dict[By, np.ndarray]:
        """How well each clip matches the query, (clip,) for each of `RANKINGS`; without
        "combined" for "more like" a clip. Empty without a query."""
        if like := self.clips.numbers([self.state["like"]]):
            return self.clips.like(like[0])
        weights = self.state["weights"]
        rankings = RANKINGS if any(weights.values()) else ()
        return {by: self.clips.scores(weights, by) for by in rankings}

    def best(self, top: int) -> dict[By, np.ndarray]:
        """Rows of the `top` clips for the query in each ranking, without the example clip."""
        like = self.clips.numbers([self.state["like"]])
        orders = {by: np.argsort(-own, kind="stable") for by, own in self.scores().items()}
        return {by: order[~np.isin(order, like)][:top] for by, order in orders.items()}

    def colours(self) -> tuple[str, np.ndarray]:
        """What colours the points, and its values (clip + tag,): for every clip, then for every tag
        the mean over the clips that have it."""
        clips, kind, tag = self.clips, self.state["colour"], self.state["tag"]
        column, name = clips.tags.index(tag), f"{kind}: {tag}"
        if kind == "split":
            return "split", np.append(clips.splits, ["tag"] * len(clips.tags))
        if kind == "tag":
            values = clips.labels[:, column].astype(float)
        elif kind == "score":
            values = clips.mean_probs[:, column]
        else:
            name, values = self.query(), self.scores().get("space", np.zeros(len(clips)))
        return name, np.append(values, mean_by_tag(values[:, None], clips.labels))
