"""The words that every room shares: what a trace contains (schema), concepts and noun phrases, and the plug-in registries.

Text and plain values come in, frozen descriptions go out. This room imports only `vico_lens.errors`.
"""
