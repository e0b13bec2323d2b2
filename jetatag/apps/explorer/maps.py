"""Maps of a run's spaces side by side: the same clips and tags in each, chosen together."""

from collections.abc import Callable, Mapping
from functools import partial
from html import escape
from typing import Any

import jscatter
import numpy as np
import pandas as pd
from ipywidgets import HTML
from matplotlib.colors import to_hex
from sklearn.preprocessing import minmax_scale

from jetatag import figures
from jetatag.apps.explorer.browser import Echo
from jetatag.apps.explorer.clips import Clips, Z

HEIGHT = 350
LANDMARK, COLOUR = "tag", "colour"
SWATCH = "display: inline-block; height: 0.9em; border: 1px solid #777;"
CAMERA = 1.3
"""How far a map is looked at from: at 1 its highest and lowest points lie on its edges; a map may
be narrower than it is high."""
WIDTH = 300
"""A map's least, its buttons included, at which no point lies beyond its sides; where there is no
room for all in a row, some lie below."""
SLIM = {"pointSizeSelected": 0, "pointOutlineWidth": 1}
"""How much its ring, in pixels, adds to a point that is selected, where points are many."""
BESIDE = "0 90px 0 64px"
"""Room for what is told of a point at the outer edges of the maps."""
BUTTONS = ["pan_zoom", "lasso", "divider", "full_screen", "reset"]
TITLES = {Z: "z, the shared space"}


class Maps:
    """One map a space, linked: what is selected or hovered in one is so in all.

    A point's number is its clip's row; the tags' numbers follow. `chosen` are selected at first;
    `on_select` is called with the numbers that were clicked or lassoed, `on_hover` with the one
    that the mouse has come to.
    """

    def __init__(
        self,
        clips: Clips,
        method: str,
        seed: int,
        chosen: list[int],
        on_select: Callable[[list[int]], None],
        on_hover: Callable[[int], None],
    ) -> None:
        self.clips, self.seed, self.hovered = clips, seed, None
        self.on_select, self.on_hover = on_select, on_hover
        self.echo, self._waiting = Echo(), {}
        self.echo.observe(self._draw_next, "heard")
        told = tooltips(clips)
        self.frames = {space: told.copy() for space in clips.spaces}
        self.scatters = {
            space: scatter(frame, *self._placed(space, method))
            for space, frame in self.frames.items()
        }
        pairs = [(one, TITLES.get(space, space)) for space, one in self.scatters.items()]
        self.legend = HTML()
        self.box = jscatter.compose(pairs, sync_selection=True, sync_hover=True, row_height=HEIGHT)
        self.box.layout.grid_template_columns = f"repeat(auto-fit, minmax({WIDTH}px, 1fr))"
        self.box.layout.grid_template_rows = "auto"  # as high as they are: nothing to scroll
        for each in (self.box, *self.box.children):
            each.layout.overflow = "visible"  # what is told of a point may lie over the next map
        for each in self.box.children:
            each.add_class("jetatag-map")
        self.box.layout.padding = BESIDE
        # The others follow the one that was touched, so that one of them tells all.
        for one in self.scatters.values():
            one.widget.observe(partial(self._doubled, one.widget), "selection")
        self.first.widget.selection = chosen
        self.first.widget.observe(self._selected, "selection")
        self.first.widget.observe(self._hovered, "hovering")

    @property
    def first(self) -> jscatter.Scatter:
        return next(iter(self.scatters.values()))

    def _doubled(self, widget: Any, change: Mapping[str, Any]) -> None:
        """Select a single point twice, so that another click on it is a change, too."""
        if len(chosen := numbers(change["new"])) == 1:
            widget.selection = chosen * 2

    def _selected(self, change: Mapping[str, Any]) -> None:
        chosen = numbers(change["new"])
        if len(chosen) != 1:  # which is about to be doubled, or was
            self.on_select(list(dict.fromkeys(chosen)))

    def _hovered(self, change: Mapping[str, Any]) -> None:
        if change["new"] not in (None, -1, self.hovered):
            self.on_hover(change["new"])
        self.hovered = change["new"]

    def lay_out(self, method: str) -> None:
        """Move every point to where `method` puts it."""
        axes = {space: self._placed(space, method) for space in self.scatters}

        def draw() -> None:
            for space, one in self.scatters.items():
                one.xy(*axes[space])
                one.label(by=LANDMARK)

        self._draw("layout", draw)

    def _draw(self, what: str, draw: Callable[[], None]) -> None:
        """Draw once the browser has drawn what came before, for until then it drops what it is
        sent; what waits gives way to what comes later."""
        self._waiting[what] = draw
        self._draw_next()

    def _draw_next(self, _: Any = None) -> None:
        if self._waiting and not self.echo.is_due:
            self._waiting.pop(next(iter(self._waiting)))()
            self.echo.said += 1

    def _placed(self, space: str, method: str) -> tuple[str, str]:
        """The columns of a map's frame that hold a layout, which is added where it is not there.

        All layouts fill −1 to 1 on both axes: where the range changes, jscatter's labels stay
        behind in the old one.
        """
        names = f"{method} axis 1", f"{method} axis 2"
        places = self.clips.layout(space, method, self.seed)
        self.frames[space][[*names]] = minmax_scale(places, (-1, 1))
        return names

    def colour(self, name: str, values: np.ndarray) -> None:
        """Colour by `values` (clip + tag,), numbers or names; darker is more."""
        colours = palette(values)

        def draw() -> None:
            self.legend.value = legend(name, colours)
            for space, one in self.scatters.items():
                self.frames[space][COLOUR] = values
                with one.widget.hold_sync():
                    one.color(by=None)  # or else new values of the old column would not be sent
                    one.color(by=COLOUR, **colours)

        self._draw("colour", draw)

    def point_at(self, number: int) -> None:
        """Show where a point lies in all maps."""
        self.hovered = number
        for one in self.scatters.values():
            one.widget.hovering = number


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
        "kind": "clip",
    }
    of_tags = {
        "title": [f"the tag “{tag}”" for tag in clips.tags],
        "true tags": [f"{count} of {len(clips)} clips" for count in counts],
        "predicted": [f"{p:.2f} on average" for p in clips.mean_probs.mean(axis=0)],
        LANDMARK: list(clips.tags),
        "kind": "tag",
    }
    return pd.concat([pd.DataFrame(of_clips), pd.DataFrame(of_tags)], ignore_index=True)


