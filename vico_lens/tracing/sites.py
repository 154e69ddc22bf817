"""The attention sites of a denoiser, numbered in the order of execution, and what became of each."""

from __future__ import annotations

from dataclasses import dataclass, field

from vico_lens.tracing.families.base import Unfolded
from vico_lens.vocabulary.schema import AttentionSite, Kind

__all__ = ["SiteBook"]


@dataclass(slots=True)
class SiteBook:
    """All softmax attention that a run showed.

    Attributes
    ----------
    sites : dict
        Dotted path to site, in the order of execution.
    left_out : dict
        Dotted path to the reason why it is not part of a trace.
    recorded : set of str
        Paths of which something was handed on.
    """

    sites: dict[str, AttentionSite] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    recorded: set[str] = field(default_factory=set)

    def site(self, path: str, kind: Kind, part: Unfolded) -> AttentionSite:
        """Return the site of a module path, making it when it is first seen on this grid."""
        known = self.sites.get(path)
        if known is not None and known.grid == part.grid and known.tokens == part.tokens:
            return known
        order = len(self.sites) if known is None else known.order
        site = AttentionSite(path, kind, part.grid, part.heads, part.head_size, part.tokens, order)
        self.sites[path] = site
        return site

    def coverage(self, not_run: dict[str, str] | None = None) -> dict[str, object]:
        """Say how much of the softmax attention was recorded, and why the rest was not.

        Returns
        -------
        dict
            ``seen`` and ``recorded`` (numbers of sites) and ``left_out`` (path to reason).

        Examples
        --------
        >>> SiteBook(left_out={"unet.pooler": "pools text"}).coverage()
        {'seen': 1, 'recorded': 0, 'left_out': {'unet.pooler': 'pools text'}}
        """
        reasons = dict(self.left_out) | (not_run or {})
        reasons |= {
            path: "not selected by the capture" for path in self.sites if path not in self.recorded and path not in reasons
        }
        return {"seen": len(self.sites) + len(self.left_out), "recorded": len(self.recorded), "left_out": reasons}
