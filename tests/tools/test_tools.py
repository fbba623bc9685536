"""Tests of effcap.tools as a package: its public names, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from effcap import tools

ROOT = Path(__file__).resolve().parents[2]


def test_every_public_name_can_be_imported():
    assert set(dir(tools)) == {"caption_shards", "download_gpt2", "gpt2_hparams", "load_gpt2"}
    for name in tools.__all__:
        assert callable(getattr(tools, name))
    with pytest.raises(AttributeError, match="no_such_name"):
        tools.no_such_name  # noqa: B018


@pytest.mark.parametrize(
    "code",
    (
        "import effcap.tokenizers.tokenizer",
        "import effcap.weights.torch_file",
        "from effcap.tools import gpt2_hparams",
        "from effcap.tools import download_gpt2",
        "import effcap.weights.gpt2.formats",
        "import effcap.weights.gpt2.assemble, effcap.weights.backbone_weights",
    ),
)
def test_what_needs_no_model_imports_neither_keras_nor_tensorflow(code):
    code += "; import sys; print(sorted({'keras', 'tensorflow'} & set(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
