"""Sphinx extension: generated tables, notebooks as pages, docstrings that are plain text.

    ```{generated} demo_scores
    ```

shows what the function `demo_scores` of one of the `SOURCES` returns, as Markdown; other words are
its arguments.
"""

import re
from typing import Any

import nbformat
import reference
import regime
import speed
import study
import tables
from astroid.exceptions import AstroidImportError
from astroid.manager import AstroidManager
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

SOURCES = (tables, study, regime, speed, reference)
WIDGET = "application/vnd.jupyter.widget-view+json"
INTERACTIVE = {"text/markdown": "*Interactive in JupyterLab.*"}


class Generated(SphinxDirective):
    """The Markdown that a function returns."""

    required_arguments = 1
    optional_arguments = 9

    def run(self) -> list[nodes.Node]:
        name, *arguments = self.arguments
        source = next(module for module in SOURCES if hasattr(module, name))
        self.env.note_dependency(source.__file__)
        text = getattr(source, name)(*arguments)
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def copy_notebooks(app: Sphinx, *_: Any) -> None:
    """Put the notebooks where Sphinx looks for pages; widgets, which need a kernel, say so."""
    for path in sorted(tables.NOTEBOOKS.glob("0*.ipynb")):
        notebook = nbformat.read(path, 4)
        notebook.metadata.pop("widgets", None)
        for cell in notebook.cells:
            for output in cell.get("outputs", []):
                if WIDGET in output.get("data", {}):
                    output.data = INTERACTIVE
        copy, text = app.srcdir / "tutorials" / path.name, nbformat.writes(notebook)
        if not copy.is_file() or copy.read_text() != text:
            copy.write_text(text)


def plain_docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list) -> None:
    """Turn a docstring into reStructuredText: single backticks are code, all else is plain text but
    for the sections of numpydoc."""
    parsed, section = [], ""
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if re.fullmatch("-{3,}", line):
            continue
        if re.fullmatch("-{3,}", below):
            section = line
            parsed += [f"**{line}**", ""]
            continue
        text = escaped(line)
        if section == "Parameters":
            text = re.sub(r"^(\S.*?) : ", r"- **\1**: ", text)
            text = re.sub(r"^ {4}", "  ", text)
        parsed.append(text)
    lines[:] = parsed


def escaped(line: str) -> str:
    """A line of plain text with code in single backticks, as reStructuredText."""
    code = r"(`+([^`]+)`+(\w?))"
    pieces = re.split(code, line)  # plain, whole, inside, what follows, plain, …
    plain = [re.sub(r"([*|_\\`])", r"\\\1", text) for text in pieces[::4]]
    marked = [
        f"``{inside}``" + (rf"\ {follows}" if follows else "")
        for inside, follows in zip(pieces[2::4], pieces[3::4], strict=True)
    ]
    return "".join(a + b for a, b in zip(plain, [*marked, ""], strict=True))


def look_only_at_jetatag() -> None:
    """Keep astroid, which reads the API, from following imports into other packages: that takes
    nine tenths of the time and changes no page."""
    everything = AstroidManager.ast_from_module_name

    def own(self: AstroidManager, modname: str | None, *args: Any, **kwargs: Any) -> Any:
        if modname and modname.split(".")[0] not in ("jetatag", "builtins", "dataclasses"):
            raise AstroidImportError("{modname} is not read", modname=modname)
        return everything(self, modname, *args, **kwargs)

    AstroidManager.ast_from_module_name = own


def setup(app: Sphinx) -> dict[str, bool]:
    look_only_at_jetatag()
    app.add_directive("generated", Generated)
    app.connect("builder-inited", copy_notebooks)
    app.connect("autodoc-process-docstring", plain_docstring)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
