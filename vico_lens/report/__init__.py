"""The one-file report: a page that opens offline, prints, and can be sent to a colleague."""

from vico_lens.report.build import LIMIT, build_report
from vico_lens.report.outcome import Outcome

__all__ = ["LIMIT", "Outcome", "build_report"]
