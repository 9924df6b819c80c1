"""Heat maps of what is served, from the networks as they were trained: exports and deployed forms have no gradients."""

import importlib.util
import io
import threading

from overtone.data.decoding import decode_image
from overtone.engine.inference import Computing, Inference, ready
from overtone.reports.heat_maps import heat_maps
from overtone.serving.models import Served
from overtone.zoo import names_of


class Explainer:
    """From a model, the bytes of an image and the index of a label (None: the best) to a PNG with transparency."""

    def __init__(self) -> None:
        self._networks: dict[str, Inference] = {}
        self._turn = threading.Lock()  # what reads a network's maps is a part of it meanwhile

    def __call__(self, served: Served, content: bytes, label: int | None) -> bytes:
        """The heat map at the size of the image, to lay over it.

        Raises:
            OvertoneError: the model has no gradients.
        """
        wanted = () if label is None else (served.task.labels[label],)
        with self._turn:
            inference = self._inference(served)
            image = decode_image(content, inference.preprocess.exif)
            (found,) = heat_maps(inference, image, wanted)
        file = io.BytesIO()
        found.layer(opacity=1).save(file, "PNG")
        return file.getvalue()

    def _inference(self, served: Served) -> Inference:
        if served.name not in self._networks:
            computing = Computing(device=str(served.inference.placement.device), size=served.inference.preprocess.size)
            self._networks[served.name] = ready(served.loaded, names_of(served.loaded), computing)
        return self._networks[served.name]


def explainer() -> Explainer | None:
    """The maker of heat maps; None where Captum is not installed."""
    return None if importlib.util.find_spec("captum") is None else Explainer()
