"""EffCap: any EfficientNet sees, a GPT-2 with cross-attention writes the caption.

    import effcap
    captioner = effcap.Captioner.from_preset("flickr8k-lite0")
    captioner.generate(["dog.jpg", "beach.jpg"])

Names are imported when first used, so `import effcap` itself takes no time.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from effcap.backbone import Backbone
    from effcap.caption import Caption
    from effcap.captioner import Captioner
    from effcap.encoder import ImageEncoder
    from effcap.gpt2 import GPT2
    from effcap.loss import CaptionLoss
    from effcap.photos import UnreadablePhoto, load_photo
    from effcap.presets import list_presets
    from effcap.samplers import Beam, Greedy, Nucleus
    from effcap.tools.tokenizer import Tokenizer
    from effcap.variants import list_variants

__version__ = "0.1.0"

_here = Path(__file__).resolve().parent
if not (_here / "samplers").is_dir():
    # A source checkout keeps samplers/, tools/, ... beside effcap/; an installed package inside it.
    __path__.append(str(_here.parent))

_MODULES = {
    "Backbone": "effcap.backbone",
    "Caption": "effcap.caption",
    "Captioner": "effcap.captioner",
    "ImageEncoder": "effcap.encoder",
    "GPT2": "effcap.gpt2",
    "CaptionLoss": "effcap.loss",
    "UnreadablePhoto": "effcap.photos",
    "load_photo": "effcap.photos",
    "list_presets": "effcap.presets",
    "Beam": "effcap.samplers",
    "Greedy": "effcap.samplers",
    "Nucleus": "effcap.samplers",
    "Tokenizer": "effcap.tools.tokenizer",
    "list_variants": "effcap.variants",
}
__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'effcap' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
