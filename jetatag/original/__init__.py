"""Import of the authors' weights as a run."""

RELEASED = {"reconstruction_error": 0.0003, "mean_energy": 0.91, "tag_semantics": 0.03}
"""What the tag autoencoder released for MagnaTagATune knows, from its weights and 6,000 tag sets of
this data set: mean squared error, and `mean_energy` and `tag_semantics` as in `jetatag.metrics`."""
