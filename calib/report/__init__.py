"""One offline HTML page that shows an evaluation: no script, no link to fetch, every picture inside."""

from calib.report.page import render_report, write_report

__all__ = ["render_report", "write_report"]
