"""Summarise the figures of all clips: a table, JSON, and one picture of histograms."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from data_pipeline.statistics.clips import FIGURES, ClipFigures

_BINS = 40


class Summary:
    """Collects clips; a few numbers of each are kept."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.unreadable = 0
        self._clips: dict[str, int] = defaultdict(int)
        self._sources: dict[str, set[str]] = defaultdict(set)
        self._values: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in FIGURES}

    def add(self, clip: ClipFigures | None) -> None:
        """Count a clip; None is one that could not be read."""
        if clip is None:
            self.unreadable += 1
            return
        self._clips[clip.split] += 1
        self._sources[clip.split].add(clip.source_id)
        for name, values in clip.values.items():
            self._values[name][clip.split] += values

    def as_json(self) -> dict[str, Any]:
        """Return counts, percentiles and histograms by split as plain JSON values."""
        splits = {
            split: {"clips": clips, "source_videos": len(self._sources[split])}
            for split, clips in sorted(self._clips.items())
        }
        figures = {
            name: {
                "meaning": FIGURES[name],
                "splits": {split: _describe(values) for split, values in sorted(by_split.items()) if values},
            }
            for name, by_split in self._values.items()
        }
        return {"source": self.source, "unreadable_clips": self.unreadable, "splits": splits, "figures": figures}

    def lines(self) -> list[str]:
        """Return the table: median, with the 5th and 95th percentile, by split."""
        content = self.as_json()
        lines = [
            f"{split}: {counts['clips']} clips of {counts['source_videos']} source videos"
            for split, counts in content["splits"].items()
        ]
        if self.unreadable:
            lines.append(f"{self.unreadable} clips left out: unreadable (cami2v data validate says why)")
        for figure in content["figures"].values():
            for split, told in figure["splits"].items():
                lines.append(
                    f"{figure['meaning']:<44}{split:<12}"
                    f"median {told['median']:.4g}, 5 % {told['percentile_5']:.4g}, 95 % {told['percentile_95']:.4g}"
                )
        return lines

    def write(self, folder: Path) -> None:
        """Write stats.json and stats.png."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "stats.json").write_text(json.dumps(self.as_json(), indent=1) + "\n", encoding="utf-8")
        self._figure().savefig(folder / "stats.png", dpi=110)

    def _figure(self) -> Figure:
        shown = [name for name, by_split in self._values.items() if by_split]
        rows = max(-(-len(shown) // 3), 1)
        figure = Figure(figsize=(13, 3.2 * rows), layout="constrained")
        for number, name in enumerate(shown, 1):
            axes = figure.add_subplot(rows, 3, number)
            edges = np.histogram_bin_edges(np.concatenate([*map(np.asarray, self._values[name].values())]), _BINS)
            for split, values in sorted(self._values[name].items()):
                # Shares, so that a small split is as visible as a large one.
                weights = np.full(len(values), 1 / max(len(values), 1))
                axes.hist(values, bins=list(edges), weights=weights, histtype="step", label=split)
            axes.set_xlabel(FIGURES[name])
            axes.set_ylabel("share")
            axes.legend(fontsize="small")
        return figure


def _describe(values: list[float]) -> dict[str, Any]:
    array = np.asarray(values, dtype=np.float64)
    counts, edges = np.histogram(array, _BINS)
    low, median, high = np.percentile(array, [5, 50, 95])
    return {
        "values": len(values),
        "minimum": float(array.min()),
        "percentile_5": float(low),
        "median": float(median),
        "mean": float(array.mean()),
        "percentile_95": float(high),
        "maximum": float(array.max()),
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }
