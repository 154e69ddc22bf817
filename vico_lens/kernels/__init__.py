"""Arithmetic on plain tensors: stages, products along paths, rollout, exact flow and its bounds.

Nothing here knows of traces, pipelines or concepts' names, so the function that a balancer optimises on live tensors is the one
that attribution applies to a stored trace.
"""
