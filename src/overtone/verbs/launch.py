"""`overtone launch slurm`: a batch script that trains on a cluster, and resumes when the job is requeued.

The script is `slurm/job.sh` in the run folder, the output of the job is `slurm/<job id>.out` beside it. Slurm sends
SIGUSR1 to the script two minutes before the time limit; the script passes it on, the training saves and exits with 75,
and the script has the job queued again. Then the same command finds the checkpoint in the run folder.
"""

import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from overtone.checkpoint import write_text
from overtone.config import Recipe
from overtone.engine.distributed import World, check_shared_evenly
from overtone.engine.folder import SLURM, check_folder, is_claimed
from overtone.engine.resuming import check_begun
from overtone.errors import OvertoneError
from overtone.options import LaunchSlurm, Predict, Training
from overtone.recipes import needs_weights
from overtone.verbs.console import note, print_line

REQUEUE_CODE = 75
_WARNING_SECONDS = 120
_SCRIPT = "job.sh"
# The first task that ends leaves the others so long; a lost rank must not hold the job for hours.
_WAIT_SECONDS = 45
# what the script itself depends on
_FIXED = (
    *("nodes", "ntasks", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "signal", "requeue", "no-requeue"),
    *("open-mode", "output", "chdir", "array"),
)
_PROCESSES = "--processes is for --gpus 0; with GPUs there is one process for each"
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_MEETING = """\
set -u

# Where the processes meet: the first machine, at a port of this job's own.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((10000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT
export PYTHONUNBUFFERED=1
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}"
"""
_WAITING = """\
# srun passes USR1 on to the training, but answers TERM by killing it: a TERM is passed on as USR1 too.
child=
caught=
trap 'caught=yes; [ -n "$child" ] && kill -USR1 "$child" 2>/dev/null' USR1 TERM
# In the background: the shell can act on signals only while it waits.
{srun} &
child=$!
while :; do
  caught=
  wait "$child"
  code=$?
  [ -z "$caught" ] && break  # else the signal ended the waiting, not the training
done

# {requeue}: there is a checkpoint and the training can be resumed. A job that was cancelled, or that Slurm itself
# requeues, does not run any more and is left alone.
if [ "$code" -eq {requeue} ]; then
  state=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null | grep -o 'JobState=[A-Z_]*' | head -n 1)
  case "$state" in
    '' | JobState=RUNNING)
      echo "job $SLURM_JOB_ID is requeued and will resume from its checkpoint" >&2
      scontrol requeue "$SLURM_JOB_ID" && exit 0
      ;;
  esac
fi
exit "$code"
"""


def launch_slurm(options: LaunchSlurm, training: Training, words: Sequence[str]) -> int:
    """Write the batch script of a training into its run folder and submit it.

    Args:
        options: the resources and other options of the job.
        training: `words`, parsed.
        words: the training's command line after the recipe, as it goes into the script.

    Returns:
        The exit code, 0.

    Raises:
        OvertoneError: options that cannot work, a run folder that is in use, no sbatch here, or it refused the job.
    """
    folder = training.run.out or Path("runs") / f"{options.recipe}-{time.strftime('%Y%m%d-%H%M%S')}"
    _check(options, training, folder)
    given = [] if training.run.out else ["--run.out", str(folder)]
    command = [sys.executable, "-m", "overtone", "train", options.recipe, *words, *given]
    hint = f"overtone runs {folder.parent} shows its progress; "
    return _launched(options, command, folder, f"the run folder is {folder}\n{hint}")


def launch_prediction(options: LaunchSlurm, predicted: Predict, words: Sequence[str]) -> int:
    """Write the batch script of a prediction beside its parts and submit it; a job that is queued again resumes it.

    Args:
        options: the resources and other options of the job.
        predicted: `words`, parsed.
        words: the command line after `predict`, as it goes into the script.

    Raises:
        OvertoneError: no parts are to be written, or as `launch_slurm`.
    """
    if predicted.parts is None or not predicted.images:
        raise OvertoneError("a prediction on a cluster needs MODEL, SOURCE and --parts DIR; add what is missing")
    if options.gpus and options.processes != 1:
        raise OvertoneError(_PROCESSES)
    command = [sys.executable, "-m", "overtone", "predict", *words]
    return _launched(options, command, predicted.parts, f"the parts come into {predicted.parts}\n")


