"""What linear probes are made of: features of one pass over a dataset, and scores."""
