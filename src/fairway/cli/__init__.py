"""The command line: parsing only. Each verb parses its arguments, calls the package and prints one table or one document.

Nothing heavy is imported until a verb runs, so ``fairway --help`` answers at once.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

import fairway
from fairway.base.errors import BudgetError, FairwayError, ValidityError
from fairway.base.log import configure
from fairway.base.threads import wait_briefly
from fairway.base.values import suggest

GOOD, NEGATIVE, MISTAKE, INTERRUPTED = 0, 1, 2, 130

VERBS: dict[str, tuple[str, str]] = {
    "run": ("runs:run", "everything: train, pack, score, report"),
    "train": ("runs:train", "train only; writes weights.safetensors"),
    "pack": ("runs:pack", "quantize and pack a trained run; writes model.fwz"),
    "score": ("runs:score", "score an artifact or a run in bits per byte"),
    "prove": ("coding:prove", "prove a score: decode the text from the artifact and the coded bytes alone"),
    "ablate": ("ablate:ablate", "runs of several recipes and seeds that show what each technique is worth"),
    "compare": ("compare:compare", "means, deviations and significance of runs, or of an ablation"),
    "record": ("record:record", "the folder of a record to hand in, from finished runs, or every reason why not"),
    "audit": ("audit:audit", "test whether a score is valid; names a witness where it is not"),
    "bundle": ("bundle:bundle", "one self-contained train_gpt.py of a recipe, or the check of one"),
    "unbundle": ("bundle:unbundle", "bring readable source back from a bundle"),
    "report": ("runs:report", "write report.html and the plots of a run"),
    "compress": ("coding:compress", "compress a file with an artifact"),
    "decompress": ("coding:decompress", "bring a compressed file back"),
    "generate": ("artifacts:generate", "write text with an artifact"),
    "inspect": ("artifacts:inspect", "show where the bytes of an artifact went"),
    "model": ("recipes:model", "show the network of a recipe: parts, parameters, FLOPs, bytes"),
    "recipe": ("recipes:recipe", "list, show and compare recipes"),
    "data": ("data:data", "build, verify and fetch token data"),
    "doctor": ("machine:doctor", "show what is installed, what would be used, what is missing"),
}
"""Command -> where its function is, and its line in the help."""


def entry() -> None:
    """Console script: run ``main`` on the process's arguments and exit with its code."""
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 good; 1 a negative verdict (budget exceeded, audit failed); 2 a user's mistake or bad input; 130 interrupted.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        verb = _verb(argv[:1])
        configure()
        wait_briefly()
        module, _, function = VERBS[verb][0].partition(":")
        return getattr(importlib.import_module(f"fairway.cli.{module}"), function)(argv[1:])
    except (BudgetError, ValidityError) as error:
        return _complain(error, NEGATIVE)
    except FairwayError as error:
        return _complain(error, MISTAKE)
    except KeyboardInterrupt as error:
        # ``Interrupted`` of the training loop is one of these, and says what was saved.
        print(f"fairway: {str(error) or 'interrupted'}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away, as `head` does; nothing is wrong.
        sys.stderr.close()
        return GOOD
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else MISTAKE if stop.code else GOOD


def _complain(error: Exception, code: int) -> int:
    print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
    return code


def _verb(argv: list[str]) -> str:
    width = max(map(len, VERBS))
    commands = "\n".join(f"  {name:<{width}}  {line}" for name, (_, line) in VERBS.items())
    parser = argparse.ArgumentParser(
        prog="fairway",
        description="Train a language model under a byte and a time budget, pack it, and score it provably validly.",
        epilog=f"commands:\n{commands}\n\nfairway COMMAND --help tells more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fairway {fairway.__version__}")
    parser.add_argument("command", help="one of the commands below")
    verb = parser.parse_args(argv).command
    if verb not in VERBS:
        raise FairwayError(f"no command is called {verb!r}; known are {', '.join(VERBS)}{suggest(verb, VERBS)}")
    return verb
