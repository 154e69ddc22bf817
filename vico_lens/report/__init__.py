"""The one-file report: traces, influences and videos come in, one HTML page that opens offline goes out.

This room imports `plot` and everything below it.
"""

from vico_lens.report.build import LIMIT, build_report
from vico_lens.report.outcome import Outcome

__all__ = ["LIMIT", "Outcome", "build_report"]
