"""JSON from files that somebody else may have written: every text is a value or a `ValueError`."""

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is no JSON, no UTF-8, nested too deep, or holds an integer of thousands of digits.
    """
    try:
        return json.loads(text)
    except RecursionError:
        # Without the cause: its traceback has a thousand entries.
        raise ValueError("its values are nested too deep") from None
