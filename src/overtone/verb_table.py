"""The verbs of the command line: options, function, summary and examples of each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Verb:
    """One verb: `options` names its dataclass in `overtone.options`, `function` the function that takes an instance."""

    options: str
    function: str
    summary: str
    examples: tuple[str, ...]
    notes: str = ""


VERBS = {
    "models": Verb(
        options="Models",
        function="overtone.verbs.models:models",
        summary="List architectures with their size, cost and published accuracy.",
        examples=("overtone models", "overtone models 'hbonet_*'", "overtone models resnet18 --timm --json"),
    ),
    "train": Verb(
        options="Training",
        function="overtone.verbs.train:train",
        summary="Train a network on your images, by a recipe.",
        examples=(
            "overtone train photos",
            "overtone train photos --model.name hornet_tiny_7x7 --optim.lr 0.02 --run.out runs/a",
            "overtone train photos --model.weights hbonet_x100.dli14_in1k",
            "overtone train finetune photos --model.weights runs/a --run.out runs/b",
            "overtone train multilabel labels.csv",
            "overtone train scratch --help",
        ),
    ),
    "tune-lr": Verb(
        options="Training",
        function="overtone.verbs.tune_lr:tune_lr",
        summary="Find the learning rate at which a recipe's loss falls fastest.",
        examples=(
            "overtone tune-lr photos",
            "overtone tune-lr finetune photos --model.weights hbonet_x100.dli14_in1k --run.out runs/lr",
        ),
        notes=(
            "The words are those of overtone train. It takes --run.max-steps steps (200) at rates from a thousandth of "
            "--optim.lr to a hundred times it, and writes tune-lr.png into --run.out; nothing else is kept."
        ),
    ),
    "launch slurm": Verb(
        options="LaunchSlurm",
        function="overtone.verbs.launch:launch_slurm",
        summary="Train or predict on a Slurm cluster: write the job and submit it.",
        examples=(
            "overtone launch slurm hornet_tiny_7x7_in1k imagenet --nodes 4 --gpus 8 --run.out runs/hornet",
            "overtone launch slurm scratch photos --gpus 1 --partition short --time 2:00:00 --dry-run",
            "overtone launch slurm scratch photos --env WANDB_MODE=offline --sbatch-option exclusive",
            "overtone launch slurm predict runs/a shards --parts predictions --nodes 4 --gpus 8",
        ),
        notes="Options with a dot, such as --optim.lr, are the training's: overtone train RECIPE --help shows them.",
    ),
    "runs": Verb(
        options="Runs",
        function="overtone.verbs.runs:runs",
        summary="List runs: state, recipe, best score, progress.",
        examples=("overtone runs", "overtone runs experiments --json"),
    ),
    "compare": Verb(
        options="Compare",
        function="overtone.verbs.compare:compare",
        summary="Compare runs: recipes, results and curves.",
        examples=("overtone compare runs/a runs/b", "overtone compare runs/a runs/b runs/c --out abc.png --json"),
    ),
    "report": Verb(
        options="Report",
        function="overtone.verbs.report:report",
        summary="Write a report as one HTML file.",
        examples=(
            "overtone report runs/a",
            "overtone report runs/a --data.root photos --calibrate --out a.html",
            "overtone report explorer --out explorer.html",
            "overtone report explorer --runs runs --benchmarks speed --out explorer.html",
        ),
    ),
    "evaluate": Verb(
        options="Evaluate",
        function="overtone.verbs.evaluate:evaluate",
        summary="Evaluate a network on labelled images.",
        examples=(
            "overtone evaluate runs/a photos",
            "overtone evaluate runs/a photos --data.split all --out report",
            "overtone evaluate runs/tagged labels.csv",
            "overtone evaluate mobilenetv2_x100.dli14_in1k imagenet/val",
            "overtone evaluate some.pth imagenet/val --json",
            "overtone evaluate runs/a photos --runtime onnx",
        ),
    ),
    "predict": Verb(
        options="Predict",
        function="overtone.verbs.predict:predict",
        summary="Predict the classes or labels of images.",
        examples=(
            "overtone predict runs/a cat.jpg",
            "overtone predict hornet_tiny_gf.rao_in1k cat.jpg holiday/ --top-k 3",
            "overtone predict checkpoint.pth.tar cat.jpg --ema",
            "overtone predict runs/a holiday/ --json > predictions.json",
        ),
    ),
    "explain": Verb(
        options="Explain",
        function="overtone.verbs.explain:explain",
        summary="Show where a network looks: heat maps over images.",
        examples=(
            "overtone explain runs/a cat.jpg --out heat",
            "overtone explain runs/a holiday/ --out heat --label cat dog",
            "overtone explain hornet_tiny_gf.rao_in1k cat.jpg --out heat --top-k 3",
        ),
    ),
    "serve": Verb(
        options="Serve",
        function="overtone.verbs.serve:serve",
        summary="Serve networks over HTTP, with a page to try them.",
        examples=(
            "overtone serve runs/a",
            "overtone serve hbonet_x100.dli14_in1k runs/a --runtime onnx --port 9000",
            "overtone serve exports/small --host 0.0.0.0 --token SECRET",
        ),
    ),
    "export": Verb(
        options="Export",
        function="overtone.verbs.export:export",
        summary="Export a network for ONNX Runtime, OpenVINO, ExecuTorch or PyTorch.",
        examples=(
            "overtone export runs/a --to onnx",
            "overtone export hbonet_x100.dli14_in1k --to openvino --precision bfloat16 --with-preprocessing",
            "overtone export runs/a --to onnx --precision int8 --calibration photos --out exports/small",
            "overtone export runs/a --to triton --out repository",
            "overtone export runs/a --to auto",
        ),
    ),
    "trust": Verb(
        options="Trust",
        function="overtone.verbs.trust:trust",
        summary="Trust an export that came from elsewhere.",
        examples=("overtone trust exports/received",),
        notes="Files of torch, aoti and executorch can run code when they are opened. Those that overtone export "
        "wrote on this machine are trusted; any others need this verb. Files of onnx and openvino are data.",
    ),
    "tune": Verb(
        options="Tune",
        function="overtone.verbs.tune:tune",
        summary="Find the fastest accurate runtime and precision on this machine.",
        examples=(
            "overtone tune runs/a",
            "overtone tune runs/a --data.root photos --calibration photos --runtimes onnx openvino",
        ),
    ),
    "benchmark": Verb(
        options="Benchmark",
        function="overtone.verbs.benchmark:benchmark",
        summary="Measure latency, throughput and memory on this machine.",
        examples=(
            "overtone benchmark hbonet_x100 --runtime all --precision all",
            "overtone benchmark mobilenetv2_x100 hbonet_x100 --batch 1,16 --against timm:mobilenetv2_100 --out speed",
            "overtone benchmark harm_resnet50 --train --batch 8 --threads 2",
            "overtone benchmark --gpu-suite --out speed",
        ),
    ),
    "reproduce": Verb(
        options="Reproduce",
        function="overtone.verbs.reproduce:reproduce",
        summary="Check the networks against the published tables.",
        examples=(
            "overtone reproduce",
            "overtone reproduce --only 'hbonet*' --json",
            "overtone reproduce --weights-dir weights --data.root imagenet/val --out reproduced",
        ),
    ),
    "weights list": Verb(
        options="WeightsList",
        function="overtone.verbs.weights:list_weights",
        summary="List the published weights.",
        examples=("overtone weights list", "overtone weights list 'hornet_*' --json"),
    ),
    "weights fetch": Verb(
        options="WeightsFetch",
        function="overtone.verbs.weights:fetch_weights",
        summary="Download published weights and verify them.",
        examples=("overtone weights fetch hbonet_x100.dli14_in1k", "overtone weights fetch 'mobilenetv2_*'"),
    ),
    "weights verify": Verb(
        options="WeightsVerify",
        function="overtone.verbs.weights:verify_weights",
        summary="Verify files of weights.",
        examples=(
            "overtone weights verify hbonet_1_0.pth runs/a/best.safetensors",
            "overtone weights verify 'hbonet_*' --weights-dir weights",
        ),
    ),
    "weights convert": Verb(
        options="WeightsConvert",
        function="overtone.verbs.weights_convert:convert_weights",
        summary="Convert weights, to safetensors or back.",
        examples=(
            "overtone weights convert hbonet_1_0.pth --out hbonet_x100.safetensors",
            "overtone weights convert hornet_tiny_7x7.rao_in1k --out weights/hornet_tiny_7x7.rao_in1k.safetensors",
            "overtone weights convert hbonet_x100.safetensors --to published --out hbonet_1_0.pth",
        ),
    ),
    "weights inspect": Verb(
        options="WeightsInspect",
        function="overtone.verbs.weights:inspect_weights",
        summary="Describe a file of weights.",
        examples=("overtone weights inspect some.pth", "overtone weights inspect runs/a/best.safetensors --json"),
    ),
    "data prepare-imagenet": Verb(
        options="PrepareImageNet",
        function="overtone.verbs.prepare_imagenet:prepare_imagenet",
        summary="Sort ImageNet's archives or flat folders into class folders.",
        examples=(
            "overtone data prepare-imagenet ILSVRC2012_img_val.tar --out imagenet/val --labels LOC_val_solution.csv",
            "overtone data prepare-imagenet ILSVRC2012_img_train.tar --out imagenet/train",
            "overtone data prepare-imagenet flat/ --out imagenet/val --how link",
        ),
    ),
    "data pack": Verb(
        options="DataPack",
        function="overtone.verbs.data_pack:data_pack",
        summary="Write tar shards from images.",
        examples=(
            "overtone data pack photos --out shards",
            "overtone data pack imagenet --out shards --max-side 256 --quality 92",
        ),
    ),
    "data verify": Verb(
        options="DataVerify",
        function="overtone.verbs.data_verify:data_verify",
        summary="Check tar shards.",
        examples=("overtone data verify shards",),
    ),
    "data info": Verb(
        options="DataInfo",
        function="overtone.verbs.data_info:data_info",
        summary="Describe images: labels, sizes, what is broken.",
        examples=("overtone data info photos", "overtone data info shards --out report --json"),
    ),
    "demo": Verb(
        options="Demo",
        function="overtone.verbs.demo:demo",
        summary="Train, evaluate, predict and export on handwritten digits, in about three minutes.",
        examples=("overtone demo", "overtone demo --out /tmp/demo --overwrite"),
    ),
}

GROUPS = frozenset(name.partition(" ")[0] for name in VERBS if " " in name)
