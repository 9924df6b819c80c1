"""`overtone benchmark`: networks, runtimes, precisions and batch sizes side by side on this machine's CPU.

What needs a GPU is a suite of its own: `benchmark_gpu`.
"""

import contextlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from torch import nn

from overtone import options, zoo
from overtone.deployment.origin import origin_for
from overtone.deployment.quiet import quiet
from overtone.deployment.runtimes.runtime import PRECISIONS, computes_bfloat16
from overtone.deployment.timing.contenders import ALL, Contender, lane_of, why_not
from overtone.deployment.timing.lane import Lane, LaneError, reason_of
from overtone.deployment.timing.race import GEMMS, Timing, gemm_gflops, race
from overtone.deployment.timing.shipping import Shipped
from overtone.errors import OvertoneError
from overtone.models.multiply_adds import count_multiply_adds
from overtone.published import find, rows_of
from overtone.tasks.export_forms import GraphForm
from overtone.verbs import benchmark_training as training
from overtone.verbs.benchmark_gpu import gpu_suite
from overtone.verbs.benchmark_report import Report, Row, as_dict, check_out, machine, write_report
from overtone.verbs.console import note, print_json, print_line, print_table

_TIMM = "timm:"
_GEMM_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_FORWARD_PASSES_OF_A_STEP = 3  # backward: the gradients of the maps and those of the weights


@dataclass(frozen=True)
class Entrant:
    """A network to be measured.

    Attributes:
        name: as it was asked for.
        net: with weights that need not mean anything.
        size: pixels, the side of its input.
        multiply_adds: of one image; None if they cannot be followed.
        top1: published at this size, percent.
        form: where another graph than the network is exported.
    """

    name: str
    net: nn.Module
    size: int
    multiply_adds: int | None
    top1: float | None
    form: GraphForm | None = None


@dataclass(frozen=True)
class Measured:
    """What takes part in the race, and what is known of it.

    Attributes:
        lane: the process in which it is timed.
    """

    entrant: Entrant
    task: str
    runtime: str
    precision: str
    batch: int
    lane: Lane


def benchmark(chosen: options.Benchmark) -> int:
    """Measure, print, and write what was asked for.

    Raises:
        OvertoneError: an unknown model, runtime or precision, or one that this machine has not.
    """
    if chosen.gpu_suite:
        return gpu_suite(chosen)
    runtimes, precisions, batches = _checked(chosen)
    if chosen.out is not None:
        check_out(chosen.out, chosen.overwrite)
    if chosen.threads is not None:
        torch.set_num_threads(chosen.threads)
    names = list(dict.fromkeys([*chosen.models, *_listed(chosen.against)]))
    if not names:
        raise OvertoneError("which networks? name some, such as hbonet_x100; overtone models lists them")
    entrants = [_entrant(name, chosen.size) for name in names]
    about = machine()  # the load of the machine before ours
    left_out: list[str] = []
    with contextlib.ExitStack() as lanes:
        scratch = lanes.enter_context(tempfile.TemporaryDirectory(prefix="overtone-"))
        measured: list[Measured] = []
        for number, entrant in enumerate(entrants):
            folder = Path(scratch) / str(number)
            for batch in batches:
                found = _contenders(entrant, batch, (runtimes, precisions), folder, left_out)
                if chosen.train:
                    found += _steps(entrant, batch, precisions, left_out)
                for one in found:
                    lanes.callback(one.lane.close)
                measured += found
        if not measured:
            raise OvertoneError(f"nothing can be measured: {'; '.join(dict.fromkeys(left_out))}")
        rates, timings = _race(measured, chosen.rounds)
        memories = [None if chosen.no_memory else one.lane.memory() for one in measured]
    found = zip(measured, timings, memories, strict=True)
    rows = tuple(_row(one, timing, memory, rates) for one, timing, memory in found)
    report = Report(about, rates, rows, tuple(dict.fromkeys(left_out)))
    _show(report, chosen)
    return 0


