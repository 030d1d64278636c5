"""The pages' templates and the engine that fills them."""

from typing import Any

from fairway.base.errors import MachineError
from fairway.report import look


def open_template(name: str) -> Any:
    """A template of this room; the engine escapes every value, shows control characters and refuses unknown names.

    Raises:
        MachineError: jinja2 is not installed.
    """
    try:
        import jinja2
        import markupsafe
    except ImportError:
        raise MachineError("the report needs jinja2, which is not installed; run: pip install 'fairway[report]'") from None

    def printable(value: object) -> object:
        return look.visible(value) if isinstance(value, str) and not isinstance(value, markupsafe.Markup) else value

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fairway", "report"),
        autoescape=True,
        finalize=printable,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["thousands"] = look.thousands
    environment.filters["duration"] = look.duration
    environment.filters["short"] = look.short_count
    return environment.get_template(name)
