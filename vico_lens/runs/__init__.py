"""Whole runs: one prompt traced and judged, a plain and a balanced pair, a background job, and a sweep over many.

A request (prompt, model, seed, settings) comes in, videos with their traces, influences and records go out. The command line,
the dashboards and the benchmarks share these; this room imports everything below it and no face of the package.
"""
