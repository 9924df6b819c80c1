"""The routes of the page: the points of the explorer, and the runs below a folder, live.

A run is known by its name in the list alone: no part of an address becomes part of a path.
"""

import asyncio
import io
import json
import math
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path, PurePath, PureWindowsPath
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse

from overtone.data.decoding import BadImage, decode_image
from overtone.engine import folder as files
from overtone.errors import OvertoneError
from overtone.reports.comparison import ComparedRun, differences, read_run, result_of
from overtone.reports.confusion import Confusion, confusion_of
from overtone.reports.explorer import points
from overtone.reports.run_folders import RunOverview, overview, run_folders, run_name
from overtone.serving.errors import Refused, busy
from overtone.serving.explorer_file import explorer_data

Row = Mapping[str, Any]
_POLL_S = 1.0
_MOST_STREAMS = 32
_MOST_RUNS = 8
_THUMBNAIL = 192  # pixels, the longer side
_SHOWN = ("name", "state", "recipe", "model", "best_score", "score_name", "best_epoch", "epoch", "epochs", "seconds")


class Runs:
    """The runs below a folder.

    Args:
        root: the folder; None: there are no runs.
    """

    def __init__(self, root: Path | None) -> None:
        self._root = root

    def folders(self) -> dict[str, Path]:
        """Run folders by name."""
        if self._root is None:
            return {}
        return {run_name(folder, self._root): folder for folder in run_folders(self._root)}

    def folder(self, name: str) -> Path:
        """The folder of a run.

        Raises:
            Refused: there is none of that name.
        """
        folder = self.folders().get(name)
        if folder is None:
            raise Refused(404, f"there is no run {name[:80]!r}; /v1/runs lists them")
        return folder

    def overviews(self) -> list[Row]:
        """What the page shows of each run."""
        assert self._root is not None
        return [_shown(overview(folder, self._root)) for folder in self.folders().values()]

    def compared(self, names: list[str]) -> dict[str, Any]:
        """Epochs, results and differing settings of runs, in their order.

        Raises:
            Refused: a run is not there, or its files are damaged.
        """
        try:
            found = [read_run(self.folder(name), name) for name in names]
        except OvertoneError as error:
            raise Refused(422, "the files of a run cannot be read; overtone compare says which") from error
        return {
            "runs": [_run(run) for run in found],
            "differences": {name: [_plain(value) for value in values] for name, values in differences(found).items()},
        }

    def confusion(self, name: str) -> Confusion:
        """The confusion matrix of a run.

        Raises:
            Refused: it has none.
        """
        found = confusion_of(self.folder(name))
        if found is None:
            raise Refused(404, f"{name[:80]} has no confusion matrix: it has no report yet, or is of another task")
        return found

    def thumbnail(self, name: str, index: int) -> bytes:
        """A sample of a run's confusion matrix, small, as JPEG.

        Raises:
            Refused: it is not there, or cannot be read.
        """
        samples = self.confusion(name).samples
        path = samples[index].path if index < len(samples) else None
        if path is None:
            raise Refused(404, "the file of this image is not known")
        try:
            image = decode_image(Path(path))
        except BadImage as error:
            raise Refused(404, "the file of this image cannot be read any more") from error
        image.thumbnail((_THUMBNAIL, _THUMBNAIL))
        written = io.BytesIO()
        image.save(written, "JPEG", quality=85)
        return written.getvalue()

    def stamps(self) -> dict[str, Any]:
        """What changes where a run does: state, and size and time of its metrics."""
        found = {}
        for name, folder in self.folders().items():
            marks = []
            for file in (files.METRICS, files.STATUS, files.REPORT):
                try:
                    status = (folder / file).stat()
                    marks.append((status.st_size, status.st_mtime_ns))
                except OSError:
                    marks.append(None)
            found[name] = (files.is_claimed(folder), *marks)
        return found


def page_routes(root: Path | None, goes_on: Callable[[], bool]) -> APIRouter:
    """`/v1/explorer` and `/v1/runs`.

    Args:
        root: folder of the runs; None: there are none.
        goes_on: whether streams of events may stay open.
    """
    router, runs, streams = APIRouter(prefix="/v1", tags=["page"]), Runs(root), list[object]()

    @router.get("/explorer", summary="Published networks and runs: accuracy and cost")
    def explorer() -> dict[str, Any]:
        return explorer_data(points(root))

    @router.get("/runs", summary="The runs below the server's folder")
    def listed() -> dict[str, Any]:
        return {"folder": root is not None, "runs": [] if root is None else runs.overviews()}

    @router.get("/runs-compared", summary="Epochs, results and differing settings of runs")
    def compared(run: Annotated[list[str], Query(min_length=1, max_length=_MOST_RUNS)]) -> dict[str, Any]:
        return runs.compared(run)

    @router.get("/runs-events", summary="Changes of the runs as server-sent events")
    async def events() -> StreamingResponse:
        if len(streams) >= _MOST_STREAMS:
            raise busy("too many pages watch the runs; close some", 10)
        return StreamingResponse(_changes(runs, goes_on, streams), media_type="text/event-stream")

    @router.get("/runs/{name:path}/confusion", summary="Confusion matrix of a run, worst mistakes first")
    def confusion(name: str) -> dict[str, Any]:
        return runs.confusion(name).to_dict()

    @router.get("/runs/{name:path}/images/{index}", summary="A sample of the confusion matrix", response_class=Response)
    def image(name: str, index: int) -> Response:
        return Response(runs.thumbnail(name, max(index, 0)), media_type="image/jpeg")

    return router


async def _changes(runs: Runs, goes_on: Callable[[], bool], streams: list[object]) -> AsyncIterator[str]:
    """The list of runs whenever it changes, and the names of those that changed."""
    streams.append(own := object())
    try:
        before: dict[str, Any] | None = None
        while goes_on():
            now = await asyncio.to_thread(runs.stamps)
            if now != before:
                changed = [name for name, mark in now.items() if before is not None and before.get(name) != mark]
                listed = await asyncio.to_thread(runs.overviews) if now else []
                yield _event("runs", {"runs": listed, "changed": changed})
                before = now
            else:
                yield ": \n\n"  # an empty comment: a client that has gone is noticed
            await asyncio.sleep(_POLL_S)
    finally:
        streams.remove(own)


def _event(kind: str, value: Any) -> str:
    return f"event: {kind}\ndata: {json.dumps(value)}\n\n"


def _shown(run: RunOverview) -> Row:
    return {name: _plain(getattr(run, name)) for name in _SHOWN}


def _run(run: ComparedRun) -> Row:
    rows = [{name: _plain(value) for name, value in row.items()} for row in run.rows]
    return {"name": run.label, "rows": rows, "result": {k: _plain(v) for k, v in result_of(run).items()}}


def _plain(value: Any) -> Any:
    """A value as the page shows it: of an absolute path the last part alone, and no number that JSON has not."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str) and (PurePath(value).is_absolute() or PureWindowsPath(value).is_absolute()):
        return PurePath(value).name
    return value if isinstance(value, (str, int, float, bool, type(None))) else json.dumps(value)
