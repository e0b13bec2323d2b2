"""Small widgets that say what the browser does, or do there what ipywidgets' do not."""

import anywidget
from traitlets import Dict, Int


class Echo(anywidget.AnyWidget):
    """A number that comes back as `heard` from a browser that can show widgets, once it has drawn
    what it was sent before the number was `said`; from none it never does."""

    _esm = """export default { initialize({ model }) {
      const answer = () => { model.set("heard", model.get("said")); model.save_changes(); };
      const drawn = () => setTimeout(answer, 50);
      const sent = () => requestAnimationFrame(() => requestAnimationFrame(drawn));
      model.on("change:said", sent);
      sent();
    } };"""
    said = Int(0).tag(sync=True)
    heard = Int(0).tag(sync=True)

    @property
    def is_due(self) -> bool:
        """Whether the browser has yet to answer."""
        return self.heard != self.said


class Sound(anywidget.AnyWidget):
    """A player that plays a clip whenever it is given one to play, also the same one again, and
    not when its page is loaded anew."""

    _esm = """export default { render({ model, el }) {
      const audio = document.createElement("audio");
      const load = () => {
        URL.revokeObjectURL(audio.src);
        const flac = model.get("clip").flac;
        if (flac) audio.src = URL.createObjectURL(new Blob([flac], { type: "audio/flac" }));
      };
      const changed = () => { load(); if (model.get("clip").turn) audio.play().catch(() => {}); };
      audio.controls = true;
      audio.style.width = "100%";
      load();
      model.on("change:clip", changed);
      el.append(audio);
      return () => { audio.pause(); model.off("change:clip", changed); };
    } };"""
    clip = Dict().tag(sync=True)
    _turn = 0

    def load(self, flac: bytes, play: bool) -> None:
        """Take a FLAC file, and play it where that is wanted."""
        self._turn += 1
        self.clip = {"flac": flac, "turn": self._turn if play else 0}
