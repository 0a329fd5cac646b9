"""The house rules that a machine can hold: sizes, forbidden constructs, the map, commands, dependencies."""

from __future__ import annotations

import argparse
import ast
import doctest
import importlib
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

try:
    import tomllib
except ImportError:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("wire", "models", "profiling", "edge_agent", "orchestrator")
SOURCES = sorted(path.relative_to(ROOT).as_posix() for room in ROOMS for path in (ROOT / room).rglob("*.py"))
AROUND = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("bench", "examples", "scripts")
    for path in (ROOT / folder).rglob("*")
    if path.is_file() and path.suffix in ("", ".py")
)
COMMANDS = ("mas_edge.orchestrator.cli", "mas_edge.edge_agent.cli", "mas_edge.profiling.cli")
RUNS_FOREIGN_CODE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
MAX_FILE_LINES, MAX_FUNCTION_LINES = 300, 40

each_source = pytest.mark.parametrize("source", SOURCES)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


PROJECT = tomllib.loads(read("pyproject.toml"))["project"]


@cache
def syntax(name: str) -> ast.Module:
    return ast.parse(read(name), name, feature_version=(3, 10))


# --- sizes and constructs -------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOURCES + AROUND)
def test_no_file_is_longer_than_one_sitting(name):
    assert len(read(name).splitlines()) <= MAX_FILE_LINES


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


@each_source
def test_no_function_is_longer_than_a_screen(source):
    functions = [
        n for n in ast.walk(syntax(source)) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    long = {f"{f.name}:{f.lineno}": body_lines(f) for f in functions if body_lines(f) >= MAX_FUNCTION_LINES}
    assert not long


@each_source
def test_every_module_says_what_it_is_for(source):
    tree = syntax(source)
    assert not tree.body or ast.get_docstring(tree)


@each_source
def test_the_syntax_is_that_of_python_3_10(source):
    assert syntax(source)


def broad(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    names = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}
    return bool(names & {"Exception", "BaseException"})


@each_source
def test_only_an_outermost_frame_catches_everything(source):
    tree = syntax(source)
    lines = {n.lineno for n in ast.walk(tree) if isinstance(n, ast.ExceptHandler) and broad(n)}
    if source == "edge_agent/worker.py":
        assert len(lines) <= 1
    elif source.endswith("/cli.py"):
        mains = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "main"]
        assert lines <= {
            n.lineno for main in mains for n in ast.walk(main) if isinstance(n, ast.ExceptHandler)
        }
    else:
        assert not lines


def unsafe(node: ast.AST) -> bool:
    match node:
        case ast.Import(names=names):
            return any(name.name.split(".")[0] in RUNS_FOREIGN_CODE for name in names)
        case ast.ImportFrom(module=str(module)):
            return module.split(".")[0] in RUNS_FOREIGN_CODE
        case ast.Attribute(value=ast.Name(id="torch"), attr="load" | "save"):
            return True
        case ast.keyword(arg="allow_pickle", value=ast.Constant(value=value)):
            return bool(value)
        case ast.Call(func=ast.Name(id="eval" | "exec")):
            return True
    return False


@each_source
def test_nothing_that_is_read_can_run_code(source):
    assert [node.lineno for node in ast.walk(syntax(source)) if unsafe(node)] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import pickle", True),
        ("from joblib.numpy_pickle import load", True),
        ("torch.load(path)", True),
        ("numpy.load(path, allow_pickle=True)", True),
        ("numpy.load(path, allow_pickle=False)", False),
        ("json.load(file)", False),
    ],
)
def test_the_search_for_unsafe_reading_finds_it(text, found):
    assert any(unsafe(node) for node in ast.walk(ast.parse(text))) is found


# --- layers and what is loaded --------------------------------------------------------------------


def run(*command: object) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a command in the checkout."""
    env = {**os.environ, "PYTHONSAFEPATH": "1"}
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout, done.stderr


def test_the_layers_hold():
    lint = Path(sys.executable).with_name("lint-imports")
    status, out, errors = run(lint, "--no-cache")
    assert status == 0, out + errors


LIGHT = (
    "mas_edge.edge_agent.agent",
    "mas_edge.edge_agent.inference",
    "mas_edge.edge_agent.service",
    "mas_edge.edge_agent.worker",
    "mas_edge.models.job",
    "mas_edge.models.tasks",
    "mas_edge.models.weights",
    "mas_edge.models.workloads.buildings.workload",
    "mas_edge.models.workloads.watch",
    "mas_edge.orchestrator.server",
    "mas_edge.orchestrator.service",
    "mas_edge.orchestrator.split",
    *COMMANDS,
)


@pytest.mark.parametrize("module", LIGHT)
def test_importing_loads_nothing_heavy(module):
    heavy = {"torch", "paho", "amqtt", "matplotlib", "onnx", "onnxruntime", "rich"}
    code = f"import sys, {module}; print(*sorted({heavy!r} & set(sys.modules)))"
    assert run(sys.executable, "-c", code) == (0, "\n", "")


@pytest.fixture
def described(tmp_path, monkeypatch):
    """A folder of pictures that is described as fully as one can be, in the daemons' environment."""
    label = 'kind = "regression"\nchannels = 3\nmasked = true\nconstant = [0.5]'
    tables = f'[tasks.normal]\n{label}\n[input]\ndomain = "rgb"\n[mask]\ndomain = "depth"\nabove = 0'
    (tmp_path / "dataset.toml").write_text(f'pixels = 32\nclients = ["attic"]\n{tables}\n', encoding="utf-8")
    monkeypatch.setenv("MAS_EDGE_FOLDER", str(tmp_path))


