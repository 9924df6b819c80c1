"""Adaptive average pools for graphs whose height and width are open, where a runtime has no such operation."""

import torch
from torch import Tensor, nn


class ProductPool(nn.Module):
    """`nn.AdaptiveAvgPool2d` as two products of matrices, whose weights are computed from the size in the graph.

    ONNX has no adaptive pool: its exporter writes one for the size of the example, which other sizes do not fit.

    Args:
        rows: height of the output, pixels; `columns`: its width.
    """

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, rows, columns): means over [floor(i H / rows), ceil((i + 1) H / rows)), and so on."""
        return _shares(x, 2, self.rows) @ x @ _shares(x, 3, self.columns).T


def _shares(x: Tensor, axis: int, count: int) -> Tensor:
    """Weight (count, length) of each pixel along an axis in each mean."""
    pixels = torch.arange(x.shape[axis], device=x.device)
    length = pixels[-1] + 1  # as a tensor: it is arithmetic, not a shape
    places = torch.arange(count, device=x.device)
    first = torch.div(places * length, count, rounding_mode="floor")[:, None]
    end = torch.div((places + 1) * length + count - 1, count, rounding_mode="floor")[:, None]
    return ((pixels >= first) & (pixels < end)).to(x.dtype) / (end - first)


def make_pools_products(net: nn.Module) -> None:
    """Replace the adaptive average pools of a network, in place."""
    for name, module in list(net.named_modules()):
        if name and type(module) is nn.AdaptiveAvgPool2d:
            size = module.output_size
            rows, columns = size if isinstance(size, tuple) else (size, size)
            if rows is not None and columns is not None:
                net.set_submodule(name, ProductPool(rows, columns))
