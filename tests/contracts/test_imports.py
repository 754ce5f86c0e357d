"""Who may import whom, and which words stay in one file: read off the syntax trees, nothing is imported."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("cami2v", "data_pipeline", "launch", "tools")
MISSPELT = ("pluker", "temopral", "framestride_embed")
"""Parts of released parameter names as their authors spelt them."""


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Every module a file imports, function bodies included; "pkg.name" for `from pkg import name`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def offenders(paths: list[Path], allowed) -> list[str]:
    return [f"{path.relative_to(ROOT)}: {name}" for path in paths for name in imports(path) if not allowed(name)]


def within(name: str, *modules: str) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def test_there_is_something_to_walk():
    assert len(sources("cami2v")) > 20
    assert "launch.compose.entry" in set(imports(ROOT / "launch/doctor.py"))


def test_the_library_stands_alone():
    assert (
        offenders(sources("cami2v"), lambda name: not within(name, "data_pipeline", "launch", "tools", "tests")) == []
    )


def test_the_data_pipeline_takes_five_modules_of_the_library():
    def allowed(name: str) -> bool:
        if within(name, "cami2v"):
            return within(
                name, "cami2v.batch", "cami2v.file_hash", "cami2v.geometry", "cami2v.html_report", "cami2v.video"
            )
        return not within(name, "launch", "tools", "tests")

    assert offenders(sources("data_pipeline"), allowed) == []


def test_nothing_that_is_installed_imports_tests():
    assert offenders(sources(*PACKAGES), lambda name: not within(name, "tests")) == []


def test_only_compose_knows_hydra_and_omegaconf():
    """launch/*.py may name DictConfig, which `run(config)` receives; launch/errors.py words their exceptions."""
    for path in sources(*PACKAGES):
        if path.name in ("compose.py", "errors.py") and path.parent.name == "launch":
            continue
        used = {name for name in imports(path) if within(name, "hydra", "omegaconf")}
        allowed = {"omegaconf.DictConfig"} if path.parent.name in ("launch", "tools") else set()
        assert used <= allowed, f"{path.relative_to(ROOT)} imports {sorted(used - allowed)}"


@pytest.mark.parametrize("word", MISSPELT)
def test_released_misspellings_stay_in_one_file(word):
    holders = [path for path in sources(*PACKAGES) if word in path.read_text(encoding="utf-8").lower()]
    yaml = [path for path in (ROOT / "conf").rglob("*.yaml") if word in path.read_text(encoding="utf-8").lower()]
    names = {str(path.relative_to(ROOT)) for path in (*holders, *yaml)}
    assert names <= {"cami2v/checkpoints/released_names.py"}


def test_every_imported_package_is_a_declared_requirement():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    declared = {canonical(re.split(r"[^\w.-]", line, maxsplit=1)[0]) for line in lines}
    distributions = importlib.metadata.packages_distributions()
    undeclared = set()
    for path in sources(*PACKAGES):
        for name in imports(path):
            top = name.partition(".")[0]
            if top in PACKAGES or top in sys.stdlib_module_names:
                continue
            if not declared & {canonical(each) for each in distributions.get(top, [top])}:
                undeclared.add(f"{path.relative_to(ROOT)}: {top}")
    assert undeclared == set()


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
