"""The explorer's widgets: the maps, and below them search, player and selection."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from io import BytesIO
from typing import Any

from ipywidgets import (
    HTML,
    Button,
    Checkbox,
    Dropdown,
    FloatSlider,
    HBox,
    Image,
    Layout,
    Select,
    VBox,
)
from matplotlib.figure import Figure

from jetatag.apps.explorer.clips import Clips
from jetatag.apps.explorer.maps import Maps
from jetatag.apps.explorer.state import COLOURINGS, State
from jetatag.apps.explorer.widgets import AudioPlayer

LAYOUTS = {"UMAP": "umap", "t-SNE": "tsne", "first principal axes": "pca"}
TOP = 50  # clips in a ranking
STYLE = """<style>
.jp-OutputArea-child:has(+ .jp-OutputArea-child .jetatag-explorer) { display: none }
.jetatag-map { position: relative }
.jetatag-map:hover { z-index: 1 }
</style>"""
"""Hides the figure above while the widgets live, and shows tooltips above the other maps."""


class Panel:
    """All widgets, in `box`. A user's action changes the state, and the state what is shown."""

    def __init__(self, state: State) -> None:
        self.state, self.clips, settings = state, state.clips, state.state
        selected = self.clips.numbers(settings["selection"])
        self.maps = Maps(
            self.clips, settings["layout"], state.seed, selected, self.select, self.hover
        )
        self.layout = dropdown("layout", LAYOUTS, settings["layout"], self.set_layout)
        self.colour = dropdown("colour by", COLOURINGS, settings["colour"], self.set_colours)
        self.tag = dropdown("of the tag", self.clips.tags, settings["tag"], self.set_colours)
        self.hover_plays = Checkbox(
            settings["play_on_hover"], description="play on hover", indent=False
        )
        self.hover_plays.observe(lambda c: state.change(play_on_hover=c["new"]), "value")
        self.sliders = Sliders(self.clips.tags, settings["weights"], self.search)
        self.in_space = ClipList(self.clips, "best in the shared space", self.show)
        self.by_classifier = ClipList(self.clips, "best by the classifier", self.show)
        self.player = Player(self.clips, self.more_like_this)
        self.selection = Selection(self.clips, self.show)
        controls = [self.layout, self.colour, self.tag, self.maps.legend, self.hover_plays]
        bar = HBox(controls, layout=Layout(flex_flow="wrap"))
        search = row(self.sliders.box, self.in_space.box, self.by_classifier.box)
        self.box = VBox(
            [HTML(STYLE), bar, self.maps.box, search, row(self.player.box, self.selection.box)],
            layout=Layout(overflow="visible"),
        ).add_class("jetatag-explorer")
        self.set_colours()
        self.rank()
        self.selection.show(selected if len(selected) > 1 else [])
        if state.clip is not None:
            self.player.show(state.clip, play=False)

    def set_layout(self, method: str) -> None:
        self.state.change(layout=method)
        self.layout.disabled, self.layout.description = True, "computing…"
        self.maps.set_layout(method)
        self.layout.disabled, self.layout.description = False, "layout"

    def set_colours(self, _: Any = None) -> None:
        self.state.change(colour=self.colour.value, tag=self.tag.value)
        self.tag.disabled = self.colour.value not in ("tag", "score")
        self.maps.set_colours(*self.state.colours())

    def search(self, weights: Mapping[str, float]) -> None:
        self.state.change(weights=dict(weights), like="")
        self.rank()

    def more_like_this(self) -> None:
        self.state.change(like=self.state.state["clip"])
        self.rank()

    def rank(self) -> None:
        """Rank by the query."""
        back = " (move a slider to search by tags again)" if self.state.state["like"] else ""
        self.sliders.query.value = f"query: <b>{escape(self.state.query())}</b>{back}"
        for listing, best in zip(
            (self.in_space, self.by_classifier), self.state.best(TOP), strict=True
        ):
            listing.show(best)
        if self.colour.value == "fit":
            self.maps.set_colours(*self.state.colours())

    def select(self, points: Sequence[int]) -> None:
        """Show and play a single clip, search for a single tag, compare several clips."""
        selected = [point for point in points if point < len(self.clips)]
        self.state.change(selection=self.clips.clip_ids[selected].tolist())
        self.selection.show(selected if len(points) > 1 else [])
        if len(points) == 1 and selected:
            self.show(selected[0])
        elif len(points) == 1:
            self.sliders.add(self.clips.tags[points[0] - len(self.clips)])

    def hover(self, point: int) -> None:
        if self.hover_plays.value and point < len(self.clips):
            self.state.change(clip=str(self.clips.clip_ids[point]))
            self.player.load(point)

    def show(self, clip: int | None) -> None:
        if clip is None:
            return
        self.state.change(clip=str(self.clips.clip_ids[clip]))
        self.maps.point_at(clip)
        for listing in (self.in_space, self.by_classifier, self.selection.listing):
            listing.release(clip)
        self.player.show(clip)


