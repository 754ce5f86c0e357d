"""`cami2v export`: a checkpoint -> a folder that loads by itself, and onto the hub if asked."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from omegaconf import DictConfig

from cami2v.checkpoints.upload import push_folder
from cami2v.inference.exported import CARD, export
from cami2v.inference.model_card import model_card
from launch.compose import entry, settings
from launch.load_pipeline import load

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSettings:
    """Settings of conf/export.yaml."""

    checkpoint: str | Sequence[str]
    weights: Literal["trained", "ema"]
    from_experiment: str | None
    overrides: Sequence[str]
    base: str | Sequence[str] | None
    output: Path
    title: str | None
    trained_on: str | None
    licence: str | None
    evaluated_in: Path | None
    push_to_hub: str | None
    private: bool


def run(config: DictConfig) -> None:
    """Export what the config names."""
    own = {key: config[key] for key in ExportSettings.__dataclass_fields__}
    export_model(settings(DictConfig(own), ExportSettings, "export"))


def export_model(chosen: ExportSettings) -> Path:
    """Write the folder, upload it if asked, and return it.

    Raises ValueError for a checkpoint that does not load, an existing folder, or an evaluation of other weights.
    """
    if chosen.output.exists():
        raise ValueError(f"output={chosen.output}: exists; choose another folder to export to")
    source = load(
        chosen.checkpoint,
        experiment=chosen.from_experiment,
        overrides=chosen.overrides,
        base=chosen.base,
        weights=chosen.weights,
    )
    title = chosen.output.name if chosen.title is None else chosen.title
    card = model_card(
        source, title=title, data=chosen.trained_on, licence=chosen.licence, evaluation=chosen.evaluated_in
    )
    export(source, chosen.output, card=card)
    logger.info("exported: %s (look through its %s before you publish it)", chosen.output, CARD)
    if chosen.push_to_hub is not None:
        push_folder(chosen.output, chosen.push_to_hub, private=chosen.private, say=logger.info)
    return chosen.output


main = entry("export")(run)

if __name__ == "__main__":
    main()
