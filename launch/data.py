"""`cami2v data`: picks the sub-verb, hands the rest of the line to that sub-verb's Hydra application."""

from __future__ import annotations

from launch.verbs import help_is_asked, run_verb, table

SUBVERBS: dict[str, str] = {
    "download": "camera files -> the source videos they name",
    "clips": "source videos -> the clips that cameras belong to, one frame per camera",
    "caption": "clips -> a caption for each, published or from a vision-language model",
    "encode": "a shard set -> latents and text embeddings that training reads instead of videos",
    "validate": "look for what is wrong with a shard set or a raw folder",
    "scale": "metres per pose unit of every clip, from a depth network",
    "view": "clips on one page: video, camera path, epipolar lines, captions, findings",
    "stats": "motion, lengths, captions and scales as a table and histograms",
}


def main() -> None:
    """Run `cami2v data <sub-verb> [key=value ...]`; every sub-verb is also `python -m launch.data_<sub-verb>`."""
    if help_is_asked():
        print(usage())
    else:
        run_verb("cami2v data", "sub-verb", SUBVERBS, "launch.data_")


def usage() -> str:
    """Return the text of `cami2v data --help`."""
    return f"""\
cami2v data: prepare and check data sets

usage: cami2v data <sub-verb> [key=value ...]

{table(SUBVERBS)}

  cami2v data <sub-verb> --help      every setting of a sub-verb
  cami2v data <sub-verb> --cfg job   the composed configuration, without running"""


if __name__ == "__main__":
    main()
