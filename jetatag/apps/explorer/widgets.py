"""Two small browser widgets that ipywidgets lacks."""

import anywidget
from traitlets import Dict, Int


class RenderProbe(anywidget.AnyWidget):
    """Tells whether a browser shows widgets, and when it has drawn what it was sent: the browser
    then copies `sent` to `drawn`. Without a browser `drawn` never changes."""

    _esm = """export default { initialize({ model }) {
      const answer = () => { model.set("drawn", model.get("sent")); model.save_changes(); };
      const wait = () => setTimeout(answer, 50);
      const sent = () => requestAnimationFrame(() => requestAnimationFrame(wait));
      model.on("change:sent", sent);
      sent();
    } };"""
    sent = Int(0).tag(sync=True)
    drawn = Int(0).tag(sync=True)

    @property
    def is_pending(self) -> bool:
        """Whether the browser has yet to answer."""
        return self.drawn != self.sent


class AudioPlayer(anywidget.AnyWidget):
    """An audio element. Unlike `ipywidgets.Audio` it also plays a clip that is loaded a second
    time, and does not start by itself when the page is reloaded."""

    _esm = """export default { render({ model, el }) {
      const audio = document.createElement("audio");
      const load = () => {
        URL.revokeObjectURL(audio.src);
        const flac = model.get("clip").flac;
        if (flac) audio.src = URL.createObjectURL(new Blob([flac], { type: "audio/flac" }));
      };
      const changed = () => { load(); if (model.get("clip").count) audio.play().catch(() => {}); };
      audio.controls = true;
      audio.style.width = "100%";
      load();
      model.on("change:clip", changed);
      el.append(audio);
      return () => { audio.pause(); model.off("change:clip", changed); };
    } };"""
    clip = Dict().tag(sync=True)
    _count = 0

    def load(self, flac: bytes, play: bool) -> None:
        """Load a FLAC file, and play it if `play`."""
        self._count += 1
        self.clip = {"flac": flac, "count": self._count if play else 0}
