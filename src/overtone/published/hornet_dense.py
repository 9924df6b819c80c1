"""The published detection and segmentation networks with HorNet: figures, addresses, protocols, and what is doubtful.

Source: the tables and configurations of raoyongming/HorNet (Rao et al., NeurIPS 2022, arXiv:2207.14284), for COCO 2017
(Cascade Mask R-CNN) and ADE20K (UPerNet). Parameters and multiply-adds were recomputed with the original classes and
the counter of mmcv and came out as published to the last printed digit. No hash was published with any file.

"Multiply-adds" count modules: convolution and transposed convolution (one for each, plus one for each output of a
bias), linear, ReLU and pooling (one an element). The synchronised batch norms, the biases of linears, the backbone's
layer norms, GELU, FFT, RoIAlign and everything called as a function count nothing; nor does UPerNet's auxiliary head,
which the parameters include. `overtone reproduce` counts by this rule and comes to `flops` exactly, in every row.

The ablation of necks (HorFPN) has configurations without checkpoints and without accuracies that could be verified:
their parameters and multiply-adds were computed with the original classes.
"""

from overtone.published.dense_row import PublishedDense

_L_LINKS = (
    "From July 2023 to the end of 2025 the published table's link led to an ImageNet checkpoint; today's address is "
    "another, and what it holds was not read."
)
_START = "The address given for the starting weights is an earlier one of the ImageNet table."

