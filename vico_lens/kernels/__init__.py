"""Arithmetic on plain tensors: attention weights, products along paths, rollout, exact flow and its bounds.

Tensors come in, tensors go out, on the device where they are. This room knows neither traces nor pipelines, so that the
function which a balancer differentiates is the one that attribution applies to a stored trace; it imports `vocabulary`.
"""
