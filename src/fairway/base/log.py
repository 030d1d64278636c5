"""One logger for the package, writing plain lines to stderr; only rank 0 speaks."""

import logging
import os
import sys

logger = logging.getLogger("fairway")


def configure(*, quiet: bool = False) -> None:
    """Send the package's log lines to stderr; called once by the command line, never on import."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers = [handler]
    logger.propagate = False
    speaks = int(os.environ.get("RANK", "0")) == 0
    logger.setLevel(logging.WARNING if quiet else logging.INFO if speaks else logging.ERROR)
