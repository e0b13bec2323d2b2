"""Linked maps of a run's spaces, drawn by jupyter-scatter, with the same clips and tags in each."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jscatter
import numpy as np
import pandas as pd
from ipywidgets import HTML
from matplotlib.colors import to_hex
from sklearn.preprocessing import minmax_scale

from jetatag import figures
from jetatag.apps.explorer.clips import Clips, Z
from jetatag.apps.explorer.state import State
from jetatag.apps.explorer.widgets import RenderProbe, plain

HEIGHT, MIN_WIDTH = 350, 360  # pixels; narrower maps, which cut labels, wrap below one another
CAMERA = 1.3  # distance at which no point is cut off, even in the narrowest map (1: at the edge)
MARGIN = "0 90px 0 64px"  # room for the tooltips of points at the outer edges
MANY = 5_000  # points: more hide one another and are slow to draw unless they are small
SWATCH = "display: inline-block; height: 0.9em; border: 1px solid #777;"
TOUCHING = 0.05  # of the range of 2: points of tags that are nearer share a label
LINE = 16  # characters in a line of a label, so that it does not reach over the edge of its map
GAP = 2 * "\xa0"  # beside each line of a label: jscatter would let labels touch


class Maps:
    """One map per space; selecting or hovering in one shows in all. A point's number is its clip's
    row; the tags follow the clips. `on_select` gets the numbers that were clicked or lassoed,
    `on_hover` the number under the mouse."""

    def __init__(
        self, state: State, on_select: Callable[[list[int]], Any], on_hover: Callable[[int], Any]
    ) -> None:
        self.state, self.clips, self.hovered = state, state.clips, None
        self.on_select, self.on_hover = on_select, on_hover
        self.probe, self._waiting = RenderProbe(), {}
        self.probe.observe(self._draw_next, "drawn")
        self.frames = {space: point_table(self.clips) for space in self.clips.spaces}
        self.legend, self.note = HTML(), HTML()
        self._lay_out(state.state["layout"])
        self.scatters = {name: scatter(frame, *self.axes) for name, frame in self.frames.items()}
        self.box = arranged(self.scatters)
        for one in self.scatters.values():
            one.widget.observe(self._double, "selection")
        # The others follow the map that was touched, so that one of them reports everything.
        self.first = next(iter(self.scatters.values()))
        self.first.widget.selection = self.clips.numbers(state.state["selection"])
        self.first.widget.observe(self._selected, "selection")
        self.first.widget.observe(self._hovered, "hovering")

    def _double(self, change: Mapping[str, Any]) -> None:
        """Select a single point twice, so that clicking it again also counts as a change."""
        if len(selected := numbers(change["new"])) == 1:
            change["owner"].selection = selected * 2

    def _selected(self, change: Mapping[str, Any]) -> None:
        selected = numbers(change["new"])
        if len(selected) != 1:  # a single point comes back doubled
            self.on_select(list(dict.fromkeys(selected)))

    def _hovered(self, change: Mapping[str, Any]) -> None:
        if change["new"] not in (None, -1, self.hovered):
            self.on_hover(change["new"])
        self.hovered = change["new"]

    def point_at(self, number: int) -> None:
        """Show a point in all maps as if the mouse were over it."""
        self.hovered = number
        for one in self.scatters.values():
            one.widget.hovering = number

    def set_layout(self, method: str) -> None:
        self._lay_out(method)
        maps, axes = self.scatters.values(), self.axes
        self._draw("layout", lambda: [one.xy(*axes).label(by="tag") for one in maps])

    def set_tag(self) -> None:
        """Label the chosen tag even where the labels of other tags are in its way."""
        self._label()
        self._draw("label", lambda: [one.label(by="tag") for one in self.scatters.values()])

    def set_colours(self, name: str, values: np.ndarray) -> None:
        """Colour by `values` (clip + tag,), numbers (darker is more) or names."""
        colours, key = palette(values)

        def draw() -> None:
            self.legend.value = f"<b>{plain(name)}</b> {key} (large points: tags)"
            for space, one in self.scatters.items():
                self.frames[space]["colour"] = values
                with one.widget.hold_sync():
                    one.color(by=None)  # new values of the same column would not be sent
                    one.color(by="colour", **colours)

        self._draw("colour", draw)

    def _draw(self, kind: str, draw: Callable[[], None]) -> None:
        """Draw once the browser has finished drawing, because until then it ignores changes; a
        later drawing of the same kind replaces one that is still waiting."""
        self._waiting[kind] = draw
        self._draw_next()

    def _draw_next(self, _: Any = None) -> None:
        if self._waiting and self.probe.drawn == self.probe.sent:
            self._waiting.pop(next(iter(self._waiting)))()
            self.probe.sent += 1

    def _lay_out(self, method: str) -> None:
        """Add a layout and its labels to the maps' columns. Every layout spans −1 to 1, because
        jscatter's labels do not follow a change of range."""
        self.axes = [f"{method} axis 1", f"{method} axis 2"]
        for space, frame in self.frames.items():
            layout = self.clips.layout(space, method, self.state.seed)
            frame[self.axes] = minmax_scale(layout, (-1, 1))
        self._label()
        self.note.value = f"shared space: {self.clips.map_note(method, self.state.seed)}"

    def _label(self) -> None:
        n_clips, tags = len(self.clips), self.clips.tags
        chosen = tags.index(self.state.state["tag"])
        for frame in self.frames.values():
            names = labels(frame[self.axes].to_numpy()[n_clips:], tags, chosen)
            frame["tag"] = [""] * n_clips + names
            frame["importance"] = (frame.tag == names[chosen]).astype(float)


