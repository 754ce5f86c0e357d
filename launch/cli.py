"""The `cami2v` command: picks the verb, hands the rest of the line to that verb's Hydra application."""

from __future__ import annotations

import importlib.metadata
import sys

from launch.verbs import help_is_asked, run_verb, table

VERBS = {
    "data": "prepare and check data sets",
    "pack": "posed videos -> shards that training reads",
    "train": "train a camera-control method, or resume a run",
    "sweep": "many trainings over a space of settings",
    "sample": "image + caption + trajectory -> video",
    "app": "the same on a page in the browser",
    "trajectory": "presets, files and previews of camera paths",
    "evaluate": "generate for a split and score the camera paths",
    "compare": "evaluations of the same clips, difference by difference",
    "export": "checkpoint -> a folder that loads by itself, with a model card",
    "weights": "list, fetch and check the released weights",
    "doctor": "what is installed here, and what is missing for what",
}


def main() -> None:
    """Run `cami2v <verb> [key=value ...]`; every verb is also `python -m launch.<verb>`."""
    if help_is_asked():
        print(usage())
    elif sys.argv[1] == "--version":
        print(f"cami2v {importlib.metadata.version('cami2v')}")
    else:
        run_verb("cami2v", "verb", VERBS, "launch.")


def usage() -> str:
    """Return the text of `cami2v --help`."""
    return f"""\
cami2v: train, sample and judge camera-controlled image-to-video diffusion models

usage: cami2v <verb> [key=value ...]

{table(VERBS)}

  cami2v <verb> --help      every setting of a verb and its presets
  cami2v <verb> --cfg job   the composed configuration, without running
  cami2v <verb> -m key=1,2  one run per combination of values
  cami2v --version"""


if __name__ == "__main__":
    main()