# fmt: off
DENSE_ROWS: tuple[PublishedDense, ...] = (
    PublishedDense(
        name="cascade_mask_rcnn_hornet_tiny_7x7", tag="rao_coco", task="detection", dataset="coco2017",
        backbone="hornet_tiny_7x7", params_m=80, params=79_883_634, gflops=730, flops=729_935_230_900,
        flops_input=(3, 1280, 800), schedule="3x",
        urls=("https://cloud.tsinghua.edu.cn/f/19daa3854a6b4c75bf23/?dl=1",),
        earlier_urls=("https://cloud.tsinghua.edu.cn/f/98fe75fe5d544c409852/?dl=1",),
        start_url="https://cloud.tsinghua.edu.cn/f/1ca970586c6043709a3f/?dl=1", start="hornet_tiny_7x7.pth",
        config="cascade_mask_rcnn_hornet_tiny_7x7_3x_coco_in1k", drop_path=0.4, lr=0.0002, layer_decay=0.7,
        box_ap=51.7, mask_ap=44.8,
        doubts=(
            _START,
        ),
    ),
    PublishedDense(
        name="cascade_mask_rcnn_hornet_tiny_gf", tag="rao_coco", task="detection", dataset="coco2017",
        backbone="hornet_tiny_gf", params_m=80, params=80_465_970, gflops=728, flops=728_272_478_900,
        flops_input=(3, 1280, 800), schedule="3x",
        urls=("https://cloud.tsinghua.edu.cn/f/1ca353fb6ac44b54a2d8/?dl=1",),
        earlier_urls=("https://cloud.tsinghua.edu.cn/f/c6cbd11caf4449b49265/?dl=1",),
        start_url="https://cloud.tsinghua.edu.cn/f/511faad0bde94dfcaa54/?dl=1", start="hornet_tiny_gf.pth",
        config="cascade_mask_rcnn_hornet_tiny_gf_3x_coco_in1k", drop_path=0.4, lr=0.0002, layer_decay=0.7,
        filter_sizes=((14, 8), (7, 4)), box_ap=52.4, mask_ap=45.6,
        doubts=(
            _START,
        ),
    ),
    PublishedDense(
        name="cascade_mask_rcnn_hornet_small_7x7", tag="rao_coco", task="detection", dataset="coco2017",
        backbone="hornet_small_7x7", params_m=107, params=106_869_714, gflops=830, flops=829_912_574_900,
        flops_input=(3, 1280, 800), schedule="3x",
        urls=("https://cloud.tsinghua.edu.cn/f/6af0439735dc473f8646/?dl=1",),
        earlier_urls=("https://cloud.tsinghua.edu.cn/f/8da73119497745f39c3f/?dl=1",),
        start_url="https://cloud.tsinghua.edu.cn/f/46422799db2941f7b684/?dl=1", start="hornet_small_7x7.pth",
        config="cascade_mask_rcnn_hornet_small_7x7_3x_coco_in1k", drop_path=0.6, lr=0.0002, layer_decay=0.7,
        box_ap=52.7, mask_ap=45.6,
        doubts=(
            _START,
        ),
    ),
    PublishedDense(
        name="cascade_mask_rcnn_hornet_small_gf", tag="rao_coco", task="detection", dataset="coco2017",
        backbone="hornet_small_gf", params_m=108, params=107_743_218, gflops=827, flops=827_418_446_900,
        flops_input=(3, 1280, 800), schedule="3x",
        urls=("https://cloud.tsinghua.edu.cn/f/fd9a3127b18f404d8e95/?dl=1",),
        earlier_urls=("https://cloud.tsinghua.edu.cn/f/c20b1ee6ed55479ab56d/?dl=1",),
        start_url="https://cloud.tsinghua.edu.cn/f/8405c984bf084d2ba85a/?dl=1", start="hornet_small_gf.pth",
        config="cascade_mask_rcnn_hornet_small_gf_3x_coco_in1k", drop_path=0.6, lr=0.0002, layer_decay=0.7,
        filter_sizes=((14, 8), (7, 4)), box_ap=53.3, mask_ap=46.3,
        doubts=(
            _START,
        ),
    ),
    PublishedDense(
        name="cascade_mask_rcnn_hornet_base_7x7", tag="rao_coco", task="detection", dataset="coco2017",
        backbone="hornet_base_7x7", params_m=144, params=144_465_458, gflops=969, flops=968_820_350_900,
        flops_input=(3, 1280, 800), schedule="3x",
        urls=("https://cloud.tsinghua.edu.cn/f/324de62466a848129e19/?dl=1",),
        earlier_urls=("https://cloud.tsinghua.edu.cn/f/80537e4cbd53465fa0ec/?dl=1",),
        start_url="https://cloud.tsinghua.edu.cn/f/5c86cb3d655d4c17a959/?dl=1", start="hornet_base_7x7.pth",
        config="cascade_mask_rcnn_hornet_base_7x7_3x_coco_in1k", drop_path=0.7, lr=0.0002, layer_decay=0.8,
        box_ap=53.3, mask_ap=46.1,
        doubts=(
            _START,
        ),
    ),
    PublishedDense(
        name="cascade_mask_rcnn_hornet_base_gf", tag="rao_coco", task="detection", dataset="coco2017",
        backbone="hornet_base_gf", params_m=146, params=145_630_130, gflops=965, flops=965_494_846_900,
        flops_input=(3, 1280, 800), schedule="3x",
        urls=("https://cloud.tsinghua.edu.cn/f/97d8587c8a0248fcac19/?dl=1",),
        earlier_urls=("https://cloud.tsinghua.edu.cn/f/d0c0027d31e144aaa260/?dl=1",),
        start_url="https://cloud.tsinghua.edu.cn/f/6c84935e63b547f383fb/?dl=1", start="hornet_base_gf.pth",
        config="cascade_mask_rcnn_hornet_base_gf_3x_coco_in1k", drop_path=0.7, lr=0.0002, layer_decay=0.8,
        filter_sizes=((14, 8), (7, 4)), box_ap=54.0, mask_ap=46.9,
        doubts=(
            _START,
        ),
    ),
    PublishedDense(
        name="cascade_mask_rcnn_hornet_large_7x7", tag="rao_coco", task="detection", dataset="coco2017",
        backbone="hornet_large_7x7", params_m=251, params=251_485_938, gflops=1363, flops=1_363_427_198_900,
        flops_input=(3, 1280, 800), schedule="3x",
        urls=("https://cloud.tsinghua.edu.cn/f/975af666e64840588e3e/?dl=1",),
        earlier_urls=("https://cloud.tsinghua.edu.cn/f/22eb5edba61f461ab7bc/?dl=1",),
        start_url="https://cloud.tsinghua.edu.cn/f/a76f7ce114ad4e9c8ffb/?dl=1", start="hornet_large_7x7_in22k.pth",
        config="cascade_mask_rcnn_hornet_large_7x7_3x_coco_in22k", drop_path=0.7, lr=0.0001, layer_decay=0.7,
        box_ap=55.4, mask_ap=48.0,
        doubts=(
            _START,
            _L_LINKS,
        ),
    ),
    PublishedDense(
        name="cascade_mask_rcnn_hornet_large_gf", tag="rao_coco", task="detection", dataset="coco2017",
        backbone="hornet_large_gf", params_m=259, params=258_750_258, gflops=1358, flops=1_358_438_942_900,
        flops_input=(3, 1280, 800), schedule="3x",
        urls=("https://cloud.tsinghua.edu.cn/f/597f655fe9b84d50bffb/?dl=1",),
        earlier_urls=("https://cloud.tsinghua.edu.cn/f/8e99e2bb4856452ea8cc/?dl=1",),
        start_url="https://cloud.tsinghua.edu.cn/f/9253bd0d50c84ab1b71e/?dl=1", start="hornet_large_gf_in22k.pth",
        config="cascade_mask_rcnn_hornet_large_gf_3x_coco_in22k", drop_path=0.7, lr=0.0001, layer_decay=0.7,
        filter_sizes=((24, 13), (12, 7)), box_ap=56.0, mask_ap=48.6,
        doubts=(
            _START,
            _L_LINKS,
        ),
    ),
    PublishedDense(
        name="upernet_hornet_tiny_7x7", tag="rao_ade20k", task="segmentation", dataset="ade20k",
        backbone="hornet_tiny_7x7", params_m=52, params=52_205_036, gflops=926, flops=925_576_619_008,
        flops_input=(3, 2048, 512), schedule="160k",
        urls=("https://cloud.tsinghua.edu.cn/f/684334b0a7ea436b9a97/?dl=1",),
        earlier_urls=("https://cloud.tsinghua.edu.cn/f/55136f1d57074dcb894e/?dl=1",),
        start_url="https://cloud.tsinghua.edu.cn/f/1ca970586c6043709a3f/?dl=1", start="hornet_tiny_7x7.pth",
        config="upernet_hornet_tiny_7x7_512_160k_ade20k", drop_path=0.4, lr=0.0001, layer_decay=0.9, miou=48.1,
        miou_multi_scale=48.9, crop=512, stride=341, layer_groups_depth=6,
        doubts=(
            _START,
        ),
    ),
    PublishedDense(
        name="upernet_hornet_tiny_gf", tag="rao_ade20k", task="segmentation", dataset="ade20k",
        backbone="hornet_tiny_gf", params_m=55, params=54_626_476, gflops=924, flops=923_873_960_960,
        flops_input=(3, 2048, 512), schedule="160k",
        urls=("https://cloud.tsinghua.edu.cn/f/34725e1401194786bb76/?dl=1",),
        earlier_urls=("https://cloud.tsinghua.edu.cn/f/5e1a6d01cd824f3b95f4/?dl=1",),
        start_url="https://cloud.tsinghua.edu.cn/f/511faad0bde94dfcaa54/?dl=1", start="hornet_tiny_gf.pth",
        config="upernet_hornet_tiny_gf_512_160k_ade20k", drop_path=0.4, lr=0.0001, layer_decay=0.9,
        filter_sizes=((24, 13), (12, 7)), miou=49.2, miou_multi_scale=49.3, crop=512, stride=341,
        layer_groups_depth=6, clip_grad=1.0,
        doubts=(
            _START,
        ),
    ),
    PublishedDense(
        name="upernet_hornet_small_7x7", tag="rao_ade20k", task="segmentation", dataset="ade20k",
        backbone="hornet_small_7x7", params_m=81, params=81_181_772, gflops=1030, flops=1_030_041_396_224,
        flops_input=(3, 2048, 512), schedule="160k",
        urls=("https://cloud.tsinghua.edu.cn/f/0e488e21a88d414da90c/?dl=1",),
        earlier_urls=("https://cloud.tsinghua.edu.cn/f/75aca9a8a67b4fd591ca/?dl=1",),
        start_url="https://cloud.tsinghua.edu.cn/f/46422799db2941f7b684/?dl=1", start="hornet_small_7x7.pth",
        config="upernet_hornet_small_7x7_512_160k_ade20k", drop_path=0.3, lr=0.0001, layer_decay=0.9, miou=49.2,
        miou_multi_scale=49.8, crop=512, stride=341, layer_groups_depth=12,
        doubts=(
            _START,
        ),
    ),
    PublishedDense(
        name="upernet_hornet_small_gf", tag="rao_ade20k", task="segmentation", dataset="ade20k",
        backbone="hornet_small_gf", params_m=85, params=84_813_932, gflops=1027, flops=1_027_487_409_152,
        flops_input=(3, 2048, 512), schedule="160k",
        urls=("https://cloud.tsinghua.edu.cn/f/d37290faa8a34bc091c3/?dl=1",),
        earlier_urls=("https://cloud.tsinghua.edu.cn/f/3e426d1b6f994907bb2c/?dl=1",),
        start_url="https://cloud.tsinghua.edu.cn/f/8405c984bf084d2ba85a/?dl=1", start="hornet_small_gf.pth",
        config="upernet_hornet_small_gf_512_160k_ade20k", drop_path=0.3, lr=0.0001, layer_decay=0.9,
        filter_sizes=((24, 13), (12, 7)), miou=50.0, miou_multi_scale=50.5, crop=512, stride=341,
        layer_groups_depth=12, clip_grad=1.0,
        doubts=(
            _START,
        ),
    ),
    PublishedDense(
        name="upernet_hornet_base_7x7", tag="rao_ade20k", task="segmentation", dataset="ade20k",
        backbone="hornet_base_7x7", params_m=121, params=120_768_172, gflops=1174, flops=1_174_370_935_808,
        flops_input=(3, 2048, 512), schedule="160k",
        urls=("https://cloud.tsinghua.edu.cn/f/98288e9023c2425a880c/?dl=1",),
        earlier_urls=("https://cloud.tsinghua.edu.cn/f/543c70ce127440879374/?dl=1",),
        start_url="https://cloud.tsinghua.edu.cn/f/5c86cb3d655d4c17a959/?dl=1", start="hornet_base_7x7.pth",
        config="upernet_hornet_base_7x7_512_160k_ade20k", drop_path=0.4, lr=0.0001, layer_decay=0.9, miou=50.0,
        miou_multi_scale=50.5, crop=512, stride=341, layer_groups_depth=12,
        doubts=(
            _START,
        ),
    ),
    PublishedDense(
        name="upernet_hornet_base_gf", tag="rao_ade20k", task="segmentation", dataset="ade20k",
        backbone="hornet_base_gf", params_m=126, params=125_611_052, gflops=1171, flops=1_170_965_619_712,
        flops_input=(3, 2048, 512), schedule="160k",
        urls=("https://cloud.tsinghua.edu.cn/f/e50ecead21e4408187b7/?dl=1",),
        earlier_urls=("https://cloud.tsinghua.edu.cn/f/dd1ae599a8b3467d8dba/?dl=1",),
        start_url="https://cloud.tsinghua.edu.cn/f/6c84935e63b547f383fb/?dl=1", start="hornet_base_gf.pth",
        config="upernet_hornet_base_gf_512_160k_ade20k", drop_path=0.5, lr=0.0001, layer_decay=0.9,
        filter_sizes=((24, 13), (12, 7)), miou=50.5, miou_multi_scale=50.9, crop=512, stride=341,
        layer_groups_depth=12, clip_grad=1.0,
        doubts=(
            _START,
            "The published table says 640x640; the configuration, the file name and the multiply-adds say 512: "
            "load and evaluate at 512.",
        ),
    ),
    PublishedDense(
        name="upernet_hornet_large_7x7", tag="rao_ade20k", task="segmentation", dataset="ade20k",
        backbone="hornet_large_7x7", params_m=232, params=231_769_964, gflops=2473, flops=2_472_828_339_200,
        flops_input=(3, 2560, 640), schedule="160k",
        urls=("https://cloud.tsinghua.edu.cn/f/d7a782e07a354f59bf62/?dl=1",),
        earlier_urls=("https://cloud.tsinghua.edu.cn/f/a5180a5fa8c3437a8ffc/?dl=1",),
        start_url="https://cloud.tsinghua.edu.cn/f/a76f7ce114ad4e9c8ffb/?dl=1", start="hornet_large_7x7_in22k.pth",
        config="upernet_hornet_large_7x7_640_160k_ade20k", drop_path=0.4, lr=0.0001, layer_decay=0.8, miou=54.1,
        miou_multi_scale=54.5, crop=640, stride=426, layer_groups_depth=12,
        doubts=(
            _START,
            _L_LINKS,
        ),
    ),
    PublishedDense(
        name="upernet_hornet_large_gf", tag="rao_ade20k", task="segmentation", dataset="ade20k",
        backbone="hornet_large_gf", params_m=239, params=239_034_284, gflops=2465, flops=2_464_847_129_600,
        flops_input=(3, 2560, 640), schedule="160k",
        urls=("https://cloud.tsinghua.edu.cn/f/3dbb38bae1694653a666/?dl=1",),
        earlier_urls=("https://cloud.tsinghua.edu.cn/f/0c18efc723b14b9e841f/?dl=1",),
        start_url="https://cloud.tsinghua.edu.cn/f/9253bd0d50c84ab1b71e/?dl=1", start="hornet_large_gf_in22k.pth",
        config="upernet_hornet_large_gf_640_160k_ade20k", drop_path=0.4, lr=0.0001, layer_decay=0.8,
        filter_sizes=((24, 13), (12, 7)), miou=55.0, miou_multi_scale=55.2, crop=640, stride=426,
        layer_groups_depth=12, clip_grad=0.1,
        doubts=(
            _START,
            _L_LINKS,
            "The start may have been weights fine-tuned at 384 pixels on ImageNet-22K, which fits the stored "
            "filters; the name in the configuration has no 384.",
        ),
    ),
    # the ablation of necks: configurations without checkpoints
    PublishedDense(
        name="mask_rcnn_hornet_small_7x7", tag="rao_coco", task="detection", dataset="coco2017",
        backbone="hornet_small_7x7", params_m=69.034512, params=69_034_512, gflops=351.3, flops_input=(3, 1280, 800),
        schedule="1x", start="hornet_small_7x7.pth", config="fpn_mask_rcnn_hornet_small_7x7_1x",
    ),
    PublishedDense(
        name="mask_rcnn_horfpn_7x7_hornet_small_7x7", tag="rao_coco", task="detection", dataset="coco2017",
        backbone="hornet_small_7x7", params_m=67.672592, params=67_672_592, gflops=322.4, flops_input=(3, 1280, 800),
        schedule="1x", start="hornet_small_7x7.pth", config="horfpn_7x7_mask_rcnn_hornet_small_7x7_1x",
    ),
    PublishedDense(
        name="mask_rcnn_horfpn_gf_hornet_small_7x7", tag="rao_coco", task="detection", dataset="coco2017",
        backbone="hornet_small_7x7", params_m=68.444432, params=68_444_432, gflops=320.9, flops_input=(3, 1280, 800),
        schedule="1x", start="hornet_small_7x7.pth", config="horfpn_gf_mask_rcnn_hornet_small_7x7_1x",
    ),
    PublishedDense(
        name="upernet_gn7x7_hornet_small_7x7", tag="rao_ade20k", task="segmentation", dataset="ade20k",
        backbone="hornet_small_7x7", params_m=74.275404, params=74_275_404, gflops=577.4, flops_input=(3, 2048, 512),
        schedule="160k", start="hornet_small_7x7.pth", config="horfpn_7x7_upernet_hornet_small_7x7_512_160k",
        crop=512, stride=341,
    ),
    PublishedDense(
        name="upernet_gngf_hornet_small_7x7", tag="rao_ade20k", task="segmentation", dataset="ade20k",
        backbone="hornet_small_7x7", params_m=74.661324, params=74_661_324, gflops=575.1, flops_input=(3, 2048, 512),
        schedule="160k", start="hornet_small_7x7.pth", config="horfpn_gf_upernet_hornet_small_7x7_512_160k",
        crop=512, stride=341,
    ),
)
# fmt: on
