"""What doctor says where something is missing."""

from __future__ import annotations

import sys

import pytest
import torch

from launch import doctor, probes
from launch.compose import compose_config


@pytest.fixture
def report(monkeypatch, capsys):
    def run():
        monkeypatch.setattr(doctor.logging, "disable", lambda level: None)
        try:
            doctor.run(compose_config("doctor"))
        except SystemExit as stop:
            return stop.code, capsys.readouterr().out
        return 0, capsys.readouterr().out

    return run


def only(monkeypatch, *distributions):
    kept = tuple(package for package in probes.PACKAGES if package.distribution in distributions)
    monkeypatch.setattr(probes, "PACKAGES", kept)


def test_a_missing_required_package_fails_and_names_the_verbs(report, monkeypatch):
    only(monkeypatch, "torch", "pycolmap")
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    code, text = report()
    assert code == 1
    assert "evaluate NEEDS pycolmap" in text
    assert "train ready" in text
    assert "missing     pycolmap: imports fail" in text
    assert "make setup" in text


def test_a_missing_optional_package_does_not_fail(report, monkeypatch):
    only(monkeypatch, "torch", "xformers")
    monkeypatch.setitem(sys.modules, "xformers", None)
    code, text = report()
    assert code == 0
    assert "optional    xformers" in text


def test_addresses_of_shards_and_what_they_lack_are_told(report, monkeypatch):
    only(monkeypatch, "fsspec", "aiohttp", "huggingface_hub", "s3fs")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    code, text = report()
    assert code == 1
    assert "shards      file:// yes, http:// yes, https:// yes, s3:// no, hf://" in text
    assert "optional    s3fs: no shards behind s3:// addresses -> pip install 'cami2v[s3]'" in text
    assert "missing     huggingface_hub: imports fail" in text
    assert "train ready" in text


def test_without_torch_the_rest_is_still_reported(report, monkeypatch):
    only(monkeypatch, "torch")
    monkeypatch.setattr(probes, "package_error", lambda package: "No module named 'torch'")
    code, text = report()
    assert code == 1
    assert "train NEEDS torch" in text
    assert "devices" not in text


def test_a_missing_compiler_is_told(report, monkeypatch):
    only(monkeypatch, "torch")
    monkeypatch.setattr(probes, "compilers", lambda: {"g++": None, "ninja": "ninja", "nvcc": None, "ffmpeg": None})
    code, text = report()
    assert code == 0
    assert "g++ no" in text
    assert "apt-get install g++" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about a machine without a GPU")
def test_every_choice_of_attention_is_told(report, monkeypatch):
    only(monkeypatch, "torch")
    text = " ".join(report()[1].split())
    assert "attention auto: sdpa; sdpa: yes; flex: sampling only (its backward pass needs a CUDA device" in text
    assert "xformers: no (it needs a CUDA device" in text
    assert "triton: no (it needs a CUDA device" in text


def test_auto_takes_flex_for_bands_on_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    states = probes.attention_backends()
    assert states["auto"] == "sdpa, flex for epipolar bands"
    assert states["flex"] == "yes"
    assert states["xformers"].startswith("no (it cannot be imported") or states["xformers"] == "yes, without masks only"
