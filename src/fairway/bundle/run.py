"""What a bundle runs: train, quantize, pack and score one recipe, or score a given artifact; the root of its program.

The package itself never runs this module. In a bundle ``RECIPE`` is the resolved recipe, and the functions that `stand_ins`
names are replaced.
"""

import argparse
from pathlib import Path

from fairway.base.files import write_bytes
from fairway.base.log import configure
from fairway.bundle.given import RECIPE
from fairway.stages import load_stage, pack_stage, score_packed, train_stage
from fairway.walk import open_walk


def main() -> None:
    """Run with the arguments of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("run"))
    parser.add_argument("--score-only", type=Path)
    given = parser.parse_args()
    configure()
    with open_walk(RECIPE, data=given.data, out=given.out, resume=False, overwrite=False) as walk:
        if given.score_only:
            if walk.ranks.leads:
                write_bytes(walk.folder.artifact, given.score_only.read_bytes())
            walk.ranks.barrier()
        else:
            train_stage(walk, resume=False)
            pack_stage(walk, resume=False)
        score_packed(load_stage(walk), walk, RECIPE.score)
