"""The explorer: live widgets in a browser (maps, search, player, selection), else a figure."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import ipywidgets as widgets
from IPython.core.pylabtools import print_figure
from IPython.display import display
from ipywidgets import HTML, Dropdown, Layout
from matplotlib.figure import Figure

from jetatag import figures
from jetatag.apps import RANKINGS
from jetatag.apps.explorer.clips import Z
from jetatag.apps.explorer.maps import Maps
from jetatag.apps.explorer.state import COLOURS, State
from jetatag.apps.explorer.widgets import AudioPlayer, RenderProbe, plain
from jetatag.metrics.layouts import LAYOUTS

PLACEHOLDER = "Run this cell in JupyterLab for live maps: click, lasso, search, listen."
TOP = 50  # clips in a ranking
LASSO = "draw a <b>lasso</b> around clips to compare their tags"
STYLE = """<style>
.jp-OutputArea-child:has(+ .jp-OutputArea-child .jetatag-explorer) { display: none }
.jetatag-map { position: relative }
.jetatag-map:hover { z-index: 1 }
</style>"""
"""Hides the figure above while the widgets live, and shows tooltips above the other maps."""


class Explorer(State):
    """Linked maps of clips to search and listen to; put it last in a notebook cell.

    `state` holds the initial settings (see `state.View`) and then what the user sets. With
    `keep`, a JSON file, they are saved at every change and restored when the cell is run again.
    Without a browser (papermill, nbconvert) the cell shows the maps as a figure.
    """

    def figure(self) -> Figure:
        """The maps as a figure, coloured as the settings say."""
        method, (name, values) = self.state["layout"], self.colours()
        if self.state["colour"] == "tag":  # a marker for its clips, and a star for its landmark
            name, values = self.state["tag"], values == 1
        maps = {space: self.clips.layout(space, method, self.seed) for space in self.clips.spaces}
        note = self.clips.map_note(method, self.seed)
        return figures.maps(maps, values, name, self.clips.tags, {Z: note})

    def _ipython_display_(self) -> None:
        """Show the figure, and replace it with the widgets once a browser has answered."""
        display(self.figure())
        text = {"text/plain": PLACEHOLDER}
        place = display(text, raw=True, display_id=True)

        def show_widgets(_: Any) -> None:
            self.panel = Panel(self)
            place.update(self.panel.box._repr_mimebundle_() | text, raw=True)

        self._probe = RenderProbe(sent=1)
        self._probe.observe(show_widgets, "drawn")


class Panel:
    """All widgets, in `box`: the state, which users change, determines what is shown."""

    def __init__(self, state: State) -> None:
        self.state, self.clips, settings = state, state.clips, state.state
        self.maps = Maps(state, self.select, self.hover)
        layouts = {title: name for name, (title, _) in LAYOUTS.items()}
        colours = {title: name for name, title in COLOURS.items()}
        self.layout = dropdown("layout", layouts, settings["layout"], self.set_layout)
        self.colour = dropdown("colour by", colours, settings["colour"], self.set_colours)
        self.tag = dropdown("of the tag", self.clips.tags, settings["tag"], self.set_colours)
        plays = settings["play_on_hover"]
        self.hover_plays = widgets.Checkbox(plays, description="play on hover", indent=False)
        self.hover_plays.observe(lambda c: state.change(play_on_hover=c["new"]), "value")

        options = {"add a tag …": ""} | {tag: tag for tag in self.clips.tags}
        self.add = dropdown("", options, "", self.add_tag)
        self.sliders, self.slider_rows, self.query = {}, widgets.VBox(), HTML()
        for tag, weight in settings["weights"].items():
            self.add_slider(tag, weight)
        self.ranked, self.picked = {by: self.clip_list() for by in RANKINGS}, self.clip_list()

        self.about, self.audio = HTML("<b>click a clip to hear it</b>"), AudioPlayer()
        self.like = widgets.Button(description="more like this", icon="search", disabled=True)
        self.like.on_click(self.more_like_this)
        hidden = Layout(max_width="100%", visibility="hidden")
        self.figure = widgets.Image(format="png", layout=hidden)
        self.n_selected, self.compared = HTML(), HTML().add_class("jp-RenderedHTMLCommon")
        self.box = self._arranged()
        self.set_colours()
        self.rank()
        selected = self.clips.numbers(settings["selection"])
        self.show_selection(selected if len(selected) > 1 else [])
        for clip in self.clips.numbers([settings["clip"]]):
            self.show(clip, play=False)

    def _arranged(self) -> widgets.VBox:
        bar = [self.layout, self.colour, self.tag, self.maps.legend, self.hover_plays]
        search = HTML("<b>search by tags</b>, from 1 (wanted) to −1 (not wanted)")
        best = ([HTML(f"<b>best {RANKINGS[by]}</b>"), clips] for by, clips in self.ranked.items())
        self.search_row = row([search, self.add, self.slider_rows, self.query], *best)
        self.search_row.children[0].layout.flex = "1.4 1 0"  # room for the sliders
        audio = [self.audio] if self.clips.store else []
        clip = [self.about, *audio, self.like, self.figure]
        shown = row(clip, [self.n_selected, self.picked, self.compared])
        bar = widgets.HBox(bar, layout=Layout(flex_flow="wrap"))
        every = [HTML(STYLE), bar, self.maps.box, self.maps.note, self.search_row, shown]
        box = widgets.VBox(every, layout=Layout(overflow="visible"))
        return box.add_class("jetatag-explorer")

    def set_layout(self, method: str) -> None:
        self.state.change(layout=method)
        self.layout.disabled, self.layout.description = True, "computing…"
        self.maps.set_layout(method)
        self.layout.disabled, self.layout.description = False, "layout"

    def set_colours(self, _: Any = None) -> None:
        another = self.tag.value != self.state.state["tag"]
        self.state.change(colour=self.colour.value, tag=self.tag.value)
        self.tag.disabled = self.colour.value not in ("tag", "score")
        if another:
            self.maps.set_tag()
        self.maps.set_colours(*self.state.colours())

    def add_tag(self, tag: str) -> None:
        """Add a tag to the query, with weight 1."""
        if tag and tag not in self.sliders:
            self.add_slider(tag, 1.0)
            self.search()
        self.add.value = ""

    def add_slider(self, tag: str, weight: float) -> None:
        look = {"layout": Layout(width="auto", flex="1"), "readout_format": "+.1f"}
        slider = widgets.FloatSlider(weight, min=-1, max=1, step=0.1, **look)
        slider.observe(self.search, "value")
        remove = widgets.Button(description="×", tooltip=f"remove {tag}", layout={"width": "2.4em"})
        line = widgets.HBox([HTML(plain(tag), layout=Layout(width="7em")), slider, remove])

        def on_click(_: Any) -> None:
            del self.sliders[tag]
            self.slider_rows.children = [r for r in self.slider_rows.children if r is not line]
            self.search()

        remove.on_click(on_click)
        self.sliders[tag] = slider
        self.slider_rows.children += (line,)

    def search(self, _: Any = None) -> None:
        weights = {tag: round(slider.value, 2) for tag, slider in self.sliders.items()}
        self.state.change(weights=weights, like="")
        self.rank()

    def more_like_this(self, _: Any = None) -> None:
        self.state.change(like=self.state.state["clip"])
        self.rank()

    def rank(self) -> None:
        back = " (move a slider to search by tags again)" if self.state.state["like"] else ""
        self.query.value = f"query: <b>{plain(self.state.query())}</b>{back}"
        best, columns = self.state.best(TOP), self.search_row.children[1:]
        for (by, clips), column in zip(self.ranked.items(), columns, strict=True):
            clips.options = self.lines(best.get(by, ()))
            column.layout.display = "none" if best and by not in best else None
        if self.colour.value == "fit":
            self.maps.set_colours(*self.state.colours())

    def clip_list(self) -> widgets.Select:
        """A list of clips; picking one shows it."""
        clips = widgets.Select(rows=12, layout=Layout(width="auto"))
        clips.observe(lambda change: self.show(change["new"]), "value")
        return clips

    def lines(self, clips: Iterable[int]) -> list[tuple[str, int | None]]:
        """Clips as the options of a list."""
        titles, tags = self.clips.titles, self.clips.table["true tags"]
        lines = [("pick a clip to hear it:", None)]
        for number, clip in enumerate(clips, 1):
            lines.append((f"{number}. {titles[clip]} · {tags[clip]}", int(clip)))
        return lines if len(lines) > 1 else []

    def select(self, points: Sequence[int]) -> None:
        """Show and play a single clip, search for a single tag, compare several clips."""
        selected = [point for point in points if point < len(self.clips)]
        self.state.change(selection=self.clips.clip_ids[selected].tolist())
        self.show_selection(selected if len(points) > 1 else [])
        if len(points) == 1 and selected:
            self.show(selected[0])
        elif len(points) == 1:
            self.add_tag(self.clips.tags[points[0] - len(self.clips)])

    def show_selection(self, selected: Sequence[int]) -> None:
        """List the selected clips, and compare their tags with those of the others."""
        n = f"{len(selected):,} of {len(self.clips):,}"
        self.n_selected.value = f"<b>{n} clips selected</b>" if selected else LASSO
        self.picked.options = self.lines(selected)
        self.picked.layout.display = None if selected else "none"
        table = self.clips.compare(selected).rename_axis(index=None, columns="tag")
        table = table[table.difference.abs().rank(ascending=False, method="first") <= 8]
        share = "{:.0%}".format
        formats = {"selected": share, "rest": share, "difference": "{:+.0%}".format}
        self.compared.value = table.to_html(formatters=formats, border=0) if selected else ""

    def hover(self, point: int) -> None:
        if self.hover_plays.value and point < len(self.clips):
            self.load(point)

    def show(self, clip: int | None, play: bool = True) -> None:
        """Load a clip and draw its figure."""
        if clip is None:
            return
        self.maps.point_at(clip)
        for clips in (*self.ranked.values(), self.picked):
            if clips.value != clip:  # so that it can be picked again
                clips.value = None
        self.load(clip, play)
        figure = self.clips.figure(clip)  # last, because drawing takes longest
        self.figure.value = print_figure(figure, dpi=100, bbox_inches=None)
        self.figure.layout.visibility = "visible"

    def load(self, clip: int, play: bool = True) -> None:
        """Show a clip's title and tags, and load its audio."""
        self.state.change(clip=str(self.clips.clip_ids[clip]))
        self.figure.layout.visibility = "hidden"  # it shows another clip
        title, true, predicted = map(plain, self.clips.table.iloc[clip, 1:])
        self.about.value = f"<b>{title}</b><br>true: {true}<br>predicted: {predicted}"
        self.like.disabled = False
        if self.clips.store:
            self.audio.load(self.clips.flac(clip), play)


def dropdown(name: str, options: Iterable, value: str, on_change: Callable[[str], Any]) -> Dropdown:
    look = {"layout": Layout(width="auto"), "style": {"description_width": "initial"}}
    widget = Dropdown(options=options, value=value, description=name, **look)
    widget.observe(lambda change: on_change(change["new"]), "value")
    return widget


def row(*columns: Sequence[widgets.Widget]) -> widgets.HBox:
    """Columns of equal width side by side."""
    look = {"flex": "1 1 0", "min_width": "0", "padding": "0 8px", "overflow": "hidden"}
    return widgets.HBox([widgets.VBox(column, layout=Layout(**look)) for column in columns])
