"""How the bundled models are made: recipes, data, architectures, one training loop, autoencoders, export.

A recipe (``recipes/NAME.json``) says everything about one model. `architecture` is what the loop asks of a model; `unet`,
`joint` and `cosmos` answer. Clips are rendered (`data`) or composed of rendered ones (`composed`). `loop` trains, `validation`
measures on fresh layouts, `autoencoder` fits the autoencoder to the latent code, `export` writes the folder, `card` its card.
"""