def scatter(frame: pd.DataFrame, x: str, y: str) -> jscatter.Scatter:
    """One map of clips, small, and tags, large and by name."""
    still = {"transition_points": False}  # for seconds it would drop what it is sent
    one = jscatter.Scatter(x, y, frame, height=HEIGHT, axes=False, camera_distance=CAMERA, **still)
    many = len(frame) >= 5_000  # which hide one another, and are slow to draw where they are large
    one.size(by="kind", map={"clip": 3 if many else 6, "tag": 9})
    one.options(regl_scatterplot_options=SLIM if many else {})
    one.opacity(unselected=0.8)  # the others stay to be seen
    one.label(by=LANDMARK, exclude=[f"{LANDMARK}:"], size=11, color="#000000", align="top")
    one.tooltip(True, properties=["true tags", "predicted"], preview="title", histograms=False)
    one.widget.toolbar_buttons = BUTTONS
    return one


def palette(values: np.ndarray) -> dict[str, Any]:
    """How jscatter colours numbers, from pale to dark, or names, as far apart in grey as can be."""
    if values.dtype.kind in "fiu":
        low, high = float(values.min()), float(values.max())
        return {"map": figures.PALE_TO_DARK, "norm": (low, high if high > low else low + 1)}
    names = sorted(set(values.tolist()))
    steps = figures.PALE_TO_DARK(np.linspace(0.2, 1, len(names)))
    return {"map": dict(zip(names, map(to_hex, steps), strict=True))}


def legend(name: str, colours: dict[str, Any]) -> str:
    """What the colours mean, as HTML on one line."""
    if "norm" in colours:
        steps = ", ".join(to_hex(step) for step in colours["map"](np.linspace(0, 1, 9)))
        low, high = colours["norm"]
        ramp = f"background: linear-gradient(to right, {steps}); {SWATCH} width: 8em"
        told = f'{low:.2f} <span style="{ramp}"></span> {high:.2f}'
    else:
        told = " ".join(
            f'<span style="background: {colour}; {SWATCH} width: 1em"></span> {escape(value)}'
            for value, colour in colours["map"].items()
        )
    return f"<b>{escape(name)}</b> {told}"
