"""The dispatcher of `cami2v data`."""

from __future__ import annotations

import importlib

import pytest

from launch import data


def test_every_listed_sub_verb_exists() -> None:
    for subverb in data.SUBVERBS:
        assert callable(importlib.import_module(f"launch.data_{subverb}").main)
        assert subverb in data.usage()


def test_an_unknown_sub_verb_is_answered_in_one_line(monkeypatch, capsys) -> None:
    monkeypatch.setattr(data, "SUBVERBS", {"validate": "check"})
    monkeypatch.setattr("sys.argv", ["cami2v data", "valdate"])
    with pytest.raises(SystemExit) as stopped:
        data.main()
    assert stopped.value.code == 2
    expected = "error: cami2v data has no sub-verb 'valdate'; did you mean 'validate'? (sub-verbs: validate)\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_lists_the_sub_verbs(arguments, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["cami2v data", *arguments])
    data.main()
    assert capsys.readouterr().out == data.usage() + "\n"
