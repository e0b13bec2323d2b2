"""Running the notebooks on a grid of runs, and the report page."""

from pathlib import Path


def packaged_notebooks() -> Path:
    """The folder of notebooks, Snakefile and parameters that comes with jetatag: inside the package
    if it is installed, next to it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "notebooks"
    return inside if inside.is_dir() else package.parent / "notebooks"
