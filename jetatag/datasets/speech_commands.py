from jetatag.datasets.index import Index


def load(root, name="speech_commands") -> Index: ...
