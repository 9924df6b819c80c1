"""Telemetry of the runtimes, switched off before any of them is imported.

- ONNX Runtime from 1.31 on looks up its maker's server, and keeps a device id and a database of events below the
  home folder's cache. It starts when its library is loaded, so that `disable_telemetry_events()` comes too late; the
  environment variable ORT_DISABLE_TELEMETRY, read at that moment, prevents all of it.
- OpenVINO's converter and NNCF send events through the package `openvino_telemetry`, and do without where it cannot
  be imported.
"""

import os
import sys

SWITCHES = (
    'os.environ["ORT_DISABLE_TELEMETRY"] = "1"',
    'sys.modules["openvino_telemetry"] = None',
)
"""The same as statements, for the script of an export."""


def switch_off_telemetry() -> None:
    """Switch it off for this process and those that it starts; to be called before a runtime is imported."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
