"""What the browser answers: that it is there, and that it has drawn what it was sent."""

import anywidget
from traitlets import Int


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
