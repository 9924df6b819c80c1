"""Dense heads over the feature maps of any timm backbone."""
