"""Uses of a trained run: tag, search, explore, export."""
