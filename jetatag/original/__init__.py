"""The authors' weights: Keras order, SavedModels, import as a run."""
