"""From a run folder to scores, baselines and tables of results."""