@pytest.mark.parametrize("name", PROJECT["entry-points"]["mas_edge.workloads"])
@pytest.mark.usefixtures("described")
def test_an_agent_that_offers_a_workload_loads_no_numpy(name):
    heavy = {"numpy", "torch", "PIL", "scipy"}
    found = f"s.find({name!r}).name, *sorted({heavy!r} & set(sys.modules))"
    code = f"import sys, mas_edge.edge_agent.service as s; print({found})"
    assert run(sys.executable, "-c", code) == (0, f"{name}\n", "")


# --- documents ------------------------------------------------------------------------------------


def the_map(readme: str) -> list[str]:
    """Paths in the first code block under "## The map", in order; the format is in CONTRIBUTING.md."""
    section = re.search(r"^## The map$.*?^```\w*\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    assert section, 'README.md has no code block under "## The map"'
    paths: list[str] = []
    folder = ""
    for line in filter(str.strip, section[1].splitlines()):
        entry = re.fullmatch(r"(  )?(\S+)(?:  +(\S.*))?", line)
        assert entry, f"README.md, The map: not `path  description`: {line!r}"
        path = folder + entry[2] if entry[1] else entry[2]
        folder = folder if entry[1] else entry[2]
        assert not entry[1] or folder.endswith("/"), f"README.md, The map: {line!r} is indented under a file"
        assert entry[3], f"README.md, The map: {path} has no description"
        paths.append(path)
    return paths


def test_the_map_shows_every_module_once_and_nothing_else():
    paths = the_map(read("README.md"))
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert len(paths) == len(set(paths))
    assert {path for path in SOURCES if not path.endswith("/__init__.py")} - set(paths) == set()


def test_a_map_reads_folders_and_what_is_in_them():
    text = "## The map\n\nWords.\n\n```\nwire/  what is said\n  bus.py   how\nLICENSE  Apache\n```\n"
    assert the_map(text) == ["wire/", "wire/bus.py", "LICENSE"]


def commands(parser: argparse.ArgumentParser, name: str) -> list[str]:
    """A command and all below it, as one types them."""
    below = [a.choices.items() for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return [line for items in below for key, sub in items for line in commands(sub, f"{name} {key}")] or [
        name
    ]


@pytest.mark.parametrize("module", COMMANDS)
def test_every_command_is_in_the_readme(module):
    parser = importlib.import_module(module).parser()
    readme = read("README.md")
    typed = commands(parser, parser.prog)
    assert [line for line in typed if not re.search(rf"\b{re.escape(line)}\b", readme)] == []


@pytest.mark.parametrize("command", ["mas", "mas-agent", "mas-profile"])
def test_every_command_teaches_itself(command):
    status, out, errors = run(Path(sys.executable).with_name(command), "--help")
    assert (status, errors) == (0, "")
    assert out.startswith(f"usage: {command}")


EXTRAS = PROJECT["optional-dependencies"]


def names(*requirements: str) -> list[str]:
    """What a list of requirements asks for, without ourselves."""
    return sorted({re.match(r"[\w-]+", text)[0] for text in requirements} - {PROJECT["name"]})


@pytest.mark.parametrize(
    "name", names(*PROJECT["dependencies"], *(text for e in EXTRAS.values() for text in e))
)
def test_every_dependency_is_justified(name):
    assert re.search(rf"^\| {re.escape(name)} \|", read("docs/dependencies.md"), re.MULTILINE)


def test_what_the_scripts_install_is_pinned():
    lines = [line for line in read("constraints.txt").splitlines() if not line.startswith("#")]
    pins = [re.fullmatch(r"([a-z0-9-]+)==[\w.]+(; python_version (<|>=) '3\.11')?", line) for line in lines]
    extras = ("buildings", "demo", "dev", "infer", "orchestrator", "train")
    installed = names(*PROJECT["dependencies"], *(text for extra in extras for text in EXTRAS[extra]))
    assert all(pins)
    assert set(installed) <= {pin[1] for pin in pins}


def test_every_published_number_names_its_command():
    for path in (ROOT / "docs/results").glob("*.md"):
        command = re.search(r"^Command: `([^`]+)`", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert command, f"{path}: no line that begins with Command: `...`"
        scripts = re.findall(r"\b(?:bench|scripts)/[\w.]+", command[1])
        assert scripts or command[1].startswith("mas")
        assert [script for script in scripts if not (ROOT / script).exists()] == []


def test_the_examples_in_docstrings_hold():
    for source in [name for name in SOURCES if ">>> " in read(name)]:
        module = importlib.import_module("mas_edge." + source.removesuffix(".py").replace("/", "."))
        result = doctest.testmod(module)
        assert result.attempted > 0, f"{source} has an example outside of a docstring"
        assert result.failed == 0, f"{source}: see the output"


def test_every_published_defect_has_the_tests_that_its_page_names():
    page = read("docs/published-defects.md")
    assert re.findall(r"^\| (\d+) \|", page, re.MULTILINE) == [str(n) for n in range(1, 18)]
    file = ""
    for path, name in re.findall(r"`([\w/]*(?:\.py)?)::(\w+)`", page):
        file = path or file
        assert f"def {name}(" in read(file), f"{file} has no {name}"
