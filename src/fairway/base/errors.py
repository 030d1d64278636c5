"""Errors that a user can act on. Every message says what, the value, the limit and the remedy.

Our own broken invariants raise ``AssertionError`` instead; only these classes become exit codes in the command line.
"""


class FairwayError(ValueError):
    """A user's mistake or bad input; the command line prints the message and exits with code 2."""


class RecipeError(FairwayError):
    """A recipe with an unknown name, a wrong type or an impossible combination."""


class DataError(FairwayError):
    """Text, token shards, a tokenizer or a manifest that cannot be used as they are."""


class ArtifactError(FairwayError):
    """An artifact that is damaged, truncated, forged or made for another model."""


class MachineError(FairwayError):
    """Hardware, disk space or an installed library that the recipe asks for and the machine lacks."""


class BusyError(MachineError):
    """A folder that another process is writing."""


class BudgetError(FairwayError):
    """A byte or time budget that is exceeded: a negative verdict, exit code 1."""


class ValidityError(FairwayError):
    """A score that breaks a validity condition: a negative verdict, exit code 1."""
