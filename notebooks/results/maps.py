"""Judges the maps of runs again, and writes their mixing and precision into a table of spaces.

    python notebooks/results/maps.py TABLE RUN...

replaces the values of these runs in TABLE, a `spaces.parquet`, one run after the other.
"""

import sys

import pandas as pd

from jetatag.evaluation.results import cell_of
from jetatag.evaluation.spaces import map_ratios
from jetatag.files import atomic
from jetatag.training.run import Run


def main(path: str, *folders: str) -> None:
    for run in map(Run.open, folders):
        space, cell = run.read_arrays("embeddings.npz"), cell_of(run)._asdict()
        table = pd.read_parquet(path)
        of_run = pd.concat([table[name] == value for name, value in cell.items()], axis=1)
        of_run = of_run.all(axis=1) & (table.seed == str(run.config.seed))
        for layout, metric, value in map_ratios(space):
            (row,) = table.index[of_run & (table.kind == layout) & (table.metric == metric)]
            print(run.config.name, layout, metric, table.value[row], value, flush=True)
            table.loc[row, "value"] = value
        with atomic(path) as temporary:
            table.to_parquet(temporary)


if __name__ == "__main__":
    main(*sys.argv[1:])
