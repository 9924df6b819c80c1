"""A network of timm, fine-tuned briefly and exported for a phone.

Environment variables choose other settings: `PHOTOS` a folder of class folders (default: shapes that are drawn here),
`NETWORK` any of timm's or ours (with a tag such as `.e2400_r224_in1k` its weights are downloaded, without one it starts
from random weights), `EPOCHS`, `SIZE`, and `OUT` the folder for everything that is written.
"""

# %% Settings
import importlib.util
import os
from pathlib import Path

from shapes import draw_folder

import overtone

photos = Path(os.environ["PHOTOS"]) if "PHOTOS" in os.environ else draw_folder(Path("shapes"))
name = os.environ.get("NETWORK", "mobilenetv4_conv_small.e2400_r224_in1k")
out = Path(os.environ.get("OUT", "phone"))
epochs = int(os.environ.get("EPOCHS", "5"))

# %% Fine-tune. Preprocessing and input size come with the weights.
sized = {"data__preprocess__size": int(os.environ["SIZE"])} if "SIZE" in os.environ else {}
recipe = "finetune" if "." in name else "scratch"
summary = overtone.train(recipe, photos, out / "run", model=name, epochs=epochs, workers=0, **sized)
print(f"{summary.report.score_name} {summary.report.score:.1f} % on {summary.report.num_used} held-out images")

# %% Export. A folder appears only when its outputs agree with the network's.
runtimes = ["onnx"] + (["executorch"] if importlib.util.find_spec("executorch") else [])
for runtime in runtimes:
    done = overtone.export(out / "run", runtime, out / runtime, overwrite=True)
    print(f"{done.folder}: {done.about.bytes / 1e6:.1f} MB, largest difference {done.about.parity['largest']:.1e}")

# %% The export, used as any other network. On the phone, run.py in its folder shows what to do before and after it.
image = next(iter(sorted(photos.rglob("*.png")) or sorted(photos.rglob("*.jpg"))))
for runtime in runtimes:
    print(runtime, overtone.load(out / runtime).predict(image).label)
