"""`cami2v export`: a run as a folder with a card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cami2v.inference.exported import load_exported
from launch.compose import compose_config
from launch.export import run
from launch.load_pipeline import load
from tests.launch.untrained import random_run

SMALL = [
    "data.frames=4", "data.resolution=[32,32]", "sampler.steps=2", "backbone.widths=[32,64]", "backbone.head_width=16",
    "camera.pose_encoder.num_heads=2",
]  # fmt: skip

REPORT = "# Evaluation\n\n- facts\n\n## Camera errors\n\n| clips |\n| 12 |\n\n## Per frame\n\nx\n\n## Failures\n\ny\n"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_run(tmp_path_factory.mktemp("run"), SMALL)


def evaluation(folder: Path, sha256: str) -> Path:
    folder.mkdir()
    judged = {"path": "somewhere", "sha256": sha256}
    (folder / "results.json").write_text(json.dumps({"evaluation": {"checkpoint": judged}}))
    (folder / "report.md").write_text(REPORT)
    return folder


def test_the_card_says_what_the_model_is_and_how_it_was_judged(checkpoint: Path, tmp_path: Path) -> None:
    source = load(checkpoint)
    judged = evaluation(tmp_path / "evaluation", source.identity["sha256"])
    output = tmp_path / "exported"
    chosen = [f"checkpoint={checkpoint}", f"output={output}", "title=Mine", "trained_on=RealEstate10K", "licence=mit"]
    run(compose_config("export", [*chosen, f"evaluated_in={judged}"]))
    card = (output / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: cami2v\n")
    for line in ("license: mit", "# Mine", "- camera control: CamI2V", "- trained for: 4 frames of 32x32",
                 "- data: RealEstate10K", "### Camera errors\n\n| clips |\n| 12 |", "### Per frame"):  # fmt: skip
        assert line in card
    assert "Failures" not in card
    assert f"- scale policy: {source.defaults.scale_policy} " in card
    again = load_exported(output)
    assert again.defaults == source.defaults
    assert again.identity["made_from"]["sha256"] == source.identity["sha256"]


def test_an_evaluation_of_other_weights_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    judged = evaluation(tmp_path / "evaluation", "0" * 64)
    chosen = [f"checkpoint={checkpoint}", f"output={tmp_path / 'out'}", f"evaluated_in={judged}"]
    with pytest.raises(ValueError, match="judged somewhere, not these weights"):
        run(compose_config("export", chosen))
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="no results.json and report.md there"):
        run(compose_config("export", [*chosen[:2], f"evaluated_in={tmp_path}"]))


def test_an_existing_folder_is_left_alone(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="exists; choose another folder to export to"):
        run(compose_config("export", [f"checkpoint={checkpoint}", f"output={tmp_path}"]))
