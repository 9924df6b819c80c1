"""`overtone launch slurm`: the script, and what it does when signals and exit codes come, with stand-ins for Slurm."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_photos import TINY, draw

from overtone.config import to_dict
from overtone.recipes import load_recipe

SBATCH = """#!/bin/bash
echo "$@" >> "$FAKE/sbatch.log"
[ -z "${REFUSE:-}" ] || { echo "sbatch: error: invalid partition" >&2; exit 1; }
echo "4711;cluster"
"""
# Real srun starts a process for each task and passes USR1 on to them; one task that takes srun's place does as well.
SRUN = """#!/bin/bash
echo "$@" >> "$FAKE/srun.log"
while [[ "$1" == --* ]]; do shift; done
exec "$@"
"""
SCONTROL = """#!/bin/bash
echo "$@" >> "$FAKE/scontrol.log"
case "$1 $2" in
  "show hostnames") echo node7; echo node8 ;;
  "show job") echo "JobId=$3 JobState=${JOB_STATE:-RUNNING} Reason=None" ;;
esac
"""
# Stands for the training: notes what it is called with, then ends with CODE, or waits for USR1 and ends with 75.
TRAINING = """#!{python}
import json, os, signal, sys, time
from pathlib import Path
fake = Path(os.environ["FAKE"])
def saved(number, frame):
    time.sleep(0.3)
    sys.exit(75)
signal.signal(signal.SIGUSR1, saved)
names = ("MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS", "GREETING")
said = {{name: os.environ.get(name) for name in names}} | {{"words": sys.argv[1:], "cwd": os.getcwd()}}
(fake / "training.tmp").write_text(json.dumps(said))
(fake / "training.tmp").rename(fake / "training.json")
if "CODE" in os.environ:
    sys.exit(int(os.environ["CODE"]))
time.sleep(20)
"""
BASE = ("launch", "slurm", "scratch", "--data.root", "photos")


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A folder with programs named as Slurm's, first on the PATH, and what they wrote down."""
    fake = tmp_path / "fake"
    fake.mkdir()
    programs = {"sbatch": SBATCH, "srun": SRUN, "scontrol": SCONTROL, "python": TRAINING.format(python=sys.executable)}
    for name, text in programs.items():
        (fake / name).write_text(text)
        (fake / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(fake))
    for name in ("CODE", "OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node[7-8]")
    monkeypatch.chdir(tmp_path)
    return fake


@pytest.fixture
def script(slurm, overtone, monkeypatch, tmp_path):
    """The script of a launch whose Python is the stand-in."""
    monkeypatch.setattr(sys, "executable", str(slurm / "python"))

    def make(*words):
        outcome = overtone(*BASE, "--run.out", "runs/it's a", *words, "--dry-run")
        assert outcome.code == 0, outcome.err
        path = tmp_path / "job.sh"
        path.write_text(outcome.out)
        return path

    return make


def sbatch_lines(text):
    return [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH ")]


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def requeued(slurm):
    return "requeue 4711" in lines_of(slurm / "scontrol.log")


def until(path: Path) -> None:
    for _ in range(200):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} did not come")


def test_dry_run_prints_the_script_and_does_nothing(slurm, overtone, tmp_path):
    words = ["--nodes", 4, "--gpus", 8, "--partition", "big one", "--time", "24:00:00", "--account", "me", "--qos", "q"]
    words += ["--cpus-per-gpu", 6, "--mem", "200G", "--constraint", "a100&ib", "--job-name", "x"]
    words += ["--sbatch-option", "exclusive", "--sbatch-option=--mail-user=a b", "--env", "GREETING=it's", "--dry-run"]
    outcome = overtone(*BASE, "--run.out", "runs/50%", "--train.batch-size", 64, *words)
    assert outcome.code == 0, outcome.err
    assert sbatch_lines(outcome.out) == [
        "--job-name=x",
        "--nodes=4",
        "--ntasks-per-node=8",
        "--gpus-per-node=8",
        "--cpus-per-task=6",
        "--mem=200G",
        "--partition='big one'",
        "--time=24:00:00",
        "--account=me",
        "--qos=q",
        "--constraint='a100&ib'",
        f"--chdir={tmp_path}",
        f"--output={tmp_path}/runs/50%%/slurm/%j.out",
        "--open-mode=append",
        "--signal=B:USR1@120",
        "--requeue",
        "--exclusive",
        "--mail-user='a b'",
    ]
    assert """export GREETING='it'"'"'s'\n""" in outcome.out
    assert "srun --kill-on-bad-exit=0 --wait=45 --cpus-per-task=6 \\\n" in outcome.out
    assert not (tmp_path / "runs").exists() and not (slurm / "sbatch.log").exists()


def test_without_gpus_there_are_processes(slurm, overtone):
    outcome = overtone(*BASE, "--nodes", 2, "--gpus", 0, "--processes", 2, "--dry-run")
    lines = sbatch_lines(outcome.out)
    assert "--ntasks-per-node=2" in lines and not any(line.startswith("--gpus") for line in lines)


def test_submits_the_script_in_the_run_folder(slurm, overtone, tmp_path):
    outcome = overtone(*BASE, "--run.out", "runs/a")
    assert (outcome.code, outcome.out) == (0, "4711\n"), outcome.err
    path = Path("runs/a/slurm/job.sh")
    assert lines_of(slurm / "sbatch.log") == [f"--parsable {path}"]
    assert f"--output={tmp_path}/runs/a/slurm/%j.out" in sbatch_lines(path.read_text())
    assert "runs/a/slurm/4711.out" in outcome.err and "scancel 4711" in outcome.err


