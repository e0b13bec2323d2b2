"""What people do with a trained run: tag, search, explore, export."""
