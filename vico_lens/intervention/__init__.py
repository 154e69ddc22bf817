"""Change what the model does: balance the latents while it samples, and invert a video for editing.

A pipeline and concepts come in, a changed run and its log go out; the pipeline itself is left as it was. This room imports
`attribution`, `tracing` and `kernels`.
"""
