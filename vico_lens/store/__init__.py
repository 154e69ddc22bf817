"""How a trace is written and read: forms of attention calls, a small Zarr v3 writer, a background thread, and the way back.

Nothing here is public by itself; `vico_lens.store` is the door.
"""
