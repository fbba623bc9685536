"""EffCap: any EfficientNet sees, a GPT-2 with cross-attention writes the caption.

    import effcap
    captioner = effcap.Captioner.from_preset("flickr8k-lite0")
    captioner.generate(["dog.jpg", "beach.jpg"])

Names are imported when first used, so `import effcap` itself takes no time.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from effcap.lazy import lazy_names

if TYPE_CHECKING:
    from effcap.backbone import Backbone
    from effcap.branch_encoder import BranchEncoder
    from effcap.caption import Caption
    from effcap.captioner import Captioner
    from effcap.encoder import ImageEncoder
    from effcap.gpt2 import GPT2
    from effcap.loss import CaptionLoss
    from effcap.photos import UnreadablePhoto, load_photo
    from effcap.presets import list_presets
    from effcap.region_encoder import RegionEncoder
    from effcap.samplers import Beam, Greedy, Nucleus
    from effcap.tools.tokenizer import Tokenizer
    from effcap.variants import list_variants

__version__ = "0.1.0"

_here = Path(__file__).resolve().parent
if not (_here / "samplers").is_dir():
    # A source checkout keeps samplers/, tools/, ... beside effcap/; an installed package inside it.
    __path__.append(str(_here.parent))

_MODULES = {
    "Backbone": ".backbone",
    "BranchEncoder": ".branch_encoder",
    "Caption": ".caption",
    "Captioner": ".captioner",
    "ImageEncoder": ".encoder",
    "GPT2": ".gpt2",
    "CaptionLoss": ".loss",
    "UnreadablePhoto": ".photos",
    "load_photo": ".photos",
    "list_presets": ".presets",
    "RegionEncoder": ".region_encoder",
    "Beam": ".samplers",
    "Greedy": ".samplers",
    "Nucleus": ".samplers",
    "Tokenizer": ".tools.tokenizer",
    "list_variants": ".variants",
}
__all__ = ["__version__", *_MODULES]
__getattr__, __dir__ = lazy_names(__name__, _MODULES)
