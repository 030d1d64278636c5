"""Small recipes of every system, and a run of a bundle in a process that cannot import the package."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from fairway.base.files import write_json
from fairway.base.values import to_dict, with_fields
from fairway.config import Recipe
from fairway.recipes import recipe

ALONE = (
    "import runpy, sys; sys.modules['fairway'] = None; sys.argv = ['train_gpt.py', *sys.argv[1:]];"
    "runpy.run_path('train_gpt.py', run_name='__main__')"
)
"""Runs the file beside it; importing the package is an error there."""

PACKAGE = """
import sys
from pathlib import Path
from fairway.base.files import read_json
from fairway.base.values import from_dict
from fairway.config import Recipe
from fairway.stages import load_stage, pack_stage, score_packed, train_stage
from fairway.walk import open_walk

recipe = from_dict(Recipe, read_json(Path(sys.argv[1])))
with open_walk(recipe, data=Path(sys.argv[2]), out=Path(sys.argv[3]), resume=False) as walk:
    train_stage(walk, resume=False)
    pack_stage(walk)
    score_packed(load_stage(walk), walk, recipe.score)
"""
"""The same stages from the package."""


def small_system(name: str, vocab_size: int) -> Recipe:
    """A published system with every technique on, as small as its techniques allow."""
    full = recipe(f"proxy-{name}")
    changes = {
        "model.vocab_size": vocab_size,
        "train.budget": 3.0,
        "train.batch_tokens": 2048,
        "train.context": 256 if full.train.context_lengths else 64,
        "score.max_tokens": 1000,
        "score.context": 64,
        "score.stride": 16,
        "score.packed_tokens": 128 if full.score.packed_tokens else 0,
        "score.adaptation.chunk_tokens": 256,
        "score.documents.prefix_documents": min(4, full.score.documents.prefix_documents),
        "score.documents.global_chunk_tokens": 256,
        "score.documents.global_context": 64,
        "quant.calibration_batches": 8,
        "machine.threads": 1,
    }
    return with_fields(full, changes)


def environment(home: Path) -> dict[str, str]:
    """Variables of a process that knows nothing of the package's folder."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return {**kept, "HOME": str(home), "OMP_NUM_THREADS": "1"}


def run_alone(content: bytes, folder: Path, *arguments: str, ranks: int = 1) -> subprocess.CompletedProcess[str]:
    """Put a bundle into an empty folder and run it there."""
    folder.mkdir()
    (folder / "train_gpt.py").write_bytes(content)
    if ranks == 1:
        command = [sys.executable, "-W", "error::SyntaxWarning", "-c", ALONE]
    else:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        command = [sys.executable, *launcher, "train_gpt.py"]
    return subprocess.run(
        [*command, *arguments], cwd=folder, env=environment(folder.parent), capture_output=True, text=True, check=False
    )


def same_results(ours: Path, theirs: Path) -> None:
    """Weights, artifact and every entry of the ledger are equal bit for bit."""
    for name in ("weights.safetensors", "model.fwz"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
    with np.load(ours / "ledger.npz") as left, np.load(theirs / "ledger.npz") as right:
        assert left.files == right.files
        for name in right.files:
            assert np.array_equal(left[name], right[name]), name


MAKE = """
import sys
from pathlib import Path
from fairway.base.files import read_json, write_json
from fairway.base.values import from_dict
from fairway.bundle.make import make_bundle
from fairway.bundle.restore import map_path
from fairway.config import Recipe

made = make_bundle(from_dict(Recipe, read_json(Path(sys.argv[1]))))
Path(sys.argv[2]).write_bytes(made.content)
write_json(map_path(Path(sys.argv[2])), made.names)
"""
SOURCE = Path(__file__).parents[2] / "src"


def bundle_of(made: Recipe, folder: Path, seed: str = "0") -> Path:
    """The bundle of a recipe and its map, made in a process without the checks of annotations, which take a minute."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "recipe.json", to_dict(made))
    subprocess.run(
        [sys.executable, "-c", MAKE, str(folder / "recipe.json"), str(folder / "train_gpt.py")],
        env={**environment(folder), "PYTHONPATH": str(SOURCE), "PYTHONHASHSEED": seed}, check=True,
    )  # fmt: skip
    return folder / "train_gpt.py"
