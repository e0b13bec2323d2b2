"""Settings of nbval for the committed notebooks: only results are compared, never progress bars."""


def pytest_collectstart(collector):
    if hasattr(collector, "skip_compare"):  # nbval's notebooks
        collector.skip_compare += ("stderr",)
