"""Rules of the repository that can be checked by a program."""

import ast
import json
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml

from jetatag import cli
from jetatag.config import PRESETS
from jetatag.grid import runner

ROOT = Path(__file__).parents[1]
FLOW = """files data rendered extractors metrics joint config training evaluation figures
original apps grid cli"""
ROOMS = FLOW.split()
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def rooms_imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "jetatag":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jetatag."):
            names.add(node.module.split(".")[1])
    return names


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "jetatag").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sorted((ROOT / "jetatag").rglob("*.py")), ids=str)
def test_rooms_import_only_from_rooms_before_them(path):
    if path == ROOT / "jetatag" / "__init__.py":
        return
    later = ROOMS[ROOMS.index(room_of(path)) + 1 :]
    assert not rooms_imported(path) & set(later)


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
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (ROOT / "jetatag").rglob("*.py")
    }
    graph = {name: set() for name in paths.keys() - {"jetatag"}}
    for name in graph:
        for node in ast.walk(ast.parse(paths[name].read_text())):
            if isinstance(node, ast.ImportFrom):
                full = [f"{node.module}.{alias.name}" for alias in node.names]
                graph[name] |= {each if each in paths else node.module for each in full}
    graph = {name: modules & graph.keys() for name, modules in graph.items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(graph) > 60


def test_only_the_data_set_itself_imports_the_inside_of_rendered():
    inside = re.compile(r"jetatag\.rendered\.|from jetatag\.rendered import")
    users = [path for path in (ROOT / "jetatag").rglob("*.py") if inside.search(path.read_text())]
    assert {path.parent.name for path in users} == {"rendered"}


def test_conda_users_get_the_same_lock():
    environment = yaml.safe_load((ROOT / "environment.yaml").read_text())
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    assert [entry.split("=")[0] for entry in conda] == ["python", "pip"]
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == ["--requirement requirements.lock", "--editable ."]
    makefile = (ROOT / "Makefile").read_text()
    assert "--requirement requirements.lock" in makefile


def test_the_lock_pins_every_dependency_within_its_range():
    from importlib.metadata import requires

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    files = (ROOT / "requirements.lock", ROOT / "tests" / "tensorflow.lock")
    lines = [line for file in files for line in file.read_text().splitlines()]
    lock = [Requirement(line) for line in lines if line and not line.startswith("#")]
    pinned = {canonicalize_name(entry.name): str(entry.specifier) for entry in lock}
    assert all(re.fullmatch(r"==[^,*]+", version) for version in pinned.values())
    for text in requires("jetatag"):
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
