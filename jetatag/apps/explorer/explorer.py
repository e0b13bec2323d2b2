"""The explorer: what a user has set, shown live where there are widgets and else as a picture."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import DisplayHandle, display
from matplotlib.figure import Figure

from jetatag import figures
from jetatag.apps.explorer.browser import Echo
from jetatag.apps.explorer.clips import Clips, mean_of_carriers
from jetatag.files import check_known, check_type, check_writable, write_json

START = {
    "layout": "umap",
    "colour": "tag",
    "tag": "",
    "weights": {},
    "selection": [],
    "clip": "",
    "like": "",
    "play_on_hover": False,
}
"""What can be set, in JSON's types: clips by their ids, `weights` a number from −1 to 1 a tag."""
COLOURS = {
    "split": "split",
    "true tag": "tag",
    "score of a tag": "score",
    "fit to what is asked": "fit",
}
LIVE = "Run this cell in JupyterLab, and the maps come alive: click, lasso, ask, listen."


class Explorer:
    """Clips to see, to ask for and to hear; the last expression of a notebook's cell.

    `state` says what to begin with (see `START`); what is then set can be read from it. With
    `keep`, a JSON file, it is written there at every change and read from there at the beginning,
    so that a notebook that is opened again shows what it showed. Without a browser (papermill,
    nbconvert) the same cell leaves the figure of the maps. Raises `ValueError` for what cannot be
    set, and for a file that keeps no state of these clips.
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
        self.state = valid({**START, "tag": clips.tags[0], **given}, clips.tags)
        if self.keep:
            check_writable(self.keep)
            self.state |= self._kept()

    def _kept(self) -> dict[str, Any]:
        """What was set before, nothing where nothing was."""
        if not self.keep.is_file():
            return {}
        try:
            kept = check_type(json.loads(self.keep.read_text()), dict, "the explorer's state")
            return valid({**self.state, **kept}, self.clips.tags)
        except (ValueError, RecursionError) as error:
            told = str(error).rstrip(".")
            raise ValueError(
                f"{self.keep} keeps no state of these clips ({told}): delete it, or keep another."
            ) from None

    def change(self, **settings: Any) -> None:
        """Set some of the state, and keep it."""
        self.state |= settings
        if self.keep:
            write_json(self.keep, self.state)

    # What the state asks for

    @property
    def clip(self) -> int | None:
        """Row of the clip that is looked at, None before one was chosen."""
        return next(iter(self.clips.numbers([self.state["clip"]])), None)

    @property
    def weights(self) -> dict[str, float]:
        """The tags that are asked for, without those at 0."""
        return {tag: weight for tag, weight in self.state["weights"].items() if weight}

    def scores(self) -> tuple[np.ndarray, np.ndarray] | None:
        """How well each clip fits what is asked, (clip,), in the shared space and by the
        classifier; None where nothing is asked."""
        if like := self.clips.numbers([self.state["like"]]):
            return self.clips.like(like[0])
        if not self.weights:
            return None
        return self.clips.space_scores(self.weights), self.clips.classifier_scores(self.weights)

    def asked(self) -> str:
        """What is asked, in words."""
        if like := self.clips.numbers([self.state["like"]]):
            return f"more like {self.clips.titles[like[0]]}"
        return (
            ", ".join(f"{tag} {weight:+.1f}" for tag, weight in self.weights.items()) or "nothing"
        )

    def best(self, top: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the `top` clips that fit best what is asked, in the shared space and by the
        classifier; none where nothing is asked."""
        like = self.clips.numbers([self.state["like"]])
        asked = self.scores() or (np.zeros(0), np.zeros(0))
        orders = [np.argsort(-scores, kind="stable")[: top + len(like)] for scores in asked]
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
        """The selected clips: id, title, true and predicted tags."""
        rows = self.clips.numbers(self.state["selection"])
        return pd.DataFrame(
            {
                "clip_id": self.clips.clip_ids[rows],
                "title": self.clips.titles[rows],
                "true tags": [self.clips.true_tags(clip) for clip in rows],
                "predicted": [self.clips.predicted_tags(clip) for clip in rows],
            }
        )

    def colours(self) -> tuple[str, np.ndarray]:
        """What the points are coloured by, and its value for every clip and, behind them, every
        tag: the mean of the clips that carry it."""
        kind, tag, asked = self.state["colour"], self.state["tag"], self.scores()
        column = self.clips.tags.index(tag)
        if kind == "split":
            return "split", np.append(self.clips.splits, ["tag"] * len(self.clips.tags))
        if kind == "tag":
            name, values = f"tag: {tag}", self.clips.labels[:, column].astype(float)
        elif kind == "score":
            name, values = f"score: {tag}", self.clips.mean_probs[:, column]
        else:
            name, values = self.asked(), asked[0] if asked else np.zeros(len(self.clips))
        return name, np.append(values, mean_of_carriers(values[:, None], self.clips.labels))

    # How it is shown

    def figure(self) -> Figure:
        """The maps as a picture, coloured as the state says."""
        spaces = {
            name: self.clips.layout(name, self.state["layout"], self.seed)
            for name in self.clips.spaces
        }
        name, values = self.colours()
        return figures.maps(spaces, self.clips.tags, values, name)

    def _ipython_display_(self) -> None:
        """The picture, and in its place the live maps once a browser has answered."""
        display(self.figure())
        place = display({"text/plain": LIVE}, raw=True, display_id=True)
        self._greeting = Echo(said=1)
        self._greeting.observe(lambda _: self._come_alive(place), "heard")

    def _come_alive(self, place: DisplayHandle) -> None:
        """Show the widgets, which hide the picture for as long as they live."""
        from jetatag.apps.explorer.panel import Panel  # which itself knows the explorer

        self.panel = Panel(self)
        place.update({**self.panel.box._repr_mimebundle_(), "text/plain": LIVE}, raw=True)


def valid(state: Mapping[str, Any], tags: Sequence[str]) -> dict[str, Any]:
    """A state that can be shown of clips with such tags; any other is refused (`ValueError`)."""
    check_known(state, START, "setting of the explorer")
    for name, value in state.items():
        check_type(value, type(START[name]), f"the explorer's {name}")
    check_type(state["selection"], Sequence[str], "the explorer's selection")
    check_known([state["layout"]], figures.LAYOUTS, "layout")
    check_known([state["colour"]], COLOURS.values(), "colouring")
    check_known([state["tag"], *state["weights"]], tags, "tag")
    for tag, weight in state["weights"].items():
        if abs(check_type(weight, float, f"the weight of {tag!r}")) > 1:
            raise ValueError(f"the weight of {tag!r} must lie from −1 to 1, not {weight}.")
    return dict(state)


def png(figure: Figure) -> bytes:
    """A figure as a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return file.getvalue()
