"""The model side: watch a diffusers pipeline run and say what each of its attention calls means.

A pipeline comes in; attention calls with site, step, guidance branch and tokens go out, to whoever listens. This room imports
`vocabulary` and `kernels`; only `recording`, which is `vico_lens.trace`, and `cost.estimate` also know the store.
"""
