"""Maps of a run's spaces side by side: the same clips and tags in each, chosen together."""

from collections.abc import Callable

import jscatter
import numpy as np
import pandas as pd
from ipywidgets import Widget
from matplotlib.colors import to_hex

from jetatag import figures
from jetatag.explore.clips import Clips

HEIGHT = 380
SELECTED = "#c1121f"
LANDMARK = "tag"
TOLD = {"title": "title", "true tags": "true", "predicted": "predicted"}


class Maps:
    """One map a space, linked: what is selected or hovered in one is so in all.

    A point's number is its clip's row; the tags' numbers follow. `on_select` is called with the
    numbers that were clicked or lassoed, `on_hover` with the one under the mouse, or None.
    """

    def __init__(
        self,
        clips: Clips,
        method: str,
        seed: int,
        on_select: Callable[[list[int]], None],
        on_hover: Callable[[int | None], None],
    ) -> None:
        self.clips, self.seed, told = clips, seed, tooltips(clips)
        self.scatters = {
            space: scatter(told, clips.layout(space, method, seed)) for space in clips.spaces
        }
        pairs = [(scatter, title_of(space)) for space, scatter in self.scatters.items()]
        self.box: Widget = jscatter.compose(
            pairs, sync_selection=True, sync_hover=True, row_height=HEIGHT
        )
        self.box.layout.grid_template_columns = f"repeat({len(pairs)}, minmax(0, 1fr))"
        for one in self.scatters.values():
            one.widget.observe(lambda change: on_hover(change["new"]), "hovering")
        # The others follow the one that was touched, so that one of them tells all.
        first = next(iter(self.scatters.values())).widget
        first.observe(lambda change: on_select(numbers(change["new"])), "selection")

    def lay_out(self, method: str) -> None:
        """Move every point to where `method` puts it."""
        for space, one in self.scatters.items():
            x, y = self.clips.layout(space, method, self.seed).T
            frame = one.data()["data"].assign(x=x, y=y)
            one.data(frame, reset_scales=True, animate=False)
            one.label(by=LANDMARK)

    def colour(self, name: str, values: np.ndarray) -> None:
        """Colour by `values` (clip + tag,), numbers or names; darker is more."""
        for one in self.scatters.values():
            with one.widget.hold_sync():
                one.data()["data"][name] = values
                one.color(by=None)  # or else new values under an old name would not be sent
                one.color(by=name, **palette(values))

    def select(self, chosen: list[int]) -> None:
        """Select these points in all maps."""
        next(iter(self.scatters.values())).selection(chosen)

    def point_at(self, number: int) -> None:
        """Show where a point lies in all maps."""
        for one in self.scatters.values():
            one.widget.hovering = number


def title_of(space: str) -> str:
    return {"z": "z: the shared space"}.get(space, space)


def numbers(selection: np.ndarray | None) -> list[int]:
    return [] if selection is None else [int(number) for number in selection]


def tooltips(clips: Clips) -> pd.DataFrame:
    """What is told of every point that the mouse meets: a row a clip, then a row a tag."""
    every, counts = range(len(clips)), clips.labels.sum(axis=0)
    of_clips = {
        "title": clips.titles,
        "true tags": [clips.true_tags(clip) for clip in every],
        "predicted": [clips.predicted_tags(clip) for clip in every],
        LANDMARK: "",
    }
    of_tags = {
        "title": [f"the tag “{tag}”" for tag in clips.tags],
        "true tags": [f"{count} of {len(clips)} clips" for count in counts],
        "predicted": [f"{p:.2f} on average" for p in clips.mean_probs.mean(axis=0)],
        LANDMARK: list(clips.tags),
    }
    return pd.concat([pd.DataFrame(of_clips), pd.DataFrame(of_tags)], ignore_index=True)


def scatter(told: pd.DataFrame, xy: np.ndarray) -> jscatter.Scatter:
    """One map of clips, small, and tags, large and by name."""
    is_tag = told[LANDMARK] != ""
    frame = told.assign(x=xy[:, 0], y=xy[:, 1], kind=np.where(is_tag, "tag", "clip"))
    one = jscatter.Scatter(
        x="x", y="y", data=frame, height=HEIGHT, axes=False, lasso_initiator=False
    )
    one.size(by="kind", map={"clip": 5, "tag": 9})
    one.opacity(0.8)
    one.color(default="#888888", selected=SELECTED, hover="#000000")
    one.label(by=LANDMARK, exclude=[f"{LANDMARK}:"], size=12, color="#000000")
    one.tooltip(True, properties=["true tags", "predicted"], preview="title", histograms=False)
    one.legend(True)
    return one


def palette(values: np.ndarray) -> dict:
    """Colours for numbers, from pale to dark, or for names, as far apart in grey as can be."""
    if values.dtype.kind in "fiu":
        low, high = float(values.min()), float(values.max())
        return {"map": figures.PALE_TO_DARK, "norm": (low, high if high > low else low + 1)}
    names = sorted(set(values.tolist()))
    steps = figures.PALE_TO_DARK(np.linspace(0.2, 1, max(2, len(names))))
    return {"map": {name: to_hex(step) for name, step in zip(names, steps, strict=False)}}