def labels(tag_xy: np.ndarray, tags: Sequence[str], chosen: int) -> list[str]:
    """The label of each tag: those whose points touch share one, in which `chosen` comes first."""
    names = list(tags)
    for group in figures.touching(tag_xy, TOUCHING):
        members = sorted(group, key=lambda tag: (tag != chosen, tag))
        for tag in group:
            lines = figures.wrapped([tags[each] for each in members], LINE).split("\n")
            names[tag] = "\n".join(f"{GAP}{line}{GAP}" for line in lines)
    return names


def numbers(selection: np.ndarray | None) -> list[int]:
    return [] if selection is None else list(map(int, selection))


def point_table(clips: Clips) -> pd.DataFrame:
    """What the tooltips show: one row per clip, then one per tag."""
    counts = clips.labels.sum(axis=0)
    of_tags = {
        "title": [f"the tag “{tag}”" for tag in clips.tags],
        "true tags": [f"{count} of {len(clips)} clips" for count in counts],
        "predicted": [f"{p:.2f} on average" for p in clips.mean_probs.mean(axis=0)],
        "kind": "tag",
    }
    of_clips = clips.table.drop(columns="clip_id").assign(kind="clip")
    return pd.concat([of_clips, pd.DataFrame(of_tags)], ignore_index=True)


def scatter(frame: pd.DataFrame, x: str, y: str) -> jscatter.Scatter:
    """One map: clips are small points, tags large and labelled."""
    look = {"height": HEIGHT, "axes": False, "camera_distance": CAMERA}
    look["transition_points"] = False  # during a transition it would ignore what it is sent
    one, many = jscatter.Scatter(x, y, frame, **look), len(frame) >= MANY
    one.size(by="kind", map={"clip": 3 if many else 6, "tag": 12})
    ring = {"pointSizeSelected": 0, "pointOutlineWidth": 1} if many else {}
    one.options(regl_scatterplot_options=ring)
    one.opacity(unselected=0.8)
    # With another alignment, jscatter lets labels of two lines overlap others.
    text = {"size": 11, "color": "#000000", "align": "center", "offset": (0, -10)}
    one.label(by="tag", exclude=["tag:"], importance="importance", **text)
    one.tooltip(True, properties=["true tags", "predicted"], preview="title", histograms=False)
    one.widget.toolbar_buttons = ["pan_zoom", "lasso", "divider", "full_screen", "reset"]
    return one


def arranged(scatters: Mapping[str, jscatter.Scatter]) -> Any:
    """The maps side by side, with linked selection and hover."""
    titles = (f"{space}, the shared space" if space == Z else space for space in scatters)
    pairs = list(zip(scatters.values(), titles, strict=True))
    box = jscatter.compose(pairs, sync_selection=True, sync_hover=True, row_height=HEIGHT)
    box.layout.grid_template_columns = f"repeat(auto-fit, minmax({MIN_WIDTH}px, 1fr))"
    box.layout.grid_template_rows = "auto"  # no scroll bars
    box.layout.padding = MARGIN
    for each in (box, *box.children):
        each.layout.overflow = "visible"  # tooltips may cover the next map
    for each in box.children:
        each.add_class("jetatag-map")
    return box


def palette(values: np.ndarray) -> tuple[dict[str, Any], str]:
    """jscatter's colours, from pale to dark for numbers or one for each name, and an HTML key."""
    shades = figures.PALE_TO_DARK
    if values.dtype.kind in "fiu":
        low, high = float(values.min()), float(values.max())
        high = high if high > low else low + 1
        steps = ", ".join(map(to_hex, shades(np.linspace(0, 1, 9))))
        ramp = f"background: linear-gradient(to right, {steps}); {SWATCH} width: 8em"
        key = f'{low:.2f} <span style="{ramp}"></span> {high:.2f}'
        return {"map": shades, "norm": (low, high)}, key
    names = sorted(set(values.tolist()))
    colours = dict(zip(names, map(to_hex, shades(np.linspace(0.2, 1, len(names)))), strict=True))
    return {"map": colours}, " ".join(
        f'<span style="background: {colour}; {SWATCH} width: 1em"></span> {plain(name)}'
        for name, colour in colours.items()
    )
