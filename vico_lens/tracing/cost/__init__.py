"""What tracing would cost before it runs: bytes of every site, a refusal that says what would fit, published models.

A pipeline, or the configuration of a published model, comes in; a table of bytes goes out. It imports `tracing`.
"""
