"""How the bundled model was made: data, networks, training, autoencoder, export."""
