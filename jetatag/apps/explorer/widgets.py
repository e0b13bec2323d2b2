"""Text and two small browser widgets that ipywidgets lacks."""

from html import escape
from pathlib import Path

import anywidget
from traitlets import Dict, Int


def plain(text: str) -> str:
    """A user's text as HTML, with dollars that notebooks do not take for formulas."""
    return f'<span class="tex2jax_ignore mathjax_ignore">{escape(text)}</span>'


class RenderProbe(anywidget.AnyWidget):
    """Tells whether a browser shows widgets, and when it has drawn them: it then copies `sent` to
    `drawn`. Without a browser, `drawn` never changes. As long as they differ, it is drawing."""

    _esm = Path(__file__).with_name("render_probe.js")
    sent = Int(0).tag(sync=True)
    drawn = Int(0).tag(sync=True)


class AudioPlayer(anywidget.AnyWidget):
    """An audio element that, unlike `ipywidgets.Audio`, can play the same clip twice in a row, and
    does not start by itself when the page is reloaded."""

    _esm = Path(__file__).with_name("audio_player.js")
    clip = Dict().tag(sync=True)
    _count = 0

    def load(self, flac: bytes, play: bool) -> None:
        """Load a FLAC file, and play it if `play`."""
        self._count += 1
        self.clip = {"flac": flac, "count": self._count if play else 0}
