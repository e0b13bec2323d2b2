"""The explorer's widgets: the maps, and beside them what one asks, finds, hears and selects."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd
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

from jetatag.apps.explorer.browser import Sound
from jetatag.apps.explorer.clips import Clips
from jetatag.apps.explorer.explorer import COLOURS, png
from jetatag.apps.explorer.maps import Maps

if TYPE_CHECKING:
    from jetatag.apps.explorer.explorer import Explorer

LAYOUTS = {"UMAP": "umap", "t-SNE": "tsne", "first principal axes": "pca"}
TOP = 50
"""Clips in a ranking."""
STYLE = """<style>
.jp-OutputArea-child:has(+ .jp-OutputArea-child .jetatag-explorer) { display: none }
.jetatag-map { position: relative }
.jetatag-map:hover { z-index: 1 }
</style>"""
"""The picture comes right before the widgets; without them it is seen again. What is told of a
point lies over the other maps."""


class Panel:
    """Everything that is shown of an explorer; `box` is the widget. What is touched changes the
    explorer's state, and the state what is shown."""

    def __init__(self, explorer: "Explorer") -> None:
        self.explorer, self.clips, state = explorer, explorer.clips, explorer.state
        chosen = self.clips.numbers(state["selection"])
        self.maps = Maps(
            self.clips, state["layout"], explorer.seed, chosen, self.select, self.hover
        )
        self.layout = dropdown("layout", LAYOUTS, state["layout"], self.lay_out)
        self.colour = dropdown("colour by", COLOURS, state["colour"], self.paint)
        self.tag = dropdown("of the tag", self.clips.tags, state["tag"], self.paint)
        self.hover_plays = Checkbox(
            state["play_on_hover"], description="play what is hovered", indent=False
        )
        self.hover_plays.observe(lambda c: explorer.change(play_on_hover=c["new"]), "value")
        self.sliders = Sliders(self.clips.tags, state["weights"], self.ask)
        self.in_space = Listing(self.clips, "best in the shared space", self.show)
        self.by_classifier = Listing(self.clips, "best by the classifier", self.show)
        self.player = Player(self.clips, self.more_like_this)
        self.selection = Selection(self.clips, self.show)
        self.box = self._arranged()
        self.paint()
        self.rank()
        self.selection.tell(chosen if len(chosen) > 1 else [])
        if explorer.clip is not None:
            self.player.show(explorer.clip, play=False)

    def _arranged(self) -> VBox:
        bar = HBox(
            [self.layout, self.colour, self.tag, self.maps.legend, self.hover_plays],
            layout=Layout(flex_flow="wrap"),
        )
        asking = row(self.sliders.box, self.in_space.box, self.by_classifier.box)
        below = row(self.player.box, self.selection.box)
        box = VBox([HTML(STYLE), bar, self.maps.box, asking, below])
        box.layout.overflow = "visible"
        return box.add_class("jetatag-explorer")

    # What a touch does

    def lay_out(self, method: str) -> None:
        self.explorer.change(layout=method)
        self.layout.disabled, self.layout.description = True, "laying out…"
        self.maps.lay_out(method)
        self.layout.disabled, self.layout.description = False, "layout"

    def paint(self, _: Any = None) -> None:
        self.explorer.change(colour=self.colour.value, tag=self.tag.value)
        self.tag.disabled = self.colour.value not in ("tag", "score")
        self.maps.colour(*self.explorer.colours())

    def ask(self, weights: Mapping[str, float]) -> None:
        self.explorer.change(weights=dict(weights), like="")
        self.rank()

    def more_like_this(self) -> None:
        self.explorer.change(like=self.explorer.state["clip"])
        self.rank()

    def rank(self) -> None:
        back = " (move a slider to ask for tags again)" if self.explorer.state["like"] else ""
        self.sliders.told.value = f"asked: <b>{escape(self.explorer.asked())}</b>{back}"
        self.in_space.tell(self.explorer.best(TOP)[0])
        self.by_classifier.tell(self.explorer.best(TOP)[1])
        if self.colour.value == "fit":
            self.maps.colour(*self.explorer.colours())

    def select(self, points: Sequence[int]) -> None:
        """One clip is shown and played, one tag is asked for, several clips are compared."""
        chosen = [point for point in points if point < len(self.clips)]
        self.explorer.change(selection=self.clips.clip_ids[chosen].tolist())
        self.selection.tell(chosen if len(points) > 1 else [])
        if len(points) == 1 and chosen:
            self.show(chosen[0])
        elif len(points) == 1:
            self.sliders.add(self.clips.tags[points[0] - len(self.clips)])

    def hover(self, point: int) -> None:
        if self.hover_plays.value and point < len(self.clips):
            self.explorer.change(clip=str(self.clips.clip_ids[point]))
            self.player.play(point)

    def show(self, clip: int | None) -> None:
        if clip is None:
            return
        self.explorer.change(clip=str(self.clips.clip_ids[clip]))
        self.maps.point_at(clip)
        for listing in (self.in_space, self.by_classifier, self.selection.listing):
            listing.leave(clip)
        self.player.show(clip)


