"""Layers that two families or heads share.

timm comes first: its import registers our families, which need whole modules of this package, not a half imported one.
"""

import timm as timm
