"""`cami2v compare <run A> <run B> [...]`: paired differences of evaluations of the same clips."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from cami2v.evaluation.bootstrap import Bootstrap
from cami2v.evaluation.comparison import Evaluation, open_evaluations
from cami2v.evaluation.comparison_report import compare, write_comparison
from launch.compose import entry, plain, quote, settings


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareSettings:
    """The keys of `compare`."""

    allow_different: bool
    bootstrap: Mapping[str, Any]


def run(config: DictConfig) -> None:
    """Print the comparison, and write it as Markdown, JSON and HTML."""
    wanted = settings(config.compare, CompareSettings, "compare")
    bootstrap = settings(wanted.bootstrap, Bootstrap, "compare.bootstrap")
    evaluations = open_evaluations([Path(str(path)).expanduser() for path in config.runs])
    comparison = compare(evaluations, bootstrap, allow_different=wanted.allow_different)
    folder = _output(config, evaluations)
    print(write_comparison(folder, comparison))
    print(folder / "comparison.html")


def with_folders(arguments: Sequence[str]) -> list[str]:
    """Gather the folders of a command line into `runs=[...]`, which Hydra reads."""
    folders = [each for each in arguments if not each.startswith("-") and ("=" not in each or Path(each).is_dir())]
    rest = [each for each in arguments if each not in folders]
    return [*rest, f"runs=[{','.join(map(quote, folders))}]"] if folders else rest


def _output(config: DictConfig, evaluations: Sequence[Evaluation]) -> Path:
    if config.output is not None:
        return Path(config.output).expanduser()
    names = "-vs-".join(each.name.replace("/", "-") for each in evaluations)
    return Path(plain(config.paths, "paths")["runs"]).expanduser() / "compare" / names


_main = entry("compare")(run)


def main() -> None:
    """Run `cami2v compare`."""
    sys.argv[1:] = with_folders(sys.argv[1:])
    _main()


if __name__ == "__main__":
    main()
