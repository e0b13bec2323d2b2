"""Music auto-tagging with joint embeddings (Lee & Cho, KSC 2021), in PyTorch."""

__version__ = "0.1.0"
