"""The method: tag autoencoder, projection head, losses, and the stages that train them."""