def _listed(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _checked(chosen: options.Benchmark) -> tuple[list[str], list[str], list[int]]:
    """Runtimes, precisions and batch sizes.

    Raises:
        OvertoneError: one that does not exist, a number that makes no sense, or a runtime that is not installed.
    """
    runtimes = _choice("runtime", chosen.runtime, ALL)
    precisions = _choice("precision", chosen.precision, PRECISIONS)
    batches = []
    for word in _listed(chosen.batch):
        if not word.isdecimal() or int(word) < 1:
            raise OvertoneError(f"batch is {chosen.batch!r}; give whole numbers of images, such as 1,16")
        batches.append(int(word))
    if not batches:
        raise OvertoneError("batch is empty; give whole numbers of images, such as 1,16")
    for runtime in runtimes if chosen.runtime != "all" else ():
        reasons = [why_not(runtime, precision) for precision in precisions]
        if all(reasons):
            raise OvertoneError(f"{reasons[0]}")
    return runtimes, precisions, batches


def _choice(what: str, text: str, known: Sequence[str]) -> list[str]:
    words = list(dict.fromkeys(_listed(text)))
    if words == ["all"]:
        return list(known)
    for word in words:
        if word not in known:
            raise OvertoneError(f"there is no {what} {word!r}; there are {', '.join(known)}, and all")
    if not words:
        raise OvertoneError(f"{what} is empty; give some of {', '.join(known)}, or all")
    return words


def _entrant(name: str, size: int | None) -> Entrant:
    form = None
    if name.startswith(_TIMM):
        architecture = name.removeprefix(_TIMM)
        if not timm.is_model(architecture):
            raise OvertoneError(f"timm has no model {architecture!r}; overtone models PATTERN --timm lists them")
        net = timm.create_model(architecture)
        preprocess, rows = zoo.preprocess_of(net), ()
    elif find(name) is not None or timm.is_model(name):
        net = zoo.build(name)
        preprocess, rows = zoo.preprocess_of(net), rows_of(name.partition(".")[0])
    else:
        loaded = zoo.load_model(name)
        origin = origin_for(loaded, size)
        net, preprocess, rows, form = loaded.model, origin.preprocess, (), origin.graph_form
    side = size or preprocess.size
    fitting = [
        row.top1 for row in rows if row.top1 is not None and row.resolution == side and find(name) in (None, row)
    ]
    return Entrant(name, net.eval(), side, _multiply_adds(net, side), max(fitting, default=None), form)


def _multiply_adds(net: nn.Module, size: int) -> int | None:
    try:
        return count_multiply_adds(net, (3, size, size))
    except (RuntimeError, NotImplementedError, TypeError):
        return None  # some of timm's need values, which the meta device does not have


def _contenders(
    entrant: Entrant, batch: int, wanted: tuple[list[str], list[str]], folder: Path, left_out: list[str]
) -> list[Measured]:
    """The network in every runtime and precision that can be had; for the rest `left_out` says why not."""
    made = []
    for runtime in wanted[0]:
        for precision in wanted[1]:
            reason = why_not(runtime, precision)
            if reason is not None:
                left_out.append(f"{runtime}, {precision}: {reason}")
                continue
            note(f"preparing: {entrant.name}, {runtime}, {precision}, batch {batch}")
            place = folder / f"{runtime}-{precision}-{batch}"
            contender = Contender(entrant.name, runtime, precision, batch, entrant.size, place, form=entrant.form)
            try:
                made.append(_prepared(entrant, contender))
            except Exception as error:  # other people's exporters: one that fails is a result, too
                left_out.append(f"{entrant.name}, {runtime}, {precision}: {reason_of(error)}")
    return made


def _prepared(entrant: Entrant, contender: Contender) -> Measured:
    with quiet():
        contender.write(entrant.net)
    lane = lane_of(contender)
    return Measured(entrant, "inference", contender.runtime, contender.precision, contender.batch, lane)


def _steps(entrant: Entrant, batch: int, precisions: Sequence[str], left_out: list[str]) -> list[Measured]:
    """A step of training in every precision that training has."""
    made = []
    for precision in training.PRECISIONS:
        if precision not in precisions or (precision == "bfloat16" and not computes_bfloat16()):
            continue
        note(f"preparing: {entrant.name}, training, {precision}, batch {batch}")
        try:
            lane = Lane(training.training_step, Shipped(entrant.net), batch, entrant.size, precision)
        except LaneError as error:  # a batch norm that sees a single value, say
            left_out.append(f"{entrant.name}, training, {precision}, batch {batch}: {error}")
            continue
        made.append(Measured(entrant, "training", "torch", precision, batch, lane))
    return made


def _race(measured: Sequence[Measured], rounds: int) -> tuple[dict[str, float], list[Timing]]:
    """Rates of products of matrices by the fastest library, and the timing of each contender: all take turns."""
    kinds = [name for name in _GEMM_TYPES if any(_gemm_of(one.precision) == name for one in measured)]
    note(f"measuring: {len(measured)} contenders, {rounds} rounds")
    with contextlib.ExitStack() as lanes:
        products = [lanes.enter_context(Lane(make, _GEMM_TYPES[name])) for name in kinds for make in GEMMS]
        timings = race([lane.turn for lane in (*products, *(one.lane for one in measured))], rounds)
    rates = [gemm_gflops(timing) for timing in timings[: len(products)]]
    best = {name: max(rates[i * len(GEMMS) : (i + 1) * len(GEMMS)]) for i, name in enumerate(kinds)}
    return best, timings[len(products) :]


def _gemm_of(precision: str) -> str | None:
    """The type of the product of matrices that a precision is held against; int8 has none in PyTorch."""
    return precision if precision in _GEMM_TYPES else None


def _row(one: Measured, timing: Timing, memory: float | None, rates: dict[str, float]) -> Row:
    entrant, gflops = one.entrant, None
    if entrant.multiply_adds is not None:
        passes = _FORWARD_PASSES_OF_A_STEP if one.task == "training" else 1
        gflops = 2 * passes * entrant.multiply_adds * one.batch / (timing.median * 1e6)
    rate = rates.get(_gemm_of(one.precision) or "")
    return Row(
        model=entrant.name,
        task=one.task,
        runtime=one.runtime,
        precision=one.precision,
        batch=one.batch,
        size=entrant.size,
        threads=torch.get_num_threads(),
        rounds=len(timing.seconds),
        latency_ms=timing.median,
        p95_ms=timing.p95,
        spread_ms=timing.spread,
        images_per_second=1000 * one.batch / timing.median,
        peak_memory_mb=memory,
        parameters=sum(p.numel() for p in entrant.net.parameters()),
        multiply_adds=entrant.multiply_adds,
        gflops=gflops,
        gemm_share=None if gflops is None or rate is None else gflops / rate,
        top1=entrant.top1,
    )


def _show(report: Report, chosen: options.Benchmark) -> None:
    for line in report.left_out:
        note(f"left out: {line}")
    if chosen.json:
        print_json(as_dict(report))
    else:
        _print(report)
    if chosen.out is not None:
        note(f"written: {', '.join(str(path) for path in write_report(report, chosen.out))}")


def _print(report: Report) -> None:
    heads = ("model", "task", "runtime", "precision", "batch", "size", "ms", "±", "p95", "images/s", "MB")
    print_table(
        (*heads, "M mult-adds", "GFLOP/s", "of GEMM", "top-1"),
        [
            (
                *(row.model, row.task, row.runtime, row.precision, row.batch, row.size),
                *(f"{row.latency_ms:.2f}", f"{row.spread_ms:.2f}", f"{row.p95_ms:.2f}"),
                f"{row.images_per_second:.1f}",
                None if row.peak_memory_mb is None else f"{row.peak_memory_mb:.0f}",
                None if row.multiply_adds is None else f"{row.multiply_adds / 1e6:.1f}",
                None if row.gflops is None else f"{row.gflops:.1f}",
                None if row.gemm_share is None else f"{100 * row.gemm_share:.0f} %",
                None if row.top1 is None else f"{row.top1:.2f}",
            )
            for row in report.rows
        ],
        left=4,
    )
    rates = ", ".join(f"{rate:.0f} GFLOP/s in {name}" for name, rate in report.gemm_gflops.items())
    products = f"; products of matrices: {rates}" if rates else ""  # int8 has none to be held against
    print_line(f"{report.machine['processor']}, {report.machine['threads']} threads{products}")
    print_line("ms: median of a call, ± between its quartiles; top-1: published, in float32")
