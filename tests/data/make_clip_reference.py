"""Writes the references of test_clip_weights.py: tiny CLIP models with random weights.

    pip install torch==2.14.1 torchvision transformers==5.24.0 open_clip_torch==3.3.0
    python tests/data/make_clip_reference.py

clip_hugging_face.npz: a `CLIPModel` of transformers, with `quick_gelu`.
clip_resnet.npz: open_clip's CLIP with a ModifiedResNet of 1, 2, 1 and 1 blocks.
clip_script.pt, clip_script.npz: open_clip's CLIP with a vision transformer, saved by
    `torch.jit.save` in float16, as OpenAI published its models.

The arrays are
    images: (2, h, w, 3) uint8;
    tokens: (2, S, C), transformers' last hidden state after the post layer norm, or open_clip's
        feature map;
    embedding: (2, E), the projected image vectors, not normalized;
    embedding_gelu: the same of transformers' model with GELU in place of QuickGELU;
    weights/NAME: the state dict, in float16;
    resized: position embeddings for a grid of 6 x 3 instead of 4 x 4, by open_clip, of the
        transformer in clip_script.npz.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, resize_pos_embed
from transformers import CLIPConfig, CLIPModel, CLIPVisionModelWithProjection

FOLDER = Path(__file__).parent
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])
STDDEV = torch.tensor([0.26862954, 0.26130258, 0.27577711])
WIDTH, HEADS, PATCH, SIDE, RESNET_SIDE, EMBEDDING = 32, 4, 8, 32, 64, 24


def preprocess(images: np.ndarray) -> torch.Tensor:
    """Returns pixels (B, 3, h, w) of images (B, h, w, 3) uint8."""
    return ((torch.from_numpy(images) / 255 - MEAN) / STDDEV).permute(0, 3, 1, 2)


def randomize(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Sets random weights that float16 represents, and returns them."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point() or name == "attn_mask":
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            value = 0.5 + noise.abs()
        elif tensor.ndim > 1:
            value = noise * 1.5 / tensor[0].numel() ** 0.5
        elif "norm" in name or "ln" in name or "bn" in name:
            value = 0.3 * noise + name.endswith("weight")
        else:
            value = 0.3 * noise
        tensor.copy_(value.half().float())
    return {
        f"weights/{name}": tensor.half().numpy() if tensor.is_floating_point() else tensor.numpy()
        for name, tensor in model.state_dict().items()
    }


def images(side: int) -> np.ndarray:
    return np.random.default_rng(side).integers(0, 256, (2, side, side, 3), np.uint8)


def hugging_face() -> None:
    config = CLIPConfig(
        text_config={
            "vocab_size": 50,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "max_position_embeddings": 8,
            "bos_token_id": 48,
            "eos_token_id": 49,
        },
        vision_config={
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_hidden_layers": 2,
            "num_attention_heads": HEADS,
            "image_size": SIDE,
            "patch_size": PATCH,
            "hidden_act": "quick_gelu",
            "projection_dim": EMBEDDING,
        },
        projection_dim=EMBEDDING,
    )
    model = CLIPModel(config).eval()
    weights = randomize(model)
    vision = CLIPVisionModelWithProjection(config.vision_config).eval()
    vision.vision_model.load_state_dict(model.vision_model.state_dict())
    vision.visual_projection.load_state_dict(model.visual_projection.state_dict())
    photos = images(SIDE)
    output = vision(pixel_values=preprocess(photos))
    tokens = vision.vision_model.post_layernorm(output.last_hidden_state)
    for layer in vision.vision_model.encoder.layers:
        layer.mlp.activation_fn = torch.nn.GELU()
    np.savez(
        FOLDER / "clip_hugging_face.npz",
        images=photos,
        tokens=tokens.numpy(),
        embedding=output.image_embeds.numpy(),
        embedding_gelu=vision(pixel_values=preprocess(photos)).image_embeds.numpy(),
        **weights,
    )


def open_clip(vision: CLIPVisionCfg) -> tuple[CLIP, dict[str, np.ndarray]]:
    text = CLIPTextCfg(context_length=8, vocab_size=50, width=16, heads=2, layers=1)
    model = CLIP(EMBEDDING, vision, text, quick_gelu=True).eval()
    return model, randomize(model)


def resnet() -> None:
    cfg = CLIPVisionCfg(layers=(1, 2, 1, 1), width=4, image_size=RESNET_SIDE)
    model, weights = open_clip(cfg)
    photos = images(RESNET_SIDE)
    pixels = preprocess(photos)
    x = model.visual.stem(pixels)
    for layer in (model.visual.layer1, model.visual.layer2, model.visual.layer3):
        x = layer(x)
    tokens = model.visual.layer4(x).flatten(2).transpose(1, 2)  # (B,C,h,w) -> (B,hw,C)
    np.savez(
        FOLDER / "clip_resnet.npz",
        images=photos,
        tokens=tokens.numpy(),
        embedding=model.encode_image(pixels).numpy(),
        **weights,
    )


def script() -> None:
    cfg = CLIPVisionCfg(
        layers=2, width=WIDTH, head_width=WIDTH // HEADS, patch_size=PATCH, image_size=SIDE
    )
    model, _ = open_clip(cfg)
    photos = images(SIDE)
    embedding = model.encode_image(preprocess(photos))
    resized = {"visual.positional_embedding": model.visual.positional_embedding.data.clone()}
    model.visual.grid_size = (6, 3)
    resize_pos_embed(resized, model)
    np.savez(
        FOLDER / "clip_script.npz",
        images=photos,
        embedding=embedding.numpy(),
        resized=resized["visual.positional_embedding"].numpy(),
    )
    model.visual.grid_size = (4, 4)
    save_script(torch.jit.script(model.half()), FOLDER / "clip_script.pt")


def save_script(model: torch.jit.ScriptModule, path: Path) -> None:
    """Saves a program without its debug files, which contain paths of the source code."""
    torch.jit.save(model, path)
    reader = torch._C.PyTorchFileReader(str(path))
    records = {name: reader.get_record(name) for name in reader.get_all_records()}
    path.unlink()
    writer = torch._C.PyTorchFileWriter(str(path))
    for name, content in records.items():
        # The writer adds these two itself.
        if not name.endswith((".debug_pkl", "version", "serialization_id")):
            writer.write_record(name, content, len(content))
    writer.write_end_of_file()
    torch.jit.load(path)


if __name__ == "__main__":
    with torch.no_grad():
        hugging_face()
        resnet()
        script()
