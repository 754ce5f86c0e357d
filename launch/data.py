"""`cami2v data`: picks the sub-verb, hands the rest of the line to that sub-verb's Hydra application."""

from __future__ import annotations

import difflib
import importlib
import sys

SUBVERBS: dict[str, str] = {
    "download": "camera files -> the source videos they name",
    "clips": "source videos -> the clips that cameras belong to, one frame per camera",
    "validate": "look for what is wrong with a shard set or a raw folder",
    "stats": "motion, lengths, captions and scales as a table and histograms",
}

EXIT_CODE = 2


def main() -> None:
    """Run `cami2v data <sub-verb> [key=value ...]`; every sub-verb is also `python -m launch.data_<sub-verb>`."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return
    subverb = arguments[0]
    if subverb not in SUBVERBS:
        close = difflib.get_close_matches(subverb, SUBVERBS, n=1)
        guess = f"; did you mean '{close[0]}'?" if close else ""
        known = ", ".join(SUBVERBS)
        print(f"error: cami2v data has no sub-verb {subverb!r}{guess} (sub-verbs: {known})", file=sys.stderr)
        raise SystemExit(EXIT_CODE)
    sys.argv = [f"cami2v data {subverb}", *arguments[1:]]
    importlib.import_module(f"launch.data_{subverb}").main()


def usage() -> str:
    """Return the text of `cami2v data --help`."""
    subverbs = "\n".join(f"  {subverb:<10}{purpose}" for subverb, purpose in SUBVERBS.items())
    return f"""\
cami2v data: prepare and check data sets

usage: cami2v data <sub-verb> [key=value ...]

{subverbs}

  cami2v data <sub-verb> --help      every setting of a sub-verb
  cami2v data <sub-verb> --cfg job   the composed configuration, without running"""


if __name__ == "__main__":
    main()
