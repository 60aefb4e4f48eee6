"""The package as users get it: what it installs, what it does not touch, and how it starts."""

import ast
import configparser
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from compressor.cli import cli
from compressor.coding import native

ROOT = Path(__file__).parents[1]
AT_THE_TOP = ("benchmarks", "cli", "models")  # and yet installed inside compressor
BUILT_FROM = (
    "setup.cfg",
    "setup.py",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "compressor",
    *AT_THE_TOP,
)
MAIN_JOB = "compress lenet5.pt --prune-sensitivity 0.25 --quantize 5bit --data digits"
HEAVY = ("torch", "torchvision", "sklearn", "scipy", "onnx", "onnxruntime")


@pytest.fixture(scope="module")
def setup() -> configparser.ConfigParser:
    parsed = configparser.ConfigParser()
    parsed.read(ROOT / "setup.cfg", encoding="utf-8")
    return parsed


def lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line and not line.startswith("#")]


def modules() -> list[Path]:
    """Every module by the path it installs to, like compressor/cli/__init__.py."""
    found = []
    for top in ("compressor", *AT_THE_TOP):
        for file in (ROOT / top).rglob("*.py"):
            path = file.relative_to(ROOT)
            if path.parts[1] not in AT_THE_TOP:  # those are links to the other three
                found.append(path if top == "compressor" else "compressor" / path)
    return found


