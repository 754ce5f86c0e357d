"""The `cami2v` command as a shell sees it."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from launch import cli

ROOT = Path(__file__).resolve().parents[2]


def shell(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from launch.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )


def test_help_imports_nothing_heavy(tmp_path):
    result = shell("--help", cwd=tmp_path)
    assert result.returncode == 0
    assert all(verb in result.stdout for verb in ("pack", "train", "sample", "evaluate", "doctor"))
    heavy = (
        "import sys, launch.cli; launch.cli.usage(); "
        "assert not {'torch', 'numpy', 'hydra', 'omegaconf', 'yaml'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", heavy], cwd=ROOT, check=True, timeout=60)


def test_no_arguments_show_the_help():
    assert shell().stdout == shell("--help").stdout


def test_version_is_the_installed_one():
    assert shell("--version").stdout == f"cami2v {importlib.metadata.version('cami2v')}\n"


def test_an_unknown_verb_is_answered_in_one_line():
    result = shell("trian")
    assert result.returncode == 2
    assert result.stderr == (
        f"error: cami2v has no verb 'trian'; did you mean 'train'? (verbs: {', '.join(cli.VERBS)})\n"
    )


@pytest.mark.parametrize("verb", [verb for verb in cli.VERBS if verb not in ("weights", "data")])
def test_every_configured_verb_is_a_hydra_application_with_its_own_help(verb, tmp_path):
    result = shell(verb, "--help", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"cami2v {verb} [key=value ...]" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_rest_of_the_line_reaches_the_verb():
    result = shell("doctor", "--cfg", "job", "doctor.compile=true")
    assert result.returncode == 0, result.stderr
    assert "compile: true" in result.stdout
    module = [sys.executable, "-m", "launch.doctor", "--cfg", "job", "doctor.compile=true"]
    assert subprocess.run(module, cwd=ROOT, capture_output=True, text=True, check=True).stdout == result.stdout


def test_a_wrong_key_ends_with_one_line():
    result = shell("doctor", "doctor.compil=true")
    assert result.returncode == 2
    assert result.stderr.startswith("error: doctor.compil=true: no such key; did you mean 'compile'?")
    assert result.stderr.count("\n") == 1


@pytest.mark.slow
def test_doctor_fits_one_screen_and_finds_this_installation_complete():
    result = shell("doctor")
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) <= 24
    for word in ("torch", "gloo yes", "kernels", "H.264 encoder yes", "global mapper", "train ready"):
        assert word in result.stdout
