from jetatag.datasets.index import Index


def load(root, name="dcase2017") -> Index: ...