def run_python(
    code: str, *arguments: str, cwd: Path, options: tuple[str, ...] = ("-I",)
) -> subprocess.CompletedProcess[str]:
    """Run ``code`` as a user would, in ``cwd``; -I keeps variables and ``cwd`` off the path."""
    command = [sys.executable, *options, "-c", code, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def succeeds(finished: subprocess.CompletedProcess[str]) -> str:
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", AT_THE_TOP)
def test_a_users_own_package_keeps_its_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("OWNER = 'the user'\n")
    # Appended, so anything of ours by that name would win.
    code = f"""
import sys
sys.path.append(sys.argv[1])
import compressor.{name}
import {name}
print({name}.OWNER, compressor.{name}.__name__)
"""
    printed = succeeds(run_python(code, str(tmp_path), cwd=tmp_path))
    assert printed.split() == ["the", "user", f"compressor.{name}"]


@pytest.mark.parametrize("name", AT_THE_TOP)
def test_no_package_of_ours_is_at_the_top(name: str, tmp_path: Path) -> None:
    finished = run_python(f"import compressor, {name}", cwd=tmp_path)
    assert f"No module named '{name}'" in finished.stderr


def test_no_file_imports_our_packages_by_their_short_names() -> None:
    files = [
        file
        for top in ("compressor", "tests", "docs", *AT_THE_TOP)
        for file in sorted((ROOT / top).rglob("*.py"))
    ]
    assert len(files) > 40
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names.append(node.module or "")
            short = {name.split(".")[0] for name in names} & set(AT_THE_TOP)
            assert not short, f"{file.relative_to(ROOT)}: import compressor.{short.pop()} instead"


# --- starting -------------------------------------------------------------------------------------

WITHOUT_HEAVY = f"""
import sys
sys.modules.update(dict.fromkeys({HEAVY!r}))  # importing any of them now fails
from compressor.cli import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize("command", ["", *sorted(cli.commands)])
def test_help_imports_nothing_heavy(command: str, tmp_path: Path) -> None:
    arguments = [*filter(None, [command]), "--help"]
    printed = succeeds(run_python(WITHOUT_HEAVY, *arguments, cwd=tmp_path))
    assert printed.startswith(f"Usage: compress {command}".rstrip())


def test_work_does_import_torch(tmp_path: Path) -> None:
    """Shows that the test above would notice."""
    arguments = ("train", "lenet5", "--data", "digits", "-o", "lenet5.pt")
    finished = run_python(WITHOUT_HEAVY, *arguments, cwd=tmp_path)
    assert finished.returncode != 0
    assert re.search("import of (torch|sklearn)", finished.stderr)


def test_console_script_and_module_start_the_same_program(tmp_path: Path) -> None:
    (script,) = metadata.entry_points(group="console_scripts", name="compress")
    assert script.value == "compressor.cli:main"
    command = [sys.executable, "-m", "compressor", "--version"]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert metadata.version("compressor") in printed.stdout
    assert native.described() in printed.stdout


# --- building -------------------------------------------------------------------------------------


@pytest.fixture(params=["symlinks", "text files"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of what a wheel is built from; git writes links as text files where it cannot link."""
    copy = tmp_path / "tree"
    copy.mkdir()
    for name in BUILT_FROM:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.so", "*.pyd")
            shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(ROOT / name, copy / name)
    for name in AT_THE_TOP:
        (copy / "compressor" / name).unlink()
        if request.param == "symlinks":
            (copy / "compressor" / name).symlink_to(Path("..") / name)
        else:
            (copy / "compressor" / name).write_text(f"../{name}")
    return copy


def build(tree: Path, kind: str, into: Path) -> Path:
    """Run setuptools' own hook, as pip does, without a download."""
    code = f"import sys; from setuptools import build_meta; build_meta.build_{kind}(sys.argv[1])"
    succeeds(run_python(code, str(into), cwd=tree))
    (wheel,) = into.glob("*.whl")
    return wheel


def test_wheel_holds_the_package_and_nothing_else(tree: Path, tmp_path: Path) -> None:
    wheel = build(tree, "wheel", tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    sources = {module.as_posix() for module in modules()}
    recipes = {file.relative_to(ROOT).as_posix() for file in ROOT.glob("compressor/recipes/*.toml")}
    assert recipes, "no recipe is shipped"
    information = {name for name in names if ".dist-info/" in name}
    core = {file.relative_to(ROOT).as_posix() for file in ROOT.glob("compressor/coding/core/*")}
    data = {
        *(
            file.relative_to(ROOT).as_posix()
            for file in ROOT.glob("compressor/channels/profiles/*")
        ),
        "compressor/reporting/report.schema.json",
        *(f"compressor/{f.relative_to(ROOT).as_posix()}" for f in ROOT.glob("benchmarks/**/*.mjs")),
    }
    built = {name for name in names if name.startswith("compressor/coding/_core.")}
    assert len(built) == (native.built() is not None)
    assert names - information - built == sources | recipes | core | data | {"compressor/py.typed"}
    assert any(name.endswith("/LICENSE") for name in information)


def test_without_a_compiler_the_wheel_is_built_all_the_same(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", str(tmp_path / "no compiler"))
    with zipfile.ZipFile(build(tree, "wheel", tmp_path)) as archive:
        names = archive.namelist()
    assert "compressor/coding/native.py" in names
    assert not [name for name in names if name.startswith("compressor/coding/_core.")]


def test_wheel_works_where_it_is_unpacked(tree: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(build(tree, "wheel", tmp_path)) as archive:
        archive.extractall(site)
    assert import_from(site, tmp_path) == {
        name: str(site / "compressor" / name / "__init__.py") for name in AT_THE_TOP
    }


def test_editable_install_works_with_and_without_symlinks(tree: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(build(tree, "editable", tmp_path)) as archive:
        archive.extractall(site)
    found = import_from(site, tmp_path)
    assert {name: Path(file).resolve() for name, file in found.items()} == {
        name: (tree / name / "__init__.py").resolve() for name in AT_THE_TOP
    }


def import_from(site: Path, cwd: Path) -> dict[str, str]:
    """Where our three packages come from; -S hides the installation that runs this test."""
    code = """
import json, site, sys
site.addsitedir(sys.argv[1])
sys.path.append(sys.argv[2])
import compressor.benchmarks, compressor.cli, compressor.models
names = "benchmarks", "cli", "models"
print(json.dumps({name: getattr(compressor, name).__file__ for name in names}))
"""
    libraries = sysconfig.get_path("purelib")
    options = ("-I", "-S")
    printed = succeeds(run_python(code, str(site), libraries, cwd=cwd, options=options))
    found: dict[str, str] = json.loads(printed)
    return found


def test_every_package_is_listed(setup: configparser.ConfigParser) -> None:
    packages = {".".join(module.parent.parts) for module in modules()}
    assert set(lines(setup["options"]["packages"])) == packages


def test_python_versions_agree(setup: configparser.ConfigParser) -> None:
    oldest = setup["options"]["python_requires"].removeprefix(">=")
    major, minor = oldest.split(".")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'target-version = "py{major}{minor}"' in project
    assert f'python_version = "{oldest}"' in project
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"sys.version_info < ({major}, {minor})" in makefile
    assert f"Python {oldest} or newer" in makefile


def test_licence_is_complete(setup: configparser.ConfigParser) -> None:
    assert setup["metadata"]["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    for part in ("Version 2.0, January 2004", "END OF TERMS AND CONDITIONS", "APPENDIX"):
        assert part in text


def test_every_dependency_is_explained(setup: configparser.ConfigParser) -> None:
    extras = setup["options.extras_require"]
    required = lines(setup["options"]["install_requires"])
    required += [line for extra in extras.values() for line in lines(extra)]
    named = {re.split("[<>=!~ ]", line)[0] for line in required}
    document = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([a-z][\w-]*) \|", document, flags=re.MULTILINE)
    assert sorted(row for row in rows if row != "package") == sorted(named)


# --- commands of the repository -------------------------------------------------------------------


def targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))


def test_readme_names_targets_that_exist() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^|`)(?:\$ )?make ([a-z-]+)", readme, flags=re.MULTILINE))
    assert {"demo", "test"} <= named <= targets()
    assert MAIN_JOB in readme


def test_demo_runs_the_main_job() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    demo = makefile[makefile.index("\ndemo:") : makefile.index("\ntest:")]
    assert f"\t{MAIN_JOB}\n" in demo


def test_continuous_integration_runs_the_same_commands() -> None:
    script = ROOT / ".ci" / "run"
    commands = re.findall(r"^make (.*)$", script.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert commands == ["check", "test"]
    assert set(commands) <= targets()
    if os.name == "posix":
        assert script.stat().st_mode & stat.S_IXUSR


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_an_old_python_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "with a space"
    folder.mkdir()
    for name in ("Makefile", "setup.cfg", "setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    old = folder / "old python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    command = ["make", "--no-print-directory", "test", f"PYTHON={old}"]
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert f"error: {old} is not Python 3.11 or newer" in finished.stderr.splitlines()[0]
    assert not (folder / ".venv").exists()


def dockerfile() -> list[list[str]]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return [line.split() for line in lines(text)]


def test_image_starts_the_program_as_an_ordinary_user() -> None:
    words = dockerfile()
    assert [line[0] for line in words].count("FROM") == 2
    assert next(line[1:] for line in words if line[0] == "ENTRYPOINT") == ['["compress"]']
    last_user = [line[1] for line in words if line[0] == "USER"][-1]
    assert last_user not in {"root", "0"}
    assert any("useradd" in line and last_user in line for line in words)


def test_image_is_built_from_files_that_exist_and_are_sent() -> None:
    copied = {
        source
        for line in dockerfile()
        if line[0] == "COPY" and not line[1].startswith("--from")
        for source in line[1:-1]
    }
    assert copied == set(BUILT_FROM)
    sent = lines((ROOT / ".dockerignore").read_text(encoding="utf-8"))
    assert sent[0] == "*"
    assert {line.removeprefix("!") for line in sent if line.startswith("!")} == copied
    assert all((ROOT / name).exists() for name in copied)