class Sliders:
    """Tags that are asked for, each with a slider from not wanted to wanted."""

    def __init__(
        self,
        tags: Sequence[str],
        weights: Mapping[str, float],
        on_change: Callable[[dict[str, float]], None],
    ) -> None:
        self.on_change, self.sliders = on_change, {}
        self.adder = Dropdown(
            options=[("add a tag …", ""), *zip(tags, tags, strict=True)],
            layout=Layout(width="auto"),
        )
        self.adder.observe(lambda change: self.add(change["new"]), "value")
        self.rows = VBox()
        self.told = HTML()
        heading = HTML("<b>ask for tags</b>, from 1 wanted to −1 not wanted")
        self.box = VBox([heading, self.adder, self.rows, self.told])
        for tag, weight in weights.items():
            self._append(tag, weight)

    def add(self, tag: str) -> None:
        """Ask for a tag, fully."""
        if tag and tag not in self.sliders:
            self._append(tag, 1.0)
            self._changed()
        self.adder.value = ""

    def _append(self, tag: str, weight: float) -> None:
        slider = FloatSlider(
            weight,
            min=-1,
            max=1,
            step=0.1,
            description=tag,
            readout_format="+.1f",
            layout=Layout(width="auto", flex="1"),
        )
        slider.observe(self._changed, "value")
        remove = Button(
            description="×", tooltip=f"no longer ask for {tag}", layout=Layout(width="2.4em")
        )
        remove.on_click(lambda _: self._remove(tag))
        self.sliders[tag] = slider
        self.rows.children += (HBox([slider, remove]),)

    def _remove(self, tag: str) -> None:
        place = list(self.sliders).index(tag)
        del self.sliders[tag]
        self.rows.children = self.rows.children[:place] + self.rows.children[place + 1 :]
        self._changed()

    def _changed(self, _: Any = None) -> None:
        self.on_change({tag: round(slider.value, 2) for tag, slider in self.sliders.items()})


class Listing:
    """Clips by name, one a line; the one that is picked is shown and played."""

    def __init__(
        self, clips: Clips, heading: str, on_pick: Callable[[int], None], rows: int = 12
    ) -> None:
        self.clips, self.heading = clips, HTML(f"<b>{heading}</b>")
        self.list = Select(rows=rows, layout=Layout(width="auto"))
        self.list.observe(lambda change: on_pick(change["new"]), "value")
        self.box = VBox([self.heading, self.list])

    def leave(self, clip: int) -> None:
        """Let go of what was picked where it is not this clip, so that it can be picked again."""
        if self.list.value != clip:
            self.list.value = None

    def tell(self, chosen: Iterable[int]) -> None:
        lines = [
            (f"{place}. {self.clips.titles[clip]} · {self.clips.true_tags(clip)}", int(clip))
            for place, clip in enumerate(chosen, 1)
        ]
        self.list.options = [("pick a clip to hear it:", None), *lines] if lines else []


class Player:
    """The clip that is looked at: its sound, its tags, its spectrogram and taggram."""

    def __init__(self, clips: Clips, on_like: Callable[[], None]) -> None:
        self.clips, self.about = clips, HTML("<b>click a clip to hear it</b>")
        self.sound = Sound()
        self.like = Button(description="more like this", icon="search", disabled=True)
        self.like.on_click(lambda _: on_like())
        self.picture = Image(format="png", layout=Layout(max_width="100%", visibility="hidden"))
        sound = [self.sound] if clips.store else []
        self.box = VBox([self.about, *sound, self.like, self.picture])

    def show(self, clip: int, play: bool = True) -> None:
        """Show a clip, and play it unless there is no store or it is not wanted."""
        self._tell(clip, play)
        self.picture.value = png(self.clips.figure(clip))  # last, for drawing takes longest
        self.picture.layout.visibility = "visible"

    def play(self, clip: int) -> None:
        """Play a clip in passing, without its picture."""
        self._tell(clip, True)

    def _tell(self, clip: int, play: bool) -> None:
        self.picture.layout.visibility = "hidden"  # for it is of another
        lines = {"true": self.clips.true_tags(clip), "predicted": self.clips.predicted_tags(clip)}
        told = "".join(f"<br>{name}: {escape(tags)}" for name, tags in lines.items())
        self.about.value = f"<b>{escape(self.clips.titles[clip])}</b>{told}"
        self.like.disabled = False
        if self.clips.store:
            self.sound.load(self.clips.sound(clip), play)


class Selection:
    """The clips that a lasso caught: their tags against those of the rest, and a list of them."""

    def __init__(self, clips: Clips, on_pick: Callable[[int], None]) -> None:
        self.clips, self.told = clips, HTML().add_class("jp-RenderedHTMLCommon")  # looks of a table
        self.listing = Listing(clips, "the clips selected", on_pick)
        self.box = VBox([self.told])

    def tell(self, chosen: Sequence[int]) -> None:
        if not chosen:
            self.told.value = "draw a <b>lasso</b> around clips to compare their tags"
            self.box.children = (self.told,)
            return
        self.told.value = comparison(self.clips.compare(chosen))
        self.listing.heading.value = f"<b>{len(chosen):,} of {len(self.clips):,} clips selected</b>"
        self.listing.tell(chosen)
        self.box.children = (self.listing.box, self.told)


def comparison(table: pd.DataFrame) -> str:
    """The tags whose share differs most between a selection and the rest, as HTML."""
    shown = table[table.difference.abs().rank(ascending=False, method="first") <= 8]
    shares = dict.fromkeys(("selected", "rest"), "{:.0%}".format)
    shown = shown.rename_axis(index=None, columns="tag")
    return shown.to_html(formatters={**shares, "difference": "{:+.0%}".format}, border=0)


def dropdown(
    name: str,
    options: Iterable[str] | Mapping[str, str],
    value: str,
    on_change: Callable[[str], None],
) -> Dropdown:
    look = {"layout": Layout(width="auto"), "style": {"description_width": "initial"}}
    made = Dropdown(options=options, value=value, description=name, **look)
    made.observe(lambda change: on_change(change["new"]), "value")
    return made


def row(*boxes: VBox) -> HBox:
    """Boxes side by side, each as wide as the others."""
    for box in boxes:
        box.layout = Layout(flex="1 1 0", min_width="0", padding="0 8px", overflow="hidden")
    return HBox(boxes)
