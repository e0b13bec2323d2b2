from jetatag.datasets.index import Index


def load(root, name="folder") -> Index: ...
