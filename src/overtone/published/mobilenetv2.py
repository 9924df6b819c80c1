"""MobileNetV2 as reproduced by d-li14: figures and files of the README of d-li14/mobilenetv2.pytorch.

The architecture is that of Sandler et al. 2018, arXiv:1801.04381. Licence: Apache-2.0.
"""

from overtone.published.row import Counting, Published, System

SYSTEM = System(
    family="mobilenetv2",
    last_digits={"params_m": 1_000, "macs_m": 10_000},
    counting=Counting(
        rule="batch_norm_weights",
        what="the batch norms' weights, one each",
        source="torchsummaryX; the author's counter by issue 4 of d-li14/HBONet",
    ),
)

# A row is a record of a few lines, not a column of arguments.
# fmt: off
ROWS: tuple[Published, ...] = (
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
)
# fmt: on
