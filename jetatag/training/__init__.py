"""From a store to a run folder: the loop, optimizers, device and precision, checkpoints."""
