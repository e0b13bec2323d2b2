"""Import of the authors' weights as a run."""
