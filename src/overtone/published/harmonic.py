"""Harmonic Networks: figures and files of the README of matej-ulicny/harmonic-networks, and of the paper.

Ulicny, Krylov, Dahyot, "Harmonic Convolutional Networks based on Discrete Cosine Transform", arXiv:2001.06570.
Licence: BSD-3-Clause.
"""

from overtone.published.row import Published, System, TestTimePooling

SYSTEM = System(
    family="harmonic",
    last_digits={"params_m": 100_000, "macs_m": 100_000_000},
)

# A row is a record of a few lines, not a column of arguments.
# fmt: off
ROWS: tuple[Published, ...] = (
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
)
# fmt: on
