"""A command made of verbs: picks the verb, hands the rest of the line to that verb's Hydra application."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Mapping

EXIT_CODE = 2


def run_verb(command: str, noun: str, verbs: Mapping[str, str], prefix: str) -> None:
    """Run the module `<prefix><verb>` that the first argument names; an unknown verb ends with exit code 2."""
    verb = sys.argv[1]
    if verb not in verbs:
        close = difflib.get_close_matches(verb, verbs, n=1)
        guess = f"; did you mean '{close[0]}'?" if close else ""
        print(f"error: {command} has no {noun} {verb!r}{guess} ({noun}s: {', '.join(verbs)})", file=sys.stderr)
        raise SystemExit(EXIT_CODE)
    sys.argv = [f"{command} {verb}", *sys.argv[2:]]
    importlib.import_module(f"{prefix}{verb}").main()


def help_is_asked() -> bool:
    """Tell whether the command line asks what there is, or for nothing."""
    return len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help", "help")


def table(verbs: Mapping[str, str]) -> str:
    """Return the lines of the verbs and their purposes."""
    return "\n".join(f"  {verb:<12}{purpose}" for verb, purpose in verbs.items())
