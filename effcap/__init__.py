"""EffCap: image captioning in Keras 3, with an EfficientNet encoder and a GPT-2 decoder.

    import effcap
    captioner = effcap.Captioner.from_preset("flickr8k-lite0")
    captioner.generate(["dog.jpg", "beach.jpg"])

Names are imported on first use, so `import effcap` alone is fast. It is enough to load a `.keras`
file with `keras.saving.load_model`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from effcap.utils.lazy import lazy_names
from effcap.utils.registration import register_lazily
from effcap.version import __version__

if TYPE_CHECKING:
    from effcap.attention.photo_attention import PhotoAttention, save_attention
    from effcap.backbones.backbone import Backbone
    from effcap.caption import Caption, CaptionedPhotos, PhotoCaptions, TokenDetail
    from effcap.captioner import Captioner
    from effcap.config import list_variants
    from effcap.conversion.compiled_preset import load_compiled
    from effcap.decoders.bert import BERT
    from effcap.decoders.gpt2 import GPT2
    from effcap.encoders.image import ImageEncoder
    from effcap.encoders.modalities import ModalityEncoder
    from effcap.encoders.regions import RegionEncoder
    from effcap.engines.compiled_captioner import CompiledCaptioner
    from effcap.exports.exported_captioner import export_captioner
    from effcap.images import UnreadablePhoto, load_photo
    from effcap.losses import CaptionLoss
    from effcap.presets import list_presets
    from effcap.samplers import Beam, Greedy, Nucleus
    from effcap.tokenizers import Tokenizer

_here = Path(__file__).resolve().parent
if not (_here / "samplers").is_dir():
    # In a source checkout, samplers/, tools/, ... lie beside effcap/; once installed, inside it.
    __path__.append(str(_here.parent))

_MODULES = {
    "Backbone": ".backbones.backbone",
    "PhotoAttention": ".attention.photo_attention",
    "save_attention": ".attention.photo_attention",
    "ModalityEncoder": ".encoders.modalities",
    "Caption": ".caption",
    "TokenDetail": ".caption",
    "CaptionedPhotos": ".caption",
    "PhotoCaptions": ".caption",
    "Captioner": ".captioner",
    "CompiledCaptioner": ".engines.compiled_captioner",
    "load_compiled": ".conversion.compiled_preset",
    "export_captioner": ".exports.exported_captioner",
    "ImageEncoder": ".encoders.image",
    "BERT": ".decoders.bert",
    "GPT2": ".decoders.gpt2",
    "CaptionLoss": ".losses",
    "UnreadablePhoto": ".images",
    "load_photo": ".images",
    "list_presets": ".presets",
    "RegionEncoder": ".encoders.regions",
    "Beam": ".samplers",
    "Greedy": ".samplers",
    "Nucleus": ".samplers",
    "Tokenizer": ".tokenizers",
    "list_variants": ".config",
}
__all__ = ["__version__", *_MODULES]
__getattr__, __dir__ = lazy_names(__name__, _MODULES)

# Modules of the classes that `.keras` files name.
_SERIALIZABLE = {
    "AdvantageLoss": ".losses",
    "AttentionPool": ".backbones.clip_resnet",
    "Captioner": ".captioner",
    "CaptionLoss": ".losses",
    "CaptionOptimizer": ".optimizers",
    "SwinTransformer": ".backbones.swin",
    "ClassAndPositions": ".backbones.vit",
    "ViTBlock": ".backbones.vit",
    "LinearDecay": ".optimizers",
    "NPairLoss": ".npair",
    "TokenCrossEntropy": ".metrics.token_cross_entropy",
}
register_lazily(__name__, _SERIALIZABLE)
