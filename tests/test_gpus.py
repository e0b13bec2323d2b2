"""Jobs that run at the same time on several GPUs, by what each job sees; no GPU is needed."""

import os
import subprocess
import sys

import pytest
import torch

from jetatag.grid import gpus, runner

SHOW = 'echo "${CUDA_VISIBLE_DEVICES-all} ${JETATAG_RUNS_PER_GPU-}"; read line'
"""Print the visible GPUs and how many runs share one, and wait for a line."""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Starts a job on a device; the locks of the GPUs are in a folder of this test."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    started = []

    def job(device, offered="4,7"):
        command = [sys.executable, "-m", "jetatag.grid.gpus", device, "sh", "-c", SHOW]
        environment = {**os.environ, gpus.GPUS: offered}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, env=environment, **pipes))
        return started[-1]

    yield job
    for process in started:
        process.kill()
        process.communicate()


def visible_to(job):
    return job.stdout.readline().split()[0]


def test_jobs_at_the_same_time_see_different_gpus_and_the_next_waits(start):
    first, second = start("auto"), start("cuda")
    assert {a := visible_to(first), b := visible_to(second)} == {"4", "7"} and a != b
    third = start("cuda")
    first.kill()  # a GPU is free again however its job ends
    assert visible_to(third) == a


def test_two_runs_may_share_a_gpu(start):
    offered = ",".join(["4", "7"] * 2)
    jobs = [start("cuda", offered) for _ in range(4)]
    assert sorted(job.stdout.readline() for job in jobs) == ["4 2\n"] * 2 + ["7 2\n"] * 2
    fifth = start("cuda", offered)  # there is no room
    jobs[2].kill()
    assert visible_to(fifth) in ("4", "7")


def test_a_job_waits_for_a_numbered_gpu_and_a_cpu_job_takes_none(start):
    numbered = start("cuda:1")
    assert visible_to(numbered) == "all"
    assert visible_to(start("cuda")) == "4"  # because 7 is locked
    assert visible_to(start("cpu")) == visible_to(start("auto", offered="")) == "all"


def test_only_visible_gpus_are_offered(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus.visible_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5a")
    assert gpus.visible_gpus() == ["3", "GPU-5a"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-5a,-1")
    assert gpus.visible_gpus() == ["3", "GPU-5a"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus.visible_gpus() == []


SNAKEFILE = """
import sys

rule all:
    input: "a", "b"

rule train:
    output: "{job}"
    resources: gpu=1
    shell:
        "{sys.executable} -m jetatag.grid.gpus auto timeout 60 sh -c"
        " 'echo $CUDA_VISIBLE_DEVICES > {output}.seen;"
        " until [ -e a.seen ] && [ -e b.seen ]; do sleep 0.1; done; cp {output}.seen {output}'"
"""


@pytest.mark.parametrize(("visible", "runs_per_gpu"), [(["3", "5"], 1), (["3"], 2)])
def test_snakemake_trains_on_as_many_gpus_as_there_are_or_several_runs_on_one(
    tmp_path, monkeypatch, visible, runs_per_gpu
):
    """Each of two jobs waits for the other to begin, so they end only if both run at once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gpus, "visible_gpus", lambda: visible)
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "params.yaml").write_text(f"runs: here\nruns_per_gpu: {runs_per_gpu}\n")
    assert runner.run_snakemake(tmp_path, tmp_path / "params.yaml", cores="2") == 0
    assert {(tmp_path / job).read_text().strip() for job in "ab"} == {*visible}
