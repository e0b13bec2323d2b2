"""Jobs side by side on a machine of several GPUs, told by what the jobs see; no GPU is needed."""

import os
import subprocess
import sys

import pytest

from jetatag.grid import gpus
from jetatag.grid import runner as grid

SEEN = 'echo "${CUDA_VISIBLE_DEVICES-all}"; read line'  # says what it sees and waits for a line


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Starts a job on a device; GPUs are held in a place of this test's own."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    started = []

    def job(device, offered="4,7"):
        command = [sys.executable, "-m", "jetatag.grid.gpus", device, "sh", "-c", SEEN]
        environment = {**os.environ, gpus.OFFERED: offered}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, env=environment, **pipes))
        return started[-1]

    yield job
    for process in started:
        process.kill()
        process.communicate()


def seen(job):
    return job.stdout.readline().strip()


def test_jobs_at_the_same_time_see_different_gpus_and_the_next_waits(start):
    first, second = start("auto"), start("cuda")
    assert {a := seen(first), b := seen(second)} == {"4", "7"} and a != b
    third = start("cuda")
    first.kill()  # however a job ends, its GPU is free again
    assert seen(third) == a


def test_a_numbered_device_is_waited_for_and_a_cpu_takes_none(start):
    numbered = start("cuda:1")
    assert seen(numbered) == "all"
    assert seen(start("cuda")) == "4"  # for 7 is held
    assert seen(start("cpu")) == seen(start("auto", offered="")) == "all"


def test_only_gpus_that_are_to_be_seen_are_offered(monkeypatch):
    class Answer:
        stdout = "2\n"

    monkeypatch.setattr(gpus.subprocess, "run", lambda *_, **__: Answer)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus.found() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5a")
    assert gpus.found() == ["3", "GPU-5a"]


SNAKEFILE = """
rule all:
    input: "a", "b"

rule train:
    output: "{job}"
    resources: gpu=1
    shell:
        "python -m jetatag.grid.gpus auto timeout 60 sh -c"
        " 'echo $CUDA_VISIBLE_DEVICES > {output}.seen;"
        " until [ -e a.seen ] && [ -e b.seen ]; do sleep 0.1; done; cp {output}.seen {output}'"
"""


def test_snakemake_trains_on_as_many_gpus_as_there_are(tmp_path, monkeypatch):
    """Each of two jobs waits for the other to begin, so they end only if both run at once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gpus, "found", lambda: ["3", "5"])
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "params.yaml").write_text("runs: here\n")
    assert grid.run_snakemake(tmp_path, tmp_path / "params.yaml", cores="2") == 0
    assert {(tmp_path / job).read_text().strip() for job in "ab"} == {"3", "5"}
