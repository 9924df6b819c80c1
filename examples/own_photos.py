"""Your own photos: train, evaluate, predict.

Run it as a script, or cell by cell in an editor that knows `# %%`. Environment variables choose other settings:
`PHOTOS` a folder of class folders (default: shapes that are drawn here), `RUN` the run folder, `EPOCHS`, `SIZE`, and
`WEIGHTS` to start from, such as hbonet_x100.dli14_in1k.
"""

# %% Settings
import os
from pathlib import Path

from shapes import draw_folder

import overtone

photos = Path(os.environ["PHOTOS"]) if "PHOTOS" in os.environ else draw_folder(Path("shapes"))
run = Path(os.environ.get("RUN", "runs/own_photos"))
epochs = int(os.environ.get("EPOCHS", "20"))
weights = os.environ.get("WEIGHTS")

# %% Train. The same call resumes a run that was stopped. A few hundred photos learn better from trained weights.
# Reading images in processes (`workers`) needs `if __name__ == "__main__":` in a script; here the images are few.
if weights:
    summary = overtone.train("finetune", photos, run, model__weights=weights, epochs=epochs, workers=0)
else:
    size = int(os.environ.get("SIZE", "64"))
    summary = overtone.train(
        "scratch", photos, run, model="hbonet_x035", data__preprocess__size=size, epochs=epochs, workers=0
    )
print(f"epoch {summary.best_epoch} of {summary.epochs}: {summary.report.score_name} {summary.report.score:.1f} %")

# %% Evaluate: on the images that the training held out, whatever folder layout they are in.
found = overtone.evaluate(run, photos, workers=0)
print(f"{found.source.origin}: {found.report.score_name} {found.report.score:.1f} % of {found.report.num_used} images")

# %% Predict: paths, Pillow's images, arrays or tensors, one or a list. In a notebook a result shows itself.
network = overtone.load(run)
some = sorted(photos.rglob("*.png"))[:3] or sorted(photos.rglob("*.jpg"))[:3]
for result in network.predict(some, top_k=2):
    print(result.name, result.label, result.to_dict()["predictions"])

# %% One result beside its image (a matplotlib figure)
network.predict(some[0]).plot().savefig(run / "prediction.png")
