"""Features of a backbone for another library: a logistic regression of scikit-learn on frozen features.

Environment variables choose other settings: `PHOTOS` a folder of class folders (default: shapes that are drawn here)
and `MODEL` whatever `overtone.load` takes: published weights, a run folder, a file, `hf-hub:owner/name`.
"""

# %% Settings
import os
from pathlib import Path

import numpy as np
import torch
from shapes import draw_folder
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from torchvision.datasets import ImageFolder

import overtone

photos = Path(os.environ["PHOTOS"]) if "PHOTOS" in os.environ else draw_folder(Path("shapes"))
spec = os.environ.get("MODEL", "hbonet_x100.dli14_in1k")

# %% The preprocessing of the weights is a transform for any dataset of Pillow's images.
transform = overtone.load(spec).transform
images = ImageFolder(str(photos), transform)

# %% Without a classifier a network returns pooled features (B, C).
backbone = overtone.create_model(spec, pretrained=True, num_classes=0).eval()
with torch.inference_mode():
    parts = [backbone(inputs).numpy() for inputs, _ in torch.utils.data.DataLoader(images, batch_size=32)]
features, targets = np.concatenate(parts), np.array(images.targets)
print(f"{len(features)} images, {features.shape[1]} features each")

# %% Any estimator of scikit-learn takes them.
scores = cross_val_score(LogisticRegression(max_iter=2000), features, targets, cv=3)
print(f"accuracy {100 * scores.mean():.1f} % in three folds")