def _launched(options: LaunchSlurm, command: Sequence[str], folder: Path, where: str) -> int:
    script = slurm_script(options, command, folder)
    if options.dry_run:
        sys.stdout.write(script)
        return 0
    if shutil.which("sbatch") is None:
        raise OvertoneError(
            "sbatch is not on the PATH; launch from a machine that submits to Slurm, or see the script with --dry-run"
        )
    path = folder / SLURM / _SCRIPT
    _write(path, script)
    job = _submit(path)
    print_line(job)
    note(f"submitted job {job}: its output is {path.with_name(f'{job}.out')}, {where}scancel {job} ends it")
    return 0


def slurm_script(options: LaunchSlurm, command: Sequence[str], folder: Path) -> str:
    """Return the batch script.

    Args:
        options: the resources and other options of the job.
        command: what each process runs; relative paths in it are those of the present working folder.
        folder: the run folder.

    Raises:
        OvertoneError: a value that a script cannot hold.
    """
    tasks = options.gpus or options.processes
    # a percent sign stands for itself only when doubled
    output = f"{folder.absolute() / SLURM}".replace("%", "%%") + "/%j.out"
    asked: dict[str, object] = {
        "job-name": options.job_name or folder.absolute().name,
        "nodes": options.nodes,
        "ntasks-per-node": tasks,
        "gpus-per-node": options.gpus or None,
        "cpus-per-task": options.cpus_per_gpu,
        "mem": options.mem,
        "partition": options.partition,
        "time": options.time,
        "account": options.account,
        "qos": options.qos,
        "constraint": options.constraint,
        "chdir": Path.cwd(),
        "output": output,
        "open-mode": "append",
        "signal": f"B:USR1@{_WARNING_SECONDS}",
    }
    lines = [f"--{name}={_quoted(name, str(value))}" for name, value in asked.items() if value is not None]
    lines += ["--requeue", *(_sbatch_option(text) for text in options.sbatch_option)]
    header = "".join(f"#SBATCH {line}\n" for line in lines)
    exports = "".join(f"export {_variable(text)}\n" for text in options.env)
    # srun does not inherit the cores per task
    cores = "" if options.cpus_per_gpu is None else f" --cpus-per-task={options.cpus_per_gpu}"
    srun = f"srun --kill-on-bad-exit=0 --wait={_WAIT_SECONDS}{cores} \\\n  {shlex.join(command)}"
    waiting = _WAITING.replace("{srun}", srun).replace("{requeue}", str(REQUEUE_CODE))
    return f"#!/bin/bash\n{header}\n{_MEETING}{exports}\n{waiting}"


def _check(options: LaunchSlurm, training: Training, folder: Path) -> None:
    if options.gpus and options.processes != 1:
        raise OvertoneError(_PROCESSES)
    if training.run.overwrite:
        raise OvertoneError(
            "--run.overwrite would delete the job's own work when it is queued again; give a new folder as --run.out"
        )
    check_shared_evenly(training.train.batch_size, World(size=options.nodes * (options.gpus or options.processes)))
    # a recipe that starts from weights is complete only when these are read, where the job runs
    if check_folder(folder, overwrite=False, resume=training.run.resume) and not needs_weights(options.recipe):
        recipe = Recipe(**{field.name: getattr(training, field.name) for field in fields(Recipe)})
        check_begun(folder, recipe, training.run)
    if is_claimed(folder):
        raise OvertoneError(f"{folder} is in use by a run; give another folder as --run.out")


def _quoted(name: str, value: str) -> str:
    if not value.isprintable():
        raise OvertoneError(f"--{name} is {value!r}, which has characters that no line of a script can hold")
    return shlex.quote(value)


def _sbatch_option(text: str) -> str:
    name, equals, value = text.lstrip("-").partition("=")
    if not re.fullmatch(r"[a-z][a-z-]+", name):
        raise OvertoneError(f"--sbatch-option {text!r} is not the long name of an option of sbatch, or NAME=VALUE")
    if name in _FIXED:
        raise OvertoneError(
            f"--sbatch-option {name} is not free: the script depends on it; see overtone launch slurm --help"
        )
    return f"--{name}{equals}{_quoted(name, value) if equals else ''}"


def _variable(text: str) -> str:
    key, equals, value = text.partition("=")
    if not equals or not _KEY.fullmatch(key):
        raise OvertoneError(f"--env {text!r} is not KEY=VALUE")
    return f"{key}={shlex.quote(value)}"


def _write(path: Path, script: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OvertoneError(
            f"{path.parent} cannot be made: {error.strerror}; give another folder as --run.out"
        ) from error
    write_text(path, script)


def _submit(path: Path) -> str:
    done = subprocess.run(["sbatch", "--parsable", str(path)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise OvertoneError(f"sbatch refused the job: {reason}; the script is {path}")
    return done.stdout.strip().partition(";")[0]
