"""Captioning at scale, evaluation, features, shards, reports, weights and the command line.

Names are imported when first used, so `import effcap.tools` imports neither Keras nor TensorFlow.
"""

# ruff: noqa: F401  the names are for type checkers
from __future__ import annotations

from typing import TYPE_CHECKING

from effcap.utils.lazy import lazy_names

if TYPE_CHECKING:
    from effcap.conversion.published_captioner import published_captioner
    from effcap.tools.captioning.photo_metadata import EmbeddedCaptions, XmpSidecars
    from effcap.tools.captioning.photos import caption_folder
    from effcap.tools.captioning.playlists import caption_playlists
    from effcap.tools.captioning.regions import caption_regions
    from effcap.tools.captioning.shards import caption_into_shards, caption_shards
    from effcap.tools.captioning.sidecars import Sidecars
    from effcap.tools.evaluation.evaluate import evaluate
    from effcap.tools.evaluation.playlists import PlaylistReferences, evaluate_playlists
    from effcap.tools.evaluation.references import read_references
    from effcap.tools.evaluation.report import write_report
    from effcap.tools.features.feature_arrays import convert_clipcap, write_feature_arrays
    from effcap.tools.features.photos import write_features
    from effcap.tools.features.playlists import FeatureSources, write_playlist_features
    from effcap.tools.publishing.card_options import CardOptions
    from effcap.tools.publishing.model_card import model_card
    from effcap.tools.publishing.push import push_to_hub
    from effcap.tools.reports.comparison import compare_runs
    from effcap.tools.reports.page import write_page
    from effcap.tools.reports.settings import list_settings
    from effcap.tools.serving.serve_options import ServeOptions
    from effcap.tools.serving.server import serve
    from effcap.tools.shards import index_shards, write_shards
    from effcap.weights.download import download_gpt2
    from effcap.weights.gpt2 import gpt2_hparams, load_gpt2

_MODULES = {
    "CardOptions": ".publishing.card_options",
    "EmbeddedCaptions": ".captioning.photo_metadata",
    "FeatureSources": ".features.playlists",
    "PlaylistReferences": ".evaluation.playlists",
    "ServeOptions": ".serving.serve_options",
    "Sidecars": ".captioning.sidecars",
    "XmpSidecars": ".captioning.photo_metadata",
    "caption_folder": ".captioning.photos",
    "caption_into_shards": ".captioning.shards",
    "caption_playlists": ".captioning.playlists",
    "caption_regions": ".captioning.regions",
    "caption_shards": ".captioning.shards",
    "compare_runs": ".reports.comparison",
    "convert_clipcap": ".features.feature_arrays",
    "download_gpt2": "effcap.weights.download",
    "evaluate": ".evaluation.evaluate",
    "evaluate_playlists": ".evaluation.playlists",
    "gpt2_hparams": "effcap.weights.gpt2",
    "index_shards": ".shards",
    "list_settings": ".reports.settings",
    "load_gpt2": "effcap.weights.gpt2",
    "model_card": ".publishing.model_card",
    "published_captioner": "effcap.conversion.published_captioner",
    "push_to_hub": ".publishing.push",
    "read_references": ".evaluation.references",
    "serve": ".serving.server",
    "write_feature_arrays": ".features.feature_arrays",
    "write_features": ".features.photos",
    "write_page": ".reports.page",
    "write_playlist_features": ".features.playlists",
    "write_report": ".evaluation.report",
    "write_shards": ".shards",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_names(__name__, _MODULES)
