"""The data side: write attention calls to a Zarr v3 store while the model runs, and open the store as an xarray tree.

Attention calls come in, an `xarray.DataTree` with the names of `vocabulary.schema` goes out; weights that were stored as query
and key are computed when a slice of them is read. This room imports `vocabulary` and `kernels`, and never `tracing`.
"""
