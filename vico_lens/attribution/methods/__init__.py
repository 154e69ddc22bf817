"""The attribution methods, one family a file; each registers itself under its public name.

Stages or sites of one denoising step come in, one map a concept goes out. A new method is one new file here.
"""
