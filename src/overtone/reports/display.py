"""A prediction beside its image, for notebooks."""

import base64
import html
import io
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

_THUMBNAIL = 160  # pixels


@dataclass(frozen=True)
class Result:
    """What a network says of one image.

    Attributes:
        image: the image in RGB.
        name: its path, or its position in the list that was given.
        prediction: the task's, a plain dataclass; see `tasks.task.Prediction`.
        columns: headings of the prediction's rows.
    """

    image: Image.Image
    name: str
    prediction: Any
    columns: tuple[str, ...]

    def __getattr__(self, name: str) -> Any:
        """The prediction's own attributes, such as `label` and `best` of a classification."""
        if name.startswith("__") or name == "prediction":
            raise AttributeError(name)
        return getattr(self.prediction, name)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"image": self.name, **self.prediction.to_dict()}

    def plot(self) -> Figure:
        """The image with the prediction's rows beneath it."""
        figure = Figure(figsize=(4, 4.6), layout="constrained")
        axes = figure.subplots()
        axes.imshow(self.image)
        axes.set_axis_off()
        lines = ["  ".join("" if cell is None else str(cell) for cell in row) for row in self.prediction.rows()]
        axes.set_title("\n".join(lines), fontsize=9, loc="left", parse_math=False)
        return figure

    def _repr_html_(self) -> str:
        small = self.image.copy()
        small.thumbnail((_THUMBNAIL, _THUMBNAIL))
        buffer = io.BytesIO()
        small.save(buffer, "PNG")
        source = base64.b64encode(buffer.getvalue()).decode()
        heading = "".join(f"<th>{html.escape(column)}</th>" for column in self.columns)
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape('' if cell is None else str(cell))}</td>" for cell in row) + "</tr>"
            for row in self.prediction.rows()
        )
        element = f'<img alt="{html.escape(self.name)}" src="data:image/png;base64,{source}">'
        return f"<div>{element}<table><tr>{heading}</tr>{rows}</table></div>"
