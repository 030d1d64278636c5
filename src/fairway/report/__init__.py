"""Reports for people: from a run folder to ``report.html``, PNG plots and the final table. Reads files, imports no torch."""

from fairway.report.load import load_run
from fairway.report.page import write_report
from fairway.report.records import RunData
from fairway.report.table import final_table

__all__ = ["RunData", "final_table", "load_run", "write_report"]
