"""Sphinx settings; `make docs` builds offline and treats warnings as errors."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

from jetatag import __version__  # noqa: E402

project = "jetatag"
release = version = __version__

extensions = ["myst_nb", "autoapi.extension", "generated"]
exclude_patterns = ["_build", "_ext", "_static"]
suppress_warnings = ["autoapi.python_import_resolution"]

# Notebooks are shown with their stored outputs, which the tests check.
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # widgets would need scripts from another host
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autoapi_dirs = ["../jetatag"]
autoapi_root = "reference/api"
autoapi_ignore = ["*/_[a-z]*.py", "*/rendered/[a-z]*.py"]  # private modules, the composer's parts
autoapi_ignore += ["*/cli.py", "*/apps/commands.py"]  # has pages of its own
autoapi_options = ["members"]
autoapi_add_toctree_entry = False
autoapi_member_order = "bysource"
add_module_names = False
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = "jetatag"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