def test_without_a_run_folder_the_script_names_one(slurm, overtone, tmp_path):
    assert overtone(*BASE).code == 0
    (path,) = tmp_path.glob("runs/scratch-*/slurm/job.sh")
    assert f"--run.out {path.parent.parent.relative_to(tmp_path)} &" in path.read_text()


@pytest.mark.parametrize("code", [0, 1, 2])
def test_the_training_gets_its_words_and_its_code_comes_out(slurm, script, tmp_path, monkeypatch, code):
    monkeypatch.setenv("CODE", str(code))
    job = script("--schedule.milestones", "3", "5", "--env", "GREETING=hello $HOME `x`", "--optim.lr=0.1")
    done = subprocess.run(["bash", str(job)], check=False)
    assert done.returncode == code and not requeued(slurm)
    said = json.loads((slurm / "training.json").read_text())
    words = ["-m", "overtone", "train", "scratch", "--data.root", "photos", "--run.out"]
    assert said["words"] == [*words, "runs/it's a", "--schedule.milestones", "3", "5", "--optim.lr=0.1"]
    assert (said["MASTER_ADDR"], said["MASTER_PORT"], said["cwd"]) == ("node7", "14711", str(tmp_path))
    assert (said["OMP_NUM_THREADS"], said["GREETING"]) == ("1", "hello $HOME `x`")


def test_code_75_queues_the_job_again(slurm, script, monkeypatch):
    monkeypatch.setenv("CODE", "75")
    assert subprocess.run(["bash", str(script())], check=False).returncode == 0
    assert requeued(slurm)


@pytest.mark.parametrize("state", ["CANCELLED", "COMPLETING", "PREEMPTED"])
def test_a_job_that_is_being_ended_is_not_queued_again(slurm, script, monkeypatch, state):
    monkeypatch.setenv("CODE", "75")
    monkeypatch.setenv("JOB_STATE", state)
    assert subprocess.run(["bash", str(script())], check=False).returncode == 75
    assert not requeued(slurm)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_to_the_script_reaches_the_training_and_its_end_is_waited_for(slurm, script, number):
    job = subprocess.Popen(["bash", str(script())])
    try:
        until(slurm / "training.json")
        job.send_signal(number)
        assert job.wait(timeout=10) == 0
    finally:
        job.kill()
        job.wait()
    assert requeued(slurm)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--nodes", "0"), "nodes is 0"),
        (("--gpus", "3", "--train.batch-size", "64"), "which 3 processes cannot share equally"),
        (("--processes", "2"), "--processes is for --gpus 0"),
        (("--env", "1A=2"), "--env '1A=2' is not KEY=VALUE"),
        (("--sbatch-option", "signal=USR2"), "--sbatch-option signal is not free"),
        (("--sbatch-option", "rm -rf"), "not the long name"),
        (("--partition", "a\n#SBATCH --exclusive"), "no line of a script"),
        (("--run.overwrite",), "--run.overwrite would delete"),
        (("--optim.lrr", "1"), "did you mean --optim.lr"),
        (("--lr", "1"), "has no option --lr"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_written(slurm, overtone, tmp_path, words, message):
    assert message in overtone(*BASE, *words).error
    assert not (tmp_path / "runs").exists() and not (slurm / "sbatch.log").exists()


def test_no_data_no_recipe_no_sbatch(slurm, overtone, monkeypatch, tmp_path):
    assert "--data.root" in overtone("launch", "slurm", "scratch").error
    assert "scratch" in overtone("launch", "slurm", "scratchy", "--data.root", "photos").error
    monkeypatch.setenv("PATH", "")
    assert "sbatch is not on the PATH" in overtone(*BASE).error
    assert not (tmp_path / "runs").exists()


def test_what_sbatch_says_is_passed_on(slurm, overtone, monkeypatch):
    monkeypatch.setenv("REFUSE", "1")
    assert "sbatch: error: invalid partition" in overtone(*BASE, "--run.out", "runs/a").error


def test_a_folder_takes_the_same_recipe_again_and_no_other(slurm, overtone, tmp_path):
    folder = tmp_path / "runs" / "a"
    folder.mkdir(parents=True)
    (folder / "recipe.json").write_text(json.dumps({"name": "scratch", "recipe": to_dict(load_recipe("scratch"))}))
    assert overtone(*BASE, "--run.out", folder).code == 0
    assert "the recipe is not that of" in overtone(*BASE, "--run.out", folder, "--optim.lr", "7").error


def test_a_training_starts_in_the_folder_of_its_script(slurm, overtone, tmp_path):
    draw(tmp_path / "photos", {"blue": 5, "red": 5})
    assert overtone(*BASE, *TINY, "--run.out", "runs/a").code == 0
    (command,) = re.findall(r"-m overtone (.*) &$", Path("runs/a/slurm/job.sh").read_text(), flags=re.M)
    outcome = overtone(*shlex.split(command))
    assert outcome.code == 0, outcome.err
    assert Path("runs/a/summary.json").is_file() and Path("runs/a/slurm/job.sh").is_file()


def test_a_prediction_is_launched_with_its_own_words(slurm, overtone, tmp_path):
    words = ["predict", "mobilenetv2_x010", "shards", "--parts", "out", "--nodes", 2, "--gpus", 8, "--run.size", 32]
    assert overtone("launch", "slurm", *words).code == 0
    text = (tmp_path / "out" / "slurm" / "job.sh").read_text()
    assert "--ntasks-per-node=8" in sbatch_lines(text) and "--nodes=2" in sbatch_lines(text)
    assert re.findall(r"-m overtone (.*) &$", text, flags=re.M) == [
        "predict mobilenetv2_x010 shards --parts out --run.size 32"
    ]
    assert "--parts" in overtone("launch", "slurm", "predict", "mobilenetv2_x010", "shards").error
    assert "--top-kk" in overtone("launch", "slurm", *words, "--top-kk", 3).error
