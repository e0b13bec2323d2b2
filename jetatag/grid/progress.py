"""What `jetatag reproduce` prints: a line for each notebook, and the results."""

import json
import re
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from jetatag.evaluation.reading import differences, summary
from jetatag.joint.methods import METHODS

POLL_S = 1.0


def follow(snakemake: subprocess.Popen, log: Path) -> int:
    """Print a line for each notebook that `snakemake` executes, until it ends, and return its exit
    status. A terminal also shows a bar for each running notebook; Snakemake has none.

    The notebooks are below the folder of `log`, Snakemake's output, and newer than `log` is now.
    papermill updates them after each cell, also on other machines of a cluster.
    """
    begun, bars, finished, written = log.stat().st_mtime, {}, {}, {}
    look = {"total": 100, "leave": False, "bar_format": "{bar:12} {elapsed} {desc}"}
    look |= {"disable": not sys.stderr.isatty(), "dynamic_ncols": True}
    with ExitStack() as open_bars:
        while True:
            status = snakemake.poll()
            paths = [*log.parent.glob("notebooks/*.ipynb"), *log.parent.glob("*/notebooks/*.ipynb")]
            for time_s, path in sorted((path.stat().st_mtime, path) for path in paths):
                if time_s < begun or time_s == written.get(path):
                    continue
                try:
                    facts = json.loads(path.read_text("utf-8"))["metadata"]["papermill"]
                except (ValueError, KeyError):  # it is just being written
                    continue
                if path not in bars:
                    bars[path] = open_bars.enter_context(tqdm(**look))
                if facts["duration"] is None:
                    step, bars[path].n = last_bar(path.with_suffix(".log"))
                    bars[path].set_description_str(f"{label(path, log.parent)}  {step}")
                else:
                    bars.pop(path).close()
                    written[path] = time_s
                    if finished.get(path) == facts["start_time"]:  # papermill writes its end twice
                        continue
                    finished[path] = facts["start_time"]
                    total = re.search(r"^total +(\d+)$", log.read_text("utf-8", "replace"), re.M)
                    count = f"{len(finished):>3}/{int(total[1]) - 1 if total else '?'}"
                    took = timedelta(seconds=round(facts["duration"]))
                    text = f"{count}  {took}  {label(path, log.parent)}"
                    tqdm.write(text + "  failed" * bool(facts["exception"]), sys.stderr)
            if status is not None:
                return status
            time.sleep(POLL_S)


def label(path: Path, runs: Path) -> str:
    """Notebook, data set and run, in columns."""
    notebook, _, run = path.stem.partition(".")
    dataset = "" if path.parents[1] == runs else path.parents[1].name
    return f"{notebook:<17} {dataset:<9} {run}".rstrip()


def last_bar(log: Path) -> tuple[str, int]:
    """Description and percentage of the last progress bar in the output of the running cell."""
    text = log.read_text("utf-8", "replace") if log.is_file() else ""  # its end may be torn
    output = text.rpartition("Executing Cell")[2]
    bars = re.findall(r"([^\r\n]*?):? +(\d+)%\|", output) or [("", 0)]
    return bars[-1][0], int(bars[-1][1])


def print_results(runs: Path) -> None:
    """Print scores and differences from the results table in `runs`, and where all results are."""
    table = pd.read_parquet(runs / "results.parquet")
    print("\nScores of the test clips: mean over seeds, 95 % interval")
    print(summary(table).to_string(line_width=100))
    print("\nPaired differences between methods: mean over seeds, 95 % interval")
    one_stage = [name for name, method in METHODS.items() if len(method.stages) == 1]
    for minus in table.minus[table.minus.isin(one_stage)].unique():
        print(f"minus {minus}")
        print(differences(table, minus=minus).to_string(line_width=100))
    print(f"\ntables     {runs}/results.csv, .parquet, {runs}/*/*.csv")
    print(f"figures    {runs}/*/figures/*.png, .pdf")
    print(f"notebooks  {runs}/*/notebooks/*.ipynb, and their output in *.log")
