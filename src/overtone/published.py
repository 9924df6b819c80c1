"""Every published checkpoint and figure of the four systems, as data: the one place where these numbers live.

Rows without addresses were published without weights. Parameters are in millions, multiply-adds (which the papers call
FLOPs) in millions, counting convolutions and linears for one image at `resolution`; accuracies are percentages on the
ImageNet-1K validation set, single centre crop. Standard library only: the models and the zoo both read this file.

Sources, one per family:
  mobilenetv2  README of d-li14/mobilenetv2.pytorch (reproduction of Sandler et al. 2018, arXiv:1801.04381), Apache-2.0
  hbonet       README of d-li14/HBONet and tables 2, 5, 6 of Li, Zhou, Yao, ICCV 2019, arXiv:1908.03888, Apache-2.0
  harmonic     README of matej-ulicny/harmonic-networks and Ulicny, Krylov, Dahyot, arXiv:2001.06570, BSD-3-Clause
  hornet       README of raoyongming/HorNet and Rao et al., NeurIPS 2022, arXiv:2207.14284, MIT
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class TestTimePooling:
    """A figure measured on larger images with the classifier at every position of a 7x7 average-pooled map."""

    __test__ = False  # the name begins with "Test": not for pytest

    resolution: int
    top1: float
    top5: float
    crop_fraction: float = 1.0


@dataclass(frozen=True)
class Published:
    r"""One published row.

    Attributes:
        family: `mobilenetv2`, `hbonet`, `harmonic` or `hornet`.
        architecture: our name of the network; `build` holds the arguments that define it in the family's terms.
        tag: what follows the dot in `architecture.tag`; the resolution stands in it where it is not 224.
        resolution: pixels, the side of the square input at evaluation.
        num_classes: outputs of the classifier of the published file.
        urls: addresses of the file in the order to try; empty when no weights were published.
        git_blob_sha1: sha1 of `"blob <length>\0" + bytes`; what proves the file, as do
        sha256 and sha256_prefix: of the bytes.
        recipe: the name of the training settings that gave it.
        correction: what is wrong with the published figure, in words, where something is.
    """

    family: str
    architecture: str
    tag: str
    build: Mapping[str, Any]
    resolution: int
    license: str
    layout: str | None = None
    name: str | None = None
    params_m: float | None = None
    macs_m: float | None = None
    top1: float | None = None
    top5: float | None = None
    num_classes: int = 1000
    pretraining: str | None = None
    test_time_pooling: TestTimePooling | None = None
    file: str | None = None
    urls: tuple[str, ...] = ()
    git_blob_sha1: str | None = None
    sha256_prefix: str | None = None
    sha256: str | None = None
    size_bytes: int | None = None
    recipe: str | None = None
    note: str | None = None
    correction: str | None = None
    interpolation: str = field(default="bilinear")

    def __post_init__(self) -> None:
        """Make `build` read-only: a row is a record."""
        object.__setattr__(self, "build", MappingProxyType(dict(self.build)))

    @property
    def full_name(self) -> str:
        """`architecture.tag`, the name that the resolver and timm know."""
        return f"{self.architecture}.{self.tag}"

    @property
    def resize(self) -> str:
        """`shorter` side to the size (a centre crop follows), or `squash`: HorNet from 384 pixels up."""
        return "squash" if self.family == "hornet" and self.resolution >= 384 else "shorter"

    @property
    def crop_fraction(self) -> float:
        """Share of the resized shorter side that the centre crop keeps."""
        return 1.0 if self.resize == "squash" else 0.875


# A row is a record of a few lines, not a column of arguments.
# fmt: off
PUBLISHED: tuple[Published, ...] = (
    Published(family="mobilenetv2", architecture="mobilenetv2_x100", tag="dli14_strong_in1k",
        build={"width_mult": 1.0, "divisor": 8}, resolution=224, license="Apache-2.0", layout="bare state dict",
        params_m=3.504, macs_m=300.79, top1=72.834, top5=91.06, file="mobilenetv2-c5e733a8.pth",
        urls=("https://raw.githubusercontent.com/d-li14/mobilenetv2.pytorch/master/pretrained/mobilenetv2-c5e733a8.pth",),
        git_blob_sha1="328582ba4afd90b6d910cda251d9d9e411b60c39", sha256_prefix="c5e733a8",
        recipe="mobilenetv2_strong",
        note="batch 1024 on 8 GPUs, lr 0.4, 250 epochs, dropout 0.2 before the classifier, no weight decay on biases and BN, lr ramps 0.1 to 0.4 over 5 epochs"),
    Published(family="mobilenetv2", architecture="mobilenetv2_x100", tag="dli14_in1k",
        build={"width_mult": 1.0, "divisor": 8}, resolution=224, license="Apache-2.0", layout="bare state dict",
        params_m=3.504, macs_m=300.79, top1=72.192, top5=90.534, file="mobilenetv2_1.0-0c6065bc.pth",
        urls=("https://raw.githubusercontent.com/d-li14/mobilenetv2.pytorch/master/pretrained/mobilenetv2_1.0-0c6065bc.pth",),
        git_blob_sha1="0a66ce95c46d5047a0fc003c0c5a8205875e1b8b", sha256_prefix="0c6065bc", recipe="mobilenetv2"),
    Published(family="mobilenetv2", architecture="mobilenetv2_x075", tag="dli14_in1k",
        build={"width_mult": 0.75, "divisor": 8}, resolution=224, license="Apache-2.0", layout="bare state dict",
        params_m=2.636, macs_m=209.08, top1=69.952, top5=88.986, file="mobilenetv2_0.75-dace9791.pth",
        urls=("https://raw.githubusercontent.com/d-li14/mobilenetv2.pytorch/master/pretrained/mobilenetv2_0.75-dace9791.pth",),
        git_blob_sha1="cdeec72e379dd97de9f2c6da9804bcb2b1acc83d", sha256_prefix="dace9791", recipe="mobilenetv2"),
    Published(family="mobilenetv2", architecture="mobilenetv2_x050", tag="dli14_in1k",
        build={"width_mult": 0.5, "divisor": 8}, resolution=224, license="Apache-2.0", layout="bare state dict",
        params_m=1.968, macs_m=97.14, top1=64.592, top5=85.392, file="mobilenetv2_0.5-eaa6f9ad.pth",
        urls=("https://raw.githubusercontent.com/d-li14/mobilenetv2.pytorch/master/pretrained/mobilenetv2_0.5-eaa6f9ad.pth",),
        git_blob_sha1="ccd6f9174d801e775e3423dd82af6fbc4ee9456c", sha256_prefix="eaa6f9ad", recipe="mobilenetv2"),
    Published(family="mobilenetv2", architecture="mobilenetv2_x035", tag="dli14_in1k",
        build={"width_mult": 0.35, "divisor": 8}, resolution=224, license="Apache-2.0", layout="bare state dict",
        params_m=1.677, macs_m=59.29, top1=60.092, top5=82.172, file="mobilenetv2_0.35-b2e15951.pth",
        urls=("https://raw.githubusercontent.com/d-li14/mobilenetv2.pytorch/master/pretrained/mobilenetv2_0.35-b2e15951.pth",),
        git_blob_sha1="6e99454d05c8600f241f620557201ce9bd28a3a8", sha256_prefix="b2e15951", recipe="mobilenetv2"),
    Published(family="mobilenetv2", architecture="mobilenetv2_x025", tag="dli14_in1k",
        build={"width_mult": 0.25, "divisor": 8}, resolution=224, license="Apache-2.0", layout="bare state dict",
        params_m=1.519, macs_m=37.21, top1=52.352, top5=75.932, file="mobilenetv2_0.25-b61d2159.pth",
        urls=("https://raw.githubusercontent.com/d-li14/mobilenetv2.pytorch/master/pretrained/mobilenetv2_0.25-b61d2159.pth",),
        git_blob_sha1="bf82bc72fc702f6dc491343b4991c1ff6d39b208", sha256_prefix="b61d2159", recipe="mobilenetv2"),
    Published(family="mobilenetv2", architecture="mobilenetv2_x010", tag="dli14_in1k",
        build={"width_mult": 0.1, "divisor": 4}, resolution=224, license="Apache-2.0", layout="bare state dict",
        params_m=1.356, macs_m=12.92, top1=34.896, top5=56.564, file="mobilenetv2_0.1-7d1d638a.pth",
        urls=("https://raw.githubusercontent.com/d-li14/mobilenetv2.pytorch/master/pretrained/mobilenetv2_0.1-7d1d638a.pth",),
        git_blob_sha1="2d4bcb67deece9b9c7a01adb040dd28e3f53eb9a", sha256_prefix="7d1d638a", recipe="mobilenetv2"),
    Published(family="mobilenetv2", architecture="mobilenetv2_x100", tag="dli14_in1k_r192",
        build={"width_mult": 1.0, "divisor": 8}, resolution=192, license="Apache-2.0", layout="bare state dict",
        params_m=3.504, macs_m=221.33, top1=71.076, top5=89.76, file="mobilenetv2_192x192-e423d99e.pth",
        urls=("https://raw.githubusercontent.com/d-li14/mobilenetv2.pytorch/master/pretrained/mobilenetv2_192x192-e423d99e.pth",),
        git_blob_sha1="9a585f75d34131da02aa8cbb68bcc8962607b955", sha256_prefix="e423d99e", recipe="mobilenetv2"),
    Published(family="mobilenetv2", architecture="mobilenetv2_x100", tag="dli14_in1k_r160",
        build={"width_mult": 1.0, "divisor": 8}, resolution=160, license="Apache-2.0", layout="bare state dict",
        params_m=3.504, macs_m=154.1, top1=69.504, top5=88.848, file="mobilenetv2_160x160-64dc7fa1.pth",
        urls=("https://raw.githubusercontent.com/d-li14/mobilenetv2.pytorch/master/pretrained/mobilenetv2_160x160-64dc7fa1.pth",),
        git_blob_sha1="dadc7d20135ba9adf391c0273bd5d69c8f531c82", sha256_prefix="64dc7fa1", recipe="mobilenetv2"),
    Published(family="mobilenetv2", architecture="mobilenetv2_x100", tag="dli14_in1k_r128",
        build={"width_mult": 1.0, "divisor": 8}, resolution=128, license="Apache-2.0", layout="bare state dict",
        params_m=3.504, macs_m=99.09, top1=66.74, top5=86.952, file="mobilenetv2_128x128-fd66a69d.pth",
        urls=("https://raw.githubusercontent.com/d-li14/mobilenetv2.pytorch/master/pretrained/mobilenetv2_128x128-fd66a69d.pth",),
        git_blob_sha1="3389515dd30d953a115e637d2d23f8881d7403af", sha256_prefix="fd66a69d", recipe="mobilenetv2"),
    Published(family="mobilenetv2", architecture="mobilenetv2_x100", tag="dli14_in1k_r96",
        build={"width_mult": 1.0, "divisor": 8}, resolution=96, license="Apache-2.0", layout="bare state dict",
        params_m=3.504, macs_m=56.31, top1=62.696, top5=84.046, file="mobilenetv2_96x96-ff0e83d8.pth",
        urls=("https://raw.githubusercontent.com/d-li14/mobilenetv2.pytorch/master/pretrained/mobilenetv2_96x96-ff0e83d8.pth",),
        git_blob_sha1="908e3fb021b9a2dad578da9072ea1ae556638b07", sha256_prefix="ff0e83d8", recipe="mobilenetv2"),
    Published(family="hbonet", architecture="hbonet_x100", tag="dli14_in1k",
        build={"width_mult": 1.0, "rates": "2x", "divisor": 8}, resolution=224, license="Apache-2.0",
        layout="bare state dict", macs_m=305, top1=73.1, top5=91.0, file="hbonet_1_0.pth",
        urls=("https://raw.githubusercontent.com/d-li14/HBONet/master/pretrained/hbonet_1_0.pth",),
        git_blob_sha1="7414b8c39d9e82b8d4922086c4f99e9ac9e384f6",
        sha256="cfbbac21420a6190fccd97b04ee6bff0dffe9d770b9a3cafb47656e5ab1b5235", size_bytes=18467748,
        recipe="hbonet"),
    Published(family="hbonet", architecture="hbonet_x080", tag="dli14_in1k",
        build={"width_mult": 0.8, "rates": "2x", "divisor": 8}, resolution=224, license="Apache-2.0",
        layout="bare state dict", macs_m=205, top1=71.3, top5=89.7, file="hbonet_0_8.pth",
        urls=("https://raw.githubusercontent.com/d-li14/HBONet/master/pretrained/hbonet_0_8.pth",),
        git_blob_sha1="c46ebaf81af544b59c31497ec22f6b71210e07d4", recipe="hbonet"),
    Published(family="hbonet", architecture="hbonet_x050", tag="dli14_in1k",
        build={"width_mult": 0.5, "rates": "2x", "divisor": 2}, resolution=224, license="Apache-2.0",
        layout="bare state dict", macs_m=96, top1=67.0, top5=86.9, file="hbonet_0_5.pth",
        urls=("https://raw.githubusercontent.com/d-li14/HBONet/master/pretrained/hbonet_0_5.pth",),
        git_blob_sha1="314ef51c531bad4fb76ea8eb0ace01b364a68ac1", recipe="hbonet"),
    Published(family="hbonet", architecture="hbonet_x035", tag="dli14_in1k",
        build={"width_mult": 0.35, "rates": "2x", "divisor": 8}, resolution=224, license="Apache-2.0",
        layout="bare state dict", macs_m=61, top1=62.4, top5=83.7, file="hbonet_0_35.pth",
        urls=("https://raw.githubusercontent.com/d-li14/HBONet/master/pretrained/hbonet_0_35.pth",),
        git_blob_sha1="c9f111a1e9a2b144282472a4ff9cb6f6f3f1e664", recipe="hbonet"),
    Published(family="hbonet", architecture="hbonet_x025", tag="dli14_in1k",
        build={"width_mult": 0.25, "rates": "2x", "divisor": 2}, resolution=224, license="Apache-2.0",
        layout="bare state dict", macs_m=37, top1=57.3, top5=79.8, file="hbonet_0_25.pth",
        urls=("https://raw.githubusercontent.com/d-li14/HBONet/master/pretrained/hbonet_0_25.pth",),
        git_blob_sha1="594ab57232e911dbf8143e31d14a02bcfaee2171", size_bytes=7863957, recipe="hbonet"),
    Published(family="hbonet", architecture="hbonet_x010", tag="dli14_in1k",
        build={"width_mult": 0.1, "rates": "2x", "divisor": 4}, resolution=224, license="Apache-2.0",
        layout="bare state dict", macs_m=14, top1=41.5, top5=65.7, file="hbonet_0_1.pth",
        urls=("https://raw.githubusercontent.com/d-li14/HBONet/master/pretrained/hbonet_0_1.pth",),
        git_blob_sha1="b3d6c5d058e4a42e23bbfe354dfe4e28f945a6a5", recipe="hbonet"),
    Published(family="hbonet", architecture="hbonet_x080", tag="dli14_in1k_r192",
        build={"width_mult": 0.8, "rates": "2x", "divisor": 8}, resolution=192, license="Apache-2.0",
        layout="bare state dict", macs_m=150, top1=70.0, top5=89.2, file="hbonet_0_8_192x192.pth",
        urls=("https://raw.githubusercontent.com/d-li14/HBONet/master/pretrained/hbonet_0_8_192x192.pth",),
        git_blob_sha1="8bbabc116ddfcd4a5084f43d5b37bd5376f4edde", recipe="hbonet"),
    Published(family="hbonet", architecture="hbonet_x080", tag="dli14_in1k_r160",
        build={"width_mult": 0.8, "rates": "2x", "divisor": 8}, resolution=160, license="Apache-2.0",
        layout="bare state dict", macs_m=105, top1=68.3, top5=87.8, file="hbonet_0_8_160x160.pth",
        urls=("https://raw.githubusercontent.com/d-li14/HBONet/master/pretrained/hbonet_0_8_160x160.pth",),
        git_blob_sha1="41c5f1023a3338a87efcb4620ee07135802c9cf2", recipe="hbonet"),
    Published(family="hbonet", architecture="hbonet_x080", tag="dli14_in1k_r128",
        build={"width_mult": 0.8, "rates": "2x", "divisor": 8}, resolution=128, license="Apache-2.0",
        layout="bare state dict", macs_m=68, top1=65.5, top5=85.9, file="hbonet_0_8_128x128.pth",
        urls=("https://raw.githubusercontent.com/d-li14/HBONet/master/pretrained/hbonet_0_8_128x128.pth",),
        git_blob_sha1="40c3724180e00e9f4500a6a5fedb368ea82b55c3", recipe="hbonet"),
    Published(family="hbonet", architecture="hbonet_x080", tag="dli14_in1k_r96",
        build={"width_mult": 0.8, "rates": "2x", "divisor": 8}, resolution=96, license="Apache-2.0",
        layout="bare state dict", macs_m=39, top1=61.4, top5=83.0, file="hbonet_0_8_96x96.pth",
        urls=("https://raw.githubusercontent.com/d-li14/HBONet/master/pretrained/hbonet_0_8_96x96.pth",),
        git_blob_sha1="b145d76e9281b93720a9c18305d04003900844be", recipe="hbonet"),
    Published(family="hbonet", architecture="hbonet_x035", tag="dli14_in1k_r192",
        build={"width_mult": 0.35, "rates": "2x", "divisor": 8}, resolution=192, license="Apache-2.0",
        layout="bare state dict", macs_m=45, top1=60.9, top5=82.6, file="hbonet_0_35_192x192.pth",
        urls=("https://raw.githubusercontent.com/d-li14/HBONet/master/pretrained/hbonet_0_35_192x192.pth",),
        git_blob_sha1="383337af685b2e100bf7928c609f84fc69da1843", recipe="hbonet"),
    Published(family="hbonet", architecture="hbonet_x035", tag="dli14_in1k_r160",
        build={"width_mult": 0.35, "rates": "2x", "divisor": 8}, resolution=160, license="Apache-2.0",
        layout="bare state dict", macs_m=31, top1=58.6, top5=80.7, file="hbonet_0_35_160x160.pth",
        urls=("https://raw.githubusercontent.com/d-li14/HBONet/master/pretrained/hbonet_0_35_160x160.pth",),
        git_blob_sha1="7a640d3859b50f1e2bd30c7169b3de1065485f6d", recipe="hbonet"),
    Published(family="hbonet", architecture="hbonet_x035", tag="dli14_in1k_r128",
        build={"width_mult": 0.35, "rates": "2x", "divisor": 8}, resolution=128, license="Apache-2.0",
        layout="bare state dict", macs_m=21, top1=55.2, top5=78.0, file="hbonet_0_35_128x128.pth",
        urls=("https://raw.githubusercontent.com/d-li14/HBONet/master/pretrained/hbonet_0_35_128x128.pth",),
        git_blob_sha1="3e630e41efe98877465ebbe302ce1fda8b7f5a94", recipe="hbonet"),
    Published(family="hbonet", architecture="hbonet_x035", tag="dli14_in1k_r96",
        build={"width_mult": 0.35, "rates": "2x", "divisor": 8}, resolution=96, license="Apache-2.0",
        layout="bare state dict", macs_m=12, top1=50.3, top5=73.8, file="hbonet_0_35_96x96.pth",
        urls=("https://raw.githubusercontent.com/d-li14/HBONet/master/pretrained/hbonet_0_35_96x96.pth",),
        git_blob_sha1="7573489c50d0e7dcc698d209acab606e07f2cc76", recipe="hbonet"),
    Published(family="hbonet", architecture="hbonet_x050_div8", tag="dli14_in1k",
        build={"width_mult": 0.5, "rates": "2x", "divisor": 8}, resolution=224, license="Apache-2.0",
        layout="bare state dict", macs_m=98, top1=67.7, top5=87.4, file="hbonet_0_5_8_divisible.pth",
        urls=("https://raw.githubusercontent.com/d-li14/HBONet/master/pretrained/variant/hbonet_0_5_8_divisible.pth",),
        git_blob_sha1="0b6d5fa2f7534b952d3b6e8857401be9f8a648e9", recipe="hbonet",
        correction="the published MFLOPs of the two rows of Table 5 are swapped: this one computes to 108.2, the other to 97.7"),
    Published(family="hbonet", architecture="hbonet_x060", tag="dli14_in1k_r192",
        build={"width_mult": 0.6, "rates": "2x", "divisor": 8}, resolution=192, license="Apache-2.0",
        layout="bare state dict", macs_m=108, top1=67.3, top5=87.3, file="hbonet_0_6_192x192.pth",
        urls=("https://raw.githubusercontent.com/d-li14/HBONet/master/pretrained/variant/hbonet_0_6_192x192.pth",),
        git_blob_sha1="8980e46f7e2a3479b98d2ee81f5a7a863397d014", recipe="hbonet",
        correction="the published MFLOPs of the two rows of Table 5 are swapped: this one computes to 97.7"),
    Published(family="hbonet", architecture="hbonet_x025_div8", tag="dli14_in1k",
        build={"width_mult": 0.25, "rates": "2x", "divisor": 8}, resolution=224, license="Apache-2.0",
        layout="bare state dict", macs_m=44, top1=58.3, top5=80.6, file="hbonet_0_25_8_divisible.pth",
        urls=("https://raw.githubusercontent.com/d-li14/HBONet/master/pretrained/variant/hbonet_0_25_8_divisible.pth",),
        git_blob_sha1="21d65af0058a11e626adaeb4d4f5c842ddfe466c", recipe="hbonet"),
    Published(family="hbonet", architecture="hbonet_x025_4x", tag="dli14_in1k",
        build={"width_mult": 0.25, "rates": "4x", "divisor": 8}, resolution=224, license="Apache-2.0",
        layout="bare state dict", macs_m=45, top1=59.3, top5=81.4, file="hbonet_0_25_4x_8_divisible.pth",
        urls=("https://raw.githubusercontent.com/d-li14/HBONet/master/pretrained/variant/hbonet_0_25_4x_8_divisible.pth",),
        git_blob_sha1="3162e5b2d91c07858786619a0d90d5d28f6ecce0", recipe="hbonet"),
    Published(family="hbonet", architecture="hbonet_x025_8x", tag="dli14_in1k",
        build={"width_mult": 0.25, "rates": "8x", "divisor": 8}, resolution=224, license="Apache-2.0",
        layout="bare state dict", macs_m=45, top1=58.2, top5=80.4, file="hbonet_0_25_8x_8_divisible.pth",
        urls=("https://raw.githubusercontent.com/d-li14/HBONet/master/pretrained/variant/hbonet_0_25_8x_8_divisible.pth",),
        git_blob_sha1="ef78dbd1671524bc1751dc2d3d763ccc197e1f21", recipe="hbonet"),
    Published(family="harmonic", architecture="harm0_vgg16_bn", tag="ulicny_in1k",
        build={"net": "vgg16_bn", "root": "plain", "blocks": "plain"}, resolution=224, license="BSD-3-Clause",
        name="VGG16-BN", params_m=138.4, top1=73.67, top5=91.74, recipe="harm_vgg"),
    Published(family="harmonic", architecture="harm_vgg16_bn", tag="ulicny_in1k",
        build={"net": "vgg16_bn", "root": "harmonic", "blocks": "harmonic"}, resolution=224,
        license="BSD-3-Clause", name="Harm-VGG16-BN", params_m=138.4, top1=74.45, top5=91.99, recipe="harm_vgg"),
    Published(family="harmonic", architecture="harm0_resnet50", tag="ulicny_in1k",
        build={"net": "resnet50", "root": "plain", "blocks": "plain", "pool": None}, resolution=224,
        license="BSD-3-Clause", name="ResNet-50 (no pool)", params_m=25.6, top1=76.19, top5=93.02,
        recipe="harm_resnet"),
    Published(family="harmonic", architecture="harm1_resnet50", tag="ulicny_in1k",
        build={"net": "resnet50", "root": "harmonic", "blocks": "plain", "pool": None}, resolution=224,
        license="BSD-3-Clause", name="Harm1-ResNet-50", params_m=25.6, top1=77.03, top5=93.52,
        recipe="harm_resnet"),
    Published(family="harmonic", architecture="harm_resnet50", tag="ulicny_in1k",
        build={"net": "resnet50", "root": "harmonic", "blocks": "harmonic", "pool": None}, resolution=224,
        license="BSD-3-Clause", layout="state dict with every key prefixed 'module.'", name="Harm-ResNet-50",
        params_m=25.6, top1=76.89, top5=93.37, file="harm_resnet50-eec30392.pth",
        urls=("https://github.com/matej-ulicny/harmonic-networks/releases/download/0.1.0/harm_resnet50-eec30392.pth",),
        sha256_prefix="eec30392", recipe="harm_resnet"),
    Published(family="harmonic", architecture="harm_resnet50_avgpool", tag="ulicny_in1k",
        build={"net": "resnet50", "root": "harmonic", "blocks": "harmonic", "pool": "avg"}, resolution=224,
        license="BSD-3-Clause", name="Harm-ResNet-50 (avgpool)", params_m=25.6, top1=76.9, top5=93.47,
        recipe="harm_resnet"),
    Published(family="harmonic", architecture="harm_resnet50_progressive", tag="ulicny_in1k",
        build={"net": "resnet50", "root": "harmonic", "blocks": "harmonic", "pool": "avg", "levels": [None, None, 3, 2]},
        resolution=224, license="BSD-3-Clause", name="Harm-ResNet-50 progressive λ", params_m=19.7, top1=76.88,
        top5=93.39, recipe="harm_resnet"),
    Published(family="harmonic", architecture="harm0_resnet101_maxpool", tag="ulicny_in1k",
        build={"net": "resnet101", "root": "plain", "blocks": "plain", "pool": "max"}, resolution=224,
        license="BSD-3-Clause", name="ResNet-101 (maxpool)", params_m=44.5, top1=77.37, top5=93.56,
        recipe="harm_resnet"),
    Published(family="harmonic", architecture="harm_resnet101", tag="ulicny_in1k",
        build={"net": "resnet101", "root": "harmonic", "blocks": "harmonic", "pool": None}, resolution=224,
        license="BSD-3-Clause", layout="state dict with every key prefixed 'module.'", name="Harm-ResNet-101",
        params_m=44.5, top1=78.52, top5=94.25, file="harm_resnet101-62e185b1.pth",
        urls=("https://github.com/matej-ulicny/harmonic-networks/releases/download/0.1.0/harm_resnet101-62e185b1.pth",),
        sha256_prefix="62e185b1", recipe="harm_resnet"),
    Published(family="harmonic", architecture="harm0_se_resnext101_32x4d", tag="ulicny_in1k",
        build={"net": "se_resnext101_32x4d", "root": "plain", "blocks": "plain"}, resolution=224,
        license="BSD-3-Clause", layout="state dict", name="SE-ResNeXt-101 32x4d", params_m=49.0, top1=80.19,
        top5=95.1, test_time_pooling=TestTimePooling(320, 81.2, 95.81, 1.0),
        file="se_resnext101_32x4d-3250bf17.pth",
        urls=("https://github.com/matej-ulicny/harmonic-networks/releases/download/0.1.0/se_resnext101_32x4d-3250bf17.pth",),
        sha256_prefix="3250bf17"),
    Published(family="harmonic", architecture="harm_se_resnext101_32x4d", tag="ulicny_in1k",
        build={"net": "se_resnext101_32x4d", "root": "harmonic", "blocks": "harmonic"}, resolution=224,
        license="BSD-3-Clause", layout="state dict", name="Harm-SE-ResNeXt-101 32x4d", params_m=49.0, top1=80.45,
        top5=95.21, test_time_pooling=TestTimePooling(320, 81.28, 95.77, 1.0),
        file="harm_se_resnext101_32x4d-e5b7b14d.pth",
        urls=("https://github.com/matej-ulicny/harmonic-networks/releases/download/0.1.0/harm_se_resnext101_32x4d-e5b7b14d.pth",),
        sha256_prefix="e5b7b14d"),
    Published(family="harmonic", architecture="harm_se_resnext101_64x4d", tag="ulicny_in1k",
        build={"net": "se_resnext101_64x4d", "root": "harmonic", "blocks": "harmonic"}, resolution=224,
        license="BSD-3-Clause", layout="state dict", name="Harm-SE-ResNeXt-101 64x4d", params_m=88.2, top1=81.64,
        top5=95.63, test_time_pooling=TestTimePooling(320, 82.66, 96.29, 1.0),
        file="harm_se_resnext101_64x4d-74a0d9f0.pth",
        urls=("https://github.com/matej-ulicny/harmonic-networks/releases/download/0.1.0/harm_se_resnext101_64x4d-74a0d9f0.pth",),
        sha256_prefix="74a0d9f0"),
    Published(family="hornet", architecture="hornet_tiny_7x7", tag="rao_in1k", build={"arch": "hornet_tiny_7x7"},
        resolution=224, license="MIT",
        layout="{'model': state dict}; the third address is OpenMMLab's re-keyed copy (see checkpoints.md)",
        name="HorNet-T (7x7)", params_m=22, macs_m=4000.0, top1=82.8,
        urls=("https://cloud.tsinghua.edu.cn/f/bac9690c72944d19aca1/?dl=1",
        "https://cloud.tsinghua.edu.cn/f/1ca970586c6043709a3f/?dl=1",
        "https://download.openmmlab.com/mmclassification/v0/hornet/hornet-tiny_3rdparty_in1k_20220915-0e8eedff.pth"),
        recipe="hornet_tiny_7x7", interpolation="bicubic"),
    Published(family="hornet", architecture="hornet_tiny_gf", tag="rao_in1k", build={"arch": "hornet_tiny_gf"},
        resolution=224, license="MIT",
        layout="{'model': state dict}; the third address is OpenMMLab's re-keyed copy (see checkpoints.md)",
        name="HorNet-T (GF)", params_m=23, macs_m=3900.0, top1=83.0,
        urls=("https://cloud.tsinghua.edu.cn/f/460e759c82324ea6bfa3/?dl=1",
        "https://cloud.tsinghua.edu.cn/f/511faad0bde94dfcaa54/?dl=1",
        "https://download.openmmlab.com/mmclassification/v0/hornet/hornet-tiny-gf_3rdparty_in1k_20220915-4c35a66b.pth"),
        recipe="hornet_tiny_gf", interpolation="bicubic"),
    Published(family="hornet", architecture="hornet_small_7x7", tag="rao_in1k",
        build={"arch": "hornet_small_7x7"}, resolution=224, license="MIT",
        layout="{'model': state dict}; the third address is OpenMMLab's re-keyed copy (see checkpoints.md)",
        name="HorNet-S (7x7)", params_m=50, macs_m=8800.0, top1=83.8,
        urls=("https://cloud.tsinghua.edu.cn/f/8ef64277da0e469ea857/?dl=1",
        "https://cloud.tsinghua.edu.cn/f/46422799db2941f7b684/?dl=1",
        "https://download.openmmlab.com/mmclassification/v0/hornet/hornet-small_3rdparty_in1k_20220915-5935f60f.pth"),
        recipe="hornet_small_7x7", interpolation="bicubic"),
    Published(family="hornet", architecture="hornet_small_gf", tag="rao_in1k", build={"arch": "hornet_small_gf"},
        resolution=224, license="MIT",
        layout="{'model': state dict}; the third address is OpenMMLab's re-keyed copy (see checkpoints.md)",
        name="HorNet-S (GF)", params_m=50, macs_m=8700.0, top1=84.0,
        urls=("https://cloud.tsinghua.edu.cn/f/959603ca287d4c09ad49/?dl=1",
        "https://cloud.tsinghua.edu.cn/f/8405c984bf084d2ba85a/?dl=1",
        "https://download.openmmlab.com/mmclassification/v0/hornet/hornet-small-gf_3rdparty_in1k_20220915-649ca492.pth"),
        recipe="hornet_small_gf", interpolation="bicubic"),
    Published(family="hornet", architecture="hornet_base_7x7", tag="rao_in1k", build={"arch": "hornet_base_7x7"},
        resolution=224, license="MIT",
        layout="{'model': state dict}; the third address is OpenMMLab's re-keyed copy (see checkpoints.md)",
        name="HorNet-B (7x7)", params_m=87, macs_m=15600.0, top1=84.2,
        urls=("https://cloud.tsinghua.edu.cn/f/13a748487711492e9704/?dl=1",
        "https://cloud.tsinghua.edu.cn/f/5c86cb3d655d4c17a959/?dl=1",
        "https://download.openmmlab.com/mmclassification/v0/hornet/hornet-base_3rdparty_in1k_20220915-a06176bb.pth"),
        recipe="hornet_base_7x7", interpolation="bicubic"),
    Published(family="hornet", architecture="hornet_base_gf", tag="rao_in1k", build={"arch": "hornet_base_gf"},
        resolution=224, license="MIT",
        layout="{'model': state dict}; the third address is OpenMMLab's re-keyed copy (see checkpoints.md)",
        name="HorNet-B (GF)", params_m=88, macs_m=15500.0, top1=84.3,
        urls=("https://cloud.tsinghua.edu.cn/f/c212d1d8a3914b47a5c1/?dl=1",
        "https://cloud.tsinghua.edu.cn/f/6c84935e63b547f383fb/?dl=1",
        "https://download.openmmlab.com/mmclassification/v0/hornet/hornet-base-gf_3rdparty_in1k_20220915-82c06fa7.pth"),
        recipe="hornet_base_gf", interpolation="bicubic"),
    Published(family="hornet", architecture="hornet_large_7x7", tag="rao_in22k",
        build={"arch": "hornet_large_7x7"}, resolution=224, license="MIT",
        layout="{'model': state dict}; OpenMMLab's copy of these three has no head", name="HorNet-L (7x7)",
        params_m=209, macs_m=34800.0, num_classes=10459, pretraining="ImageNet-22K",
        urls=("https://cloud.tsinghua.edu.cn/f/c2fc23caae084a3aa73d/?dl=1",
        "https://cloud.tsinghua.edu.cn/f/a76f7ce114ad4e9c8ffb/?dl=1",
        "https://download.openmmlab.com/mmclassification/v0/hornet/hornet-large_3rdparty_in21k_20220909-9ccef421.pth"),
        recipe="hornet_large_7x7_in22k", interpolation="bicubic"),
    Published(family="hornet", architecture="hornet_large_gf", tag="rao_in22k", build={"arch": "hornet_large_gf"},
        resolution=224, license="MIT",
        layout="{'model': state dict}; OpenMMLab's copy of these three has no head", name="HorNet-L (GF)",
        params_m=211, macs_m=34700.0, num_classes=10459, pretraining="ImageNet-22K",
        urls=("https://cloud.tsinghua.edu.cn/f/8600206ebdfa485f98d0/?dl=1",
        "https://cloud.tsinghua.edu.cn/f/12c99a79e77341e59681/?dl=1",
        "https://download.openmmlab.com/mmclassification/v0/hornet/hornet-large-gf_3rdparty_in21k_20220909-3aea3b61.pth"),
        recipe="hornet_large_gf_in22k", interpolation="bicubic"),
    Published(family="hornet", architecture="hornet_large_gf_img384", tag="rao_in22k",
        build={"arch": "hornet_large_gf_img384"}, resolution=384, license="MIT",
        layout="{'model': state dict}; OpenMMLab's copy of these three has no head", name="HorNet-L (GF)*",
        params_m=216, macs_m=101800.0, num_classes=10459, pretraining="ImageNet-22K",
        urls=("https://cloud.tsinghua.edu.cn/f/eec48d5eca5a48d98fd2/?dl=1",
        "https://cloud.tsinghua.edu.cn/f/9253bd0d50c84ab1b71e/?dl=1",
        "https://download.openmmlab.com/mmclassification/v0/hornet/hornet-large-gf384_3rdparty_in21k_20220909-80894290.pth"),
        recipe="hornet_large_gf_img384_in22k", interpolation="bicubic"),
)
# fmt: on


_BY_NAME: Mapping[str, Published] = {row.full_name: row for row in PUBLISHED}


def find(full_name: str) -> Published | None:
    """The row called `architecture.tag`, or None."""
    return _BY_NAME.get(full_name)


def rows_of(architecture: str) -> tuple[Published, ...]:
    """Every row of one architecture, the one that `architecture` alone stands for first."""
    return tuple(row for row in PUBLISHED if row.architecture == architecture)


def matching(pattern: str) -> tuple[Published, ...]:
    """Rows whose full name, architecture or family matches a shell pattern."""
    return tuple(
        row
        for row in PUBLISHED
        if any(fnmatchcase(name, pattern) for name in (row.full_name, row.architecture, row.family))
    )
