"""The installed wheel: conf/ travels with it, and the command works far from any checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


def python(*arguments: str, cwd: Path, **variables: str) -> str:
    environment = {**os.environ, **variables}
    result = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Folder that a wheel of this checkout was installed into."""
    folder = tmp_path_factory.mktemp("wheel")
    python("-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist"), cwd=ROOT)
    (wheel,) = (folder / "dist").glob("cami2v-*.whl")
    python("-m", "pip", "install", "-q", "--no-deps", "--target", str(folder / "site"), str(wheel), cwd=folder)
    return folder / "site"


@pytest.mark.slow
def test_every_config_is_in_the_wheel(installed):
    shipped = {
        str(path.relative_to(installed / "launch" / "conf")) for path in (installed / "launch/conf").rglob("*.yaml")
    }
    assert shipped == {str(path.relative_to(ROOT / "conf")) for path in (ROOT / "conf").rglob("*.yaml")}
    assert not (installed / "tests").exists()


@pytest.mark.slow
def test_what_pages_are_made_of_is_in_the_wheel(installed):
    sources = [
        path.relative_to(ROOT)
        for package in ("cami2v", "data_pipeline")
        for kind in ("*.js", "*.css")
        for path in (ROOT / package).rglob(kind)
    ]
    assert Path("cami2v/html_world.js") in sources
    for name in sources:
        assert (installed / name).read_text() == (ROOT / name).read_text()


@pytest.mark.slow
def test_the_command_composes_from_the_wheel(installed, tmp_path):
    path = {"PYTHONPATH": str(installed)}
    where = python("-c", "import launch.compose as c; print(c.conf_folder())", cwd=tmp_path, **path)
    assert Path(where.strip()) == installed / "launch" / "conf"
    code = "from launch.cli import main; main()"
    printed = python("-c", code, "train", "--cfg", "job", "trainer.max_steps=7", cwd=tmp_path, **path)
    assert yaml.safe_load(printed)["trainer"]["max_steps"] == 7
    assert list(tmp_path.iterdir()) == []
