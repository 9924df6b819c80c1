"""Test-time pooling: a classifier applied at every place of a larger image, its answers averaged.

The published 320-pixel column of the harmonic SE-ResNeXts was measured so (`published.TestTimePooling`).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from overtone.errors import OvertoneError

TRAINED_POOL = 7  # side of the last map at 224 pixels and stride 32: what the global pool averaged in training


class TestTimePooling(nn.Module):
    """A network whose linear classifier looks at every `kernel_size` x `kernel_size` window of the last map.

    Each window is averaged, as the global pool did with the whole map of a training image, classified as by a 1x1
    convolution, and the logits of all windows are averaged. On a map no larger than the window it is the network
    itself.

    Args:
        model: a network of timm's contract whose `forward_features` gives (B, C, H, W) and whose classifier is one
            linear layer after average pooling.
        kernel_size: side of the window.

    Raises:
        OvertoneError: a network without such a classifier.
    """

    __test__ = False  # the name begins with "Test": not for pytest

    def __init__(self, model: nn.Module, kernel_size: int = TRAINED_POOL) -> None:
        super().__init__()
        if not isinstance(model.get_classifier(), nn.Linear):  # type: ignore[operator]  # timm's contract
            raise OvertoneError(
                f"{type(model).__name__} does not end in one linear classifier, so test-time pooling is not defined "
                "for it; evaluate it as it is"
            )
        self.model = model
        self.kernel_size = kernel_size

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, 3, H, W)."""
        features = self.model.forward_features(x)  # type: ignore[operator]
        window = tuple(min(self.kernel_size, side) for side in features.shape[-2:])
        pooled = F.avg_pool2d(features, window, stride=1)  # (B, C, H', W')
        classifier = self.model.get_classifier()  # type: ignore[operator]
        return F.linear(pooled.permute(0, 2, 3, 1), classifier.weight, classifier.bias).mean(dim=(1, 2))
