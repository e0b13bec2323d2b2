"""Displays the explorer: as live widgets in a browser, elsewhere as a figure."""

from IPython.display import DisplayHandle, display
from matplotlib.figure import Figure

from jetatag import figures
from jetatag.apps.explorer.clips import Z
from jetatag.apps.explorer.panel import Panel
from jetatag.apps.explorer.state import State
from jetatag.apps.explorer.widgets import RenderProbe

PLACEHOLDER = "Run this cell in JupyterLab for live maps: click, lasso, search, listen."


class Explorer(State):
    """Linked maps of clips to search and listen to; put it last in a notebook cell.

    `state` holds the initial settings (see `state.DEFAULTS`) and then what the user sets. With
    `keep`, a JSON file, they are saved at every change and restored when the cell is run again.
    Without a browser (papermill, nbconvert) the cell shows the maps as a figure. Raises
    `ValueError` as `State`.
    """

    def figure(self) -> Figure:
        """The maps as a figure, coloured as the settings say."""
        layouts = {
            name: self.clips.layout(name, self.state["layout"], self.seed)
            for name in self.clips.spaces
        }
        name, values = self.colours()
        note = self.clips.map_note(self.state["layout"], self.seed)
        return figures.maps(layouts, self.clips.tags, values, name, {Z: note})

    def _ipython_display_(self) -> None:
        """Show the figure, and replace it with the widgets once a browser has answered."""
        display(self.figure())
        place = display({"text/plain": PLACEHOLDER}, raw=True, display_id=True)
        self._probe = RenderProbe(sent=1)
        self._probe.observe(lambda _: self._show_widgets(place), "drawn")

    def _show_widgets(self, place: DisplayHandle) -> None:
        self.panel = Panel(self)
        place.update({**self.panel.box._repr_mimebundle_(), "text/plain": PLACEHOLDER}, raw=True)
