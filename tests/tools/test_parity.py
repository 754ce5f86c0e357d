"""`python -m tools.parity`: verdicts, exit codes, and a folder that is not the published one."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.golden.test_parity import GOLDEN
from tests.tools.second_folder import compute_our_own, transform_published, write
from tools.parity.__main__ import main, summary
from tools.parity.checks import Checks, NotOffered
from tools.parity.jobs import Job
from tools.parity.runners import MODEL_RUNNERS, RUNNERS, load_runner, runner_of
from tools.parity.verdicts import Status, judge


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    compute_our_own(tmp_path)
    return tmp_path


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.strip().splitlines()[-1]


def change(folder: Path, case: str, array: str, by: float) -> None:
    path = folder / f"{case}.npz"
    arrays = dict(np.load(path))
    flat = arrays[array].reshape(-1)
    flat[len(flat) // 2] += by
    np.savez(path, **arrays)


def test_other_keys_shapes_and_coefficients_pass(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder)]) == 0
    assert last_line(capsys) == "4 passed, 0 failed, 0 unsupported"


@pytest.mark.skipif(not (GOLDEN / "cases").is_dir(), reason=f"no published numbers at {GOLDEN} (set CAMI2V_GOLDEN)")
def test_fewer_frames_rows_and_clips_under_other_names_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    transform_published(GOLDEN / "cases", tmp_path)
    code = main([str(tmp_path)])
    output = capsys.readouterr().out
    assert code == 0, output
    assert output.strip().endswith("7 passed, 0 failed, 0 unsupported")


@pytest.mark.parametrize(
    ("case", "array"),
    [
        ("ddim__v_short", "final"),
        ("ddim__v_short", "timesteps"),
        ("sched__convert_v_zsnr1", "eps_from_v"),
        ("epimask__options_T3", "walk_w2c"),
        ("epimask__options_T3", "walk__epipolar_hybrid_attention+current_frame_as_register_token__counts32"),
    ],
)
def test_a_changed_number_fails_its_case(
    folder: Path, capsys: pytest.CaptureFixture[str], case: str, array: str
) -> None:
    change(folder, case, array, 7)
    assert main([str(folder)]) == 1
    output = capsys.readouterr().out
    assert output.strip().endswith("3 passed, 1 failed, 0 unsupported")
    assert [line.split()[0] for line in output.splitlines() if "FAILED" in line] == [case]


def test_a_changed_number_of_the_json_fails_its_case(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "loss__p_losses.json"
    content = json.loads(path.read_text())
    content["rows"][0]["train/loss_vlb"] *= 1.001
    path.write_text(json.dumps(content))
    assert main([str(folder)]) == 1
    assert "row 0 train/loss_vlb" in capsys.readouterr().out


def test_another_split_word_gives_other_numbers(folder: Path) -> None:
    for path in folder.glob("*.json"):
        path.write_text(path.read_text().replace("acceptance", "another"))
    assert main([str(folder), "--only", "loss"]) == 1


def test_an_array_nobody_compared_fails_its_case(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays = dict(np.load(folder / "ddim__v_short.npz"))
    np.savez(folder / "ddim__v_short.npz", **arrays, attention=np.zeros(3))
    assert main([str(folder), "--only", "ddim"]) == 1
    assert "never compared: attention" in capsys.readouterr().out


def test_an_unknown_family_is_unsupported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, "holograms__2x2", {"what": "something new"})
    assert main([str(folder)]) == 1
    assert last_line(capsys) == "4 passed, 0 failed, 1 unsupported"


def test_a_case_that_breaks_its_runner_fails_and_the_run_goes_on(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, "data__frame_sampling", {"what": "no rows"})
    (folder / "plucker__8x8.json").write_text("{")
    assert main([str(folder)]) == 1
    output = capsys.readouterr().out
    assert "KeyError: 'rows'" in output
    assert output.strip().endswith("4 passed, 2 failed, 0 unsupported")


def test_the_verdicts_can_be_written(folder: Path, tmp_path: Path) -> None:
    main([str(folder), "--only", "ddim", "--json", str(tmp_path / "verdicts.out")])
    (verdict,) = json.loads((tmp_path / "verdicts.out").read_text())
    assert verdict["name"] == "ddim__v_short"
    assert verdict["status"] == "passed"
    assert verdict["worst"]["error"] <= verdict["worst"]["tolerance"]


@pytest.mark.parametrize("arguments", [["nowhere"], ["."], ["FOLDER", "--only", "xyz"]])
def test_what_is_no_folder_of_cases_is_said_on_stderr(
    folder: Path, arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    assert main([str(folder) if argument == "FOLDER" else argument for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.out == ""


def test_a_case_without_a_comparison_fails() -> None:
    verdict = judge(Job(name="empty", family="empty", run=Checks))
    assert verdict.status is Status.FAILED
    assert verdict.reason == "nothing was compared"


def test_what_is_not_offered_is_counted_apart() -> None:
    def refuse() -> Checks:
        raise NotOffered("an option no released model uses")

    verdict = judge(Job(name="odd", family="odd", run=refuse))
    assert verdict.status is Status.NOT_OFFERED
    counts = Counter({Status.PASSED: 3, Status.NOT_OFFERED: 2})
    assert summary(counts) == "3 passed, 0 failed, 0 unsupported, 2 not offered"


def test_every_row_of_the_tables_names_a_function() -> None:
    for place in {*RUNNERS.values(), *MODEL_RUNNERS.values()}:
        assert callable(load_runner(place)), place


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("epimask__512_T3_x", "epipolar_masks:masks"),
        ("epimask__options_T9", "epipolar_masks:options"),
        ("sched__buffers_v_zsnr1", "schedules:buffers"),
        ("ddim__anything", "ddim:ddim"),
        ("ddimension", None),
        ("data__new_kind", None),
    ],
)
def test_the_longest_family_that_fits_runs_a_case(name: str, place: str | None) -> None:
    assert runner_of(name) == place


def test_measurements_are_strict() -> None:
    checks = Checks()
    ones = torch.ones(3)
    checks.close("same", ones, ones, maximum=0.0)
    assert checks.passed
    for ours in (ones * torch.nan, ones * torch.inf, torch.ones(2), ones + 1e-3):
        failing = Checks()
        failing.close("different", ours, ones, relative=1e-4, maximum=1e-4)
        assert not failing.passed
        strict = Checks()
        strict.elementwise("different", ours, ones, relative=1e-4)
        assert not strict.passed
    unknown = Checks()
    unknown.close("both unknown", ones * torch.nan, ones * torch.nan, maximum=0.0)
    assert unknown.passed
