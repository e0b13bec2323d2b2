"""Rules of the repository that can be checked by a program."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from importlib.util import resolve_name
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from jetatag import cli, rendered
from jetatag.config import PRESETS
from jetatag.grid import runner

ROOT = Path(__file__).parents[1]
FLOW = """files data rendered extractors metrics joint config training evaluation figures
original apps grid cli"""
ROOMS = FLOW.split()
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "jetatag").rglob("*.py")
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def imported(source: str, package: str | None = None) -> set[str]:
    """Full names of what `source`, a module in `package`, imports anywhere, also in functions."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def imported_by(module: str) -> set[str]:
    path = MODULES[module]
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    return imported(path.read_text(), package)


@pytest.mark.parametrize(
    "source",
    [
        "import numpy, jetatag.apps.tagger as t",
        "from jetatag.apps import tagger",
        "from . import tagger",
        "from ..apps import tagger",
        "from ..apps.tagger import load",
        "def f():\n    from . import tagger",
    ],
)
def test_every_form_of_import_is_read(source):
    assert any(name.startswith("jetatag.apps.tagger") for name in imported(source, "jetatag.apps"))


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {"jetatag"}))
def test_rooms_import_only_from_rooms_before_them(module):
    later = ROOMS[ROOMS.index(module.split(".")[1]) + 1 :]
    names = [name.split(".") for name in imported_by(module)]
    assert not {name[1] for name in names if name[0] == "jetatag"} & set(later)


UNIX_ONLY = """
import builtins, importlib, pkgutil, jetatag
original = builtins.__import__

def without_unix(name, globals=None, *rest, **named):
    if name in ("fcntl", "resource", "pwd", "grp", "termios"):
        assert not (globals or {})["__name__"].startswith("jetatag"), f"{name} at import"
    return original(name, globals, *rest, **named)

builtins.__import__ = without_unix
names = [module.name for module in pkgutil.walk_packages(jetatag.__path__, "jetatag.")]
assert len(names) > 50
for name in names:
    importlib.import_module(name)
"""


def test_no_module_needs_unix_to_be_imported():
    subprocess.run([sys.executable, "-c", UNIX_ONLY], check=True)


def test_no_module_imports_in_a_circle():
    """Imports inside functions count, but for those of the package itself."""
    graph = {}
    for name in MODULES.keys() - {"jetatag"}:
        of = {each if each in MODULES else each.rpartition(".")[0] for each in imported_by(name)}
        graph[name] = of & (MODULES.keys() - {"jetatag"})
    assert len(list(TopologicalSorter(graph).static_order())) == len(graph) > 60


def test_only_the_data_set_itself_imports_the_inside_of_rendered():
    inside = ("jetatag.rendered.",)
    users = {module for module in MODULES if any(n.startswith(inside) for n in imported_by(module))}
    assert {module.split(".")[1] for module in users} == {"rendered"}


def distributions(requirements: Iterable[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def imported_distributions(*folders: str) -> set[str]:
    """What the sources in `folders` import from outside the repository and the standard library."""
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    names = {name.split(".")[0] for path in paths for name in imported(path.read_text(), "jetatag")}
    names -= {*sys.stdlib_module_names, "jetatag", *(path.stem for path in paths)}
    installed = packages_distributions()
    return {canonicalize_name(dist) for name in names for dist in installed.get(name, [name])}


def test_the_library_imports_what_is_declared_and_declares_what_is_used():
    optional = (text for name in EXTRAS.keys() - {"test", "docs"} for text in EXTRAS[name])
    required, found = distributions(PROJECT["dependencies"]), imported_distributions("jetatag")
    assert found - required <= distributions(optional)
    assert required - found == {"jupyterlab", "snakemake"}  # programs, which are not imported


def test_tests_and_documentation_import_what_is_declared():
    declared = [*PROJECT["dependencies"], *(text for extra in EXTRAS.values() for text in extra)]
    apart = {"tf-keras"}  # only in tests/tensorflow.lock
    assert imported_distributions("tests", "docs") - distributions(declared) == apart


def test_conda_users_get_the_same_lock():
    environment = yaml.safe_load((ROOT / "environment.yaml").read_text())
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    assert [entry.split("=")[0] for entry in conda] == ["python", "pip"]
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == ["--requirement requirements.lock", "--editable ."]
    makefile = (ROOT / "Makefile").read_text()
    assert "--requirement requirements.lock" in makefile


def test_the_lock_pins_every_dependency_within_its_range():
    files = (ROOT / "requirements.lock", ROOT / "tests" / "tensorflow.lock")
    lines = [line for file in files for line in file.read_text().splitlines()]
    lock = [Requirement(line) for line in lines if line and not line.startswith("#")]
    pinned = {canonicalize_name(entry.name): str(entry.specifier) for entry in lock}
    assert all(re.fullmatch(r"==[^,*]+", version) for version in pinned.values())
    for text in sum(EXTRAS.values(), PROJECT["dependencies"]):
        wanted = Requirement(text)
        if wanted.name == "jetatag":  # an extra that contains another
            continue
        assert wanted.specifier.contains(pinned[canonicalize_name(wanted.name)][2:]), text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_whole_and_clean(path):
    text = path.read_text()
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not any(output["output_type"] == "error" for output in outputs)
    assert sum("parameters" in cell["metadata"].get("tags", []) for cell in cells) == 1
    checked = [cell for cell in cells if "# NBVAL_CHECK_OUTPUT" in "".join(cell["source"])]
    assert 1 <= len(checked) <= 4 and all(cell["outputs"] for cell in checked)
    assert not re.search(r"(/home|/root|/tmp|/Users)/|\.\./shared", text)
    assert path.stat().st_size < 650_000
    lengths = sorted(len(cell["source"]) for cell in cells)
    assert lengths[len(lengths) // 2] <= 6 and lengths[-1] <= 15
    source = "\n".join("".join(cell["source"]) for cell in cells)
    assert "class " not in source and "sys.path" not in source and "!pip" not in source
    assert len(re.findall(r"^\s*def ", source, flags=re.M)) <= 1


def test_seven_notebooks_in_order():
    assert [path.stem[:2] for path in NOTEBOOKS] == [f"0{number}" for number in range(1, 8)]


def test_every_preset_has_settings_parameters_and_a_size():
    assert list(PRESETS) == list(rendered.SIZES) and sorted(PRESETS) == cli.PRESETS


@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_preset_names_only_parameters_that_exist(preset):
    values = yaml.safe_load((ROOT / "notebooks" / "params" / f"{preset}.yaml").read_text())
    runner.check_parameters(values, NOTEBOOKS)
    assert values["preset"] == preset


def test_what_decides_the_audio_reaches_every_notebook_that_makes_or_reads_it():
    values = {"extractor": "sample_cnn", "settings": {"sample_rate": 8_000}}
    for notebook in NOTEBOOKS[:3]:
        assert yaml.safe_load(runner.parameter_yaml(values, notebook)) == values


def test_a_misspelt_parameter_is_refused_with_the_valid_ones():
    with pytest.raises(ValueError, match=r"'pair_los' \(did you mean 'pair_loss'\?\)") as refusal:
        runner.check_parameters({"pair_los": "cosine"}, NOTEBOOKS)
    assert "extractor" in str(refusal.value) and "store" in str(refusal.value)


def test_the_command_gives_one_sentence_for_a_mistake(capsys):
    assert cli.main(["reproduce", "--preset", "smoke", "--set", "widht=3"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("jetatag: unknown parameter 'widht'") and error.count("\n") == 1
