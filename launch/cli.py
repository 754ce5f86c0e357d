"""The `cami2v` command: picks the verb, hands the rest of the line to that verb's Hydra application."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import sys

VERBS = {
    "data": "prepare and check data sets",
    "pack": "posed videos -> shards that training reads",
    "train": "train a camera-control method, or resume a run",
    "sample": "image + caption + trajectory -> video",
    "evaluate": "generate for a split and score the camera paths",
    "weights": "list, fetch and check the released weights",
    "doctor": "what is installed here, and what is missing for what",
}

EXIT_CODE = 2


def main() -> None:
    """Run `cami2v <verb> [key=value ...]`; every verb is also `python -m launch.<verb>`."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return
    if arguments[0] == "--version":
        print(f"cami2v {importlib.metadata.version('cami2v')}")
        return
    verb = arguments[0]
    if verb not in VERBS:
        close = difflib.get_close_matches(verb, VERBS, n=1)
        guess = f"; did you mean '{close[0]}'?" if close else ""
        print(f"error: cami2v has no verb {verb!r}{guess} (verbs: {', '.join(VERBS)})", file=sys.stderr)
        raise SystemExit(EXIT_CODE)
    sys.argv = [f"cami2v {verb}", *arguments[1:]]
    importlib.import_module(f"launch.{verb}").main()


def usage() -> str:
    """Return the text of `cami2v --help`."""
    verbs = "\n".join(f"  {verb:<10}{purpose}" for verb, purpose in VERBS.items())
    return f"""\
cami2v: train, sample and judge camera-controlled image-to-video diffusion models

usage: cami2v <verb> [key=value ...]

{verbs}

  cami2v <verb> --help      every setting of a verb and its presets
  cami2v <verb> --cfg job   the composed configuration, without running
  cami2v <verb> -m key=1,2  one run per combination of values
  cami2v --version"""


if __name__ == "__main__":
    main()
