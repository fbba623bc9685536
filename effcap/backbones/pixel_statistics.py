"""Mean and standard deviation of the channels of training images, for pixels 0..1."""

from __future__ import annotations

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STDDEV = (0.229, 0.224, 0.225)
# Those of CLIP's training images, which BLIP has too.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STDDEV = (0.26862954, 0.26130258, 0.27577711)
# ViT's for both.
HALF = (0.5, 0.5, 0.5)