class Sliders:
    """One slider per tag of the query, from −1 (not wanted) to 1 (wanted)."""

    def __init__(
        self,
        tags: Sequence[str],
        weights: Mapping[str, float],
        on_change: Callable[[dict[str, float]], None],
    ) -> None:
        self.on_change, self.sliders = on_change, {}
        self.adder = dropdown(
            "", [("add a tag …", ""), *zip(tags, tags, strict=True)], "", self.add
        )
        self.rows, self.query = VBox(), HTML()
        heading = HTML("<b>search by tags</b>, from 1 (wanted) to −1 (not wanted)")
        self.box = VBox([heading, self.adder, self.rows, self.query])
        for tag, weight in weights.items():
            self._append(tag, weight)

    def add(self, tag: str) -> None:
        """Add a tag with weight 1."""
        if tag and tag not in self.sliders:
            self._append(tag, 1.0)
            self._changed()
        self.adder.value = ""

    def _append(self, tag: str, weight: float) -> None:
        limits = {"min": -1, "max": 1, "step": 0.1, "readout_format": "+.1f"}
        slider = FloatSlider(
            weight, description=tag, layout=Layout(width="auto", flex="1"), **limits
        )
        slider.observe(self._changed, "value")
        remove = Button(description="×", tooltip=f"remove {tag}", layout=Layout(width="2.4em"))
        line = HBox([slider, remove])
        remove.on_click(lambda _: self._remove(tag, line))
        self.sliders[tag] = slider
        self.rows.children += (line,)

    def _remove(self, tag: str, line: HBox) -> None:
        del self.sliders[tag]
        self.rows.children = [child for child in self.rows.children if child is not line]
        self._changed()

    def _changed(self, _: Any = None) -> None:
        self.on_change({tag: round(slider.value, 2) for tag, slider in self.sliders.items()})


class ClipList:
    """Clips by title, one per line; `on_pick` gets the one that is picked."""

    def __init__(self, clips: Clips, heading: str, on_pick: Callable[[int | None], None]) -> None:
        self.clips, self.heading = clips, HTML(f"<b>{heading}</b>")
        self.list = Select(rows=12, layout=Layout(width="auto"))
        self.list.observe(lambda change: on_pick(change["new"]), "value")
        self.box = VBox([self.heading, self.list])

    def release(self, clip: int) -> None:
        """Unpick any other clip than this, so that it can be picked again."""
        if self.list.value != clip:
            self.list.value = None

    def show(self, clips: Iterable[int]) -> None:
        lines = [
            (f"{rank}. {self.clips.titles[clip]} · {self.clips.true_tags(clip)}", int(clip))
            for rank, clip in enumerate(clips, 1)
        ]
        self.list.options = [("pick a clip to hear it:", None), *lines] if lines else []


class Player:
    """One clip: its audio, tags, spectrogram and taggram."""

    def __init__(self, clips: Clips, on_like: Callable[[], None]) -> None:
        self.clips, self.about = clips, HTML("<b>click a clip to hear it</b>")
        self.audio = AudioPlayer()
        self.like = Button(description="more like this", icon="search", disabled=True)
        self.like.on_click(lambda _: on_like())
        self.figure = Image(format="png", layout=Layout(max_width="100%", visibility="hidden"))
        audio = [self.audio] if clips.store else []
        self.box = VBox([self.about, *audio, self.like, self.figure])

    def load(self, clip: int, play: bool = True) -> None:
        """Show a clip's title and tags, and load its audio, without its figure."""
        self.figure.layout.visibility = "hidden"  # it shows another clip
        tags = {"true": self.clips.true_tags(clip), "predicted": self.clips.predicted_tags(clip)}
        lines = "".join(f"<br>{name}: {escape(text)}" for name, text in tags.items())
        self.about.value = f"<b>{escape(self.clips.titles[clip])}</b>{lines}"
        self.like.disabled = False
        if self.clips.store:
            self.audio.load(self.clips.flac(clip), play)

    def show(self, clip: int, play: bool = True) -> None:
        """`load` a clip and draw its figure."""
        self.load(clip, play)
        self.figure.value = png(self.clips.figure(clip))  # last, because drawing takes longest
        self.figure.layout.visibility = "visible"


class Selection:
    """The lassoed clips: their tags compared with those of the rest, and a list of them."""

    def __init__(self, clips: Clips, on_pick: Callable[[int | None], None]) -> None:
        self.clips = clips
        self.table = HTML().add_class("jp-RenderedHTMLCommon")  # JupyterLab's style of tables
        self.listing = ClipList(clips, "selected clips", on_pick)
        self.box = VBox([self.table])

    def show(self, selected: Sequence[int]) -> None:
        if not selected:
            self.table.value = "draw a <b>lasso</b> around clips to compare their tags"
            self.box.children = (self.table,)
            return
        table = self.clips.compare(selected)
        table = table[table.difference.abs().rank(ascending=False, method="first") <= 8]
        shares = dict.fromkeys(("selected", "rest"), "{:.0%}".format)
        self.table.value = table.rename_axis(index=None, columns="tag").to_html(
            formatters={**shares, "difference": "{:+.0%}".format}, border=0
        )
        n = f"{len(selected):,} of {len(self.clips):,}"
        self.listing.heading.value = f"<b>{n} clips selected</b>"
        self.listing.show(selected)
        self.box.children = (self.listing.box, self.table)


def dropdown(
    name: str, options: Iterable | Mapping, value: str, on_change: Callable[[str], None]
) -> Dropdown:
    widget = Dropdown(
        options=options,
        value=value,
        description=name,
        layout=Layout(width="auto"),
        style={"description_width": "initial"},
    )
    widget.observe(lambda change: on_change(change["new"]), "value")
    return widget


def row(*boxes: VBox) -> HBox:
    """Boxes of equal width side by side."""
    for box in boxes:
        box.layout = Layout(flex="1 1 0", min_width="0", padding="0 8px", overflow="hidden")
    return HBox(boxes)


def png(figure: Figure) -> bytes:
    file = BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return file.getvalue()
