"""The notebooks over a grid of runs, and the report page."""
