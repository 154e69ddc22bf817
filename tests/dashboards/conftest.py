"""Fixtures of the dashboards, from a module with a name of its own, so that tests can import its helpers."""

from pages_support import empty_folder, foreign, one_concept, open_page, without_temporal

__all__ = ["empty_folder", "foreign", "one_concept", "open_page", "without_temporal"]
