"""Training dictionaries on activations streamed from the forward pass."""
