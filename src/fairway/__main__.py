"""``python -m fairway`` is the command ``fairway``."""

import sys

from fairway.cli import main

sys.exit(main(sys.argv[1:]))
