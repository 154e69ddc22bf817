"""A small trace built by hand, so that attribution is tested against numbers that nothing else in the package made."""

from __future__ import annotations

import numpy as np
import xarray as xr

from vico_lens.vocabulary.schema import group_name, weights_dims

WORDS = ("<s>", "red", "circle", "and", "blue", "square", "</s>", "<pad>")
PROMPT = "red circle and blue square"
STEPS = (0, 3)


def softmax(logits, keys):
    """Softmax over the last `keys` axes."""
    flat = logits.reshape(*logits.shape[: logits.ndim - keys], -1)
    flat = np.exp(flat - flat.max(-1, keepdims=True))
    return (flat / flat.sum(-1, keepdims=True)).reshape(logits.shape)


def build_tree(groups, *, seed=0, heads=2, steps=STEPS, words=WORDS, prompt=PROMPT, dtype=np.float64):
    """Build a trace of `groups`: (kind, grid) to a list of (module, order)."""
    generator = np.random.default_rng(seed)
    starts = [prompt.find(word) if word in prompt.split() else -1 for word in words]
    stops = [start + len(word) if start >= 0 else -1 for start, word in zip(starts, words, strict=True)]
    kinds = [
        "text" if start >= 0 else "padding" if word == "<pad>" else "special" for start, word in zip(starts, words, strict=True)
    ]
    token_coords = {
        "token_text": list(words),
        "token_kind": kinds,
        "word": [word if word in prompt.split() else "" for word in words],
    }
    root = xr.Dataset(
        coords={
            "step": list(steps),
            "timestep": ("step", [float(999 - 100 * step) for step in steps]),
            "token": np.arange(len(words)),
            **{name: ("token", values) for name, values in token_coords.items()},
            "token_start": ("token", starts),
            "token_stop": ("token", stops),
        },
        attrs={"prompt": prompt},
    )
    nodes = {"/": root}
    for (kind, grid), sites in groups.items():
        frames, rows, columns = grid
        sizes = {"frame": frames, "y": rows, "x": columns, "key_frame": frames, "key_y": rows, "key_x": columns}
        sizes |= {"token": len(words), "key_token": len(words), "step": len(steps), "layer": len(sites), "head": heads}
        variables = {}
        if kind == "joint":
            count, volume = len(words), frames * rows * columns
            whole = softmax(2 * generator.standard_normal((len(steps), len(sites), heads, count + volume, count + volume)), 1)
            blocks = {
                "video_text": whole[..., count:, :count],
                "text_video": whole[..., :count, count:],
                "text_text": whole[..., :count, :count],
                "video_video": whole[..., count:, count:],
            }
            for name, dims in weights_dims(kind).items():
                variables[name] = (dims, blocks[name].reshape([sizes[dim] for dim in dims]).astype(dtype))
        else:
            (dims,) = weights_dims(kind).values()
            keys = {"cross": 1, "spatial": 2, "temporal": 1, "spacetime": 3}[kind]
            logits = 2 * generator.standard_normal([sizes[dim] for dim in dims])
            variables["weights"] = (dims, softmax(logits, keys).astype(dtype))
        coords = {"module": ("layer", [module for module, _ in sites]), "order": ("layer", [order for _, order in sites])}
        coords["head"] = np.arange(heads)
        nodes["/" + group_name(kind, grid)] = xr.Dataset(variables, coords=coords)
    return xr.DataTree.from_dict(nodes)


FAMILIES = {
    # a UNet with two grids: spatial and cross in a block's attention, then its motion module
    "unet": {
        ("spatial", (3, 2, 2)): [("unet.down_blocks.0.attentions.0.attn1", 0)],
        ("cross", (3, 2, 2)): [("unet.down_blocks.0.attentions.0.attn2", 1)],
        ("temporal", (3, 2, 2)): [
            ("unet.down_blocks.0.motion_modules.0.attn1", 2),
            ("unet.down_blocks.0.motion_modules.0.attn2", 3),
        ],
        ("cross", (3, 1, 1)): [("unet.mid_block.attentions.0.attn2", 5)],
        ("spatial", (3, 1, 1)): [("unet.mid_block.attentions.0.attn1", 4)],
        ("temporal", (3, 1, 1)): [("unet.mid_block.motion_modules.0.attn1", 6)],
    },
    # full space-time self-attention and cross-attention, as in Wan
    "full": {
        ("spacetime", (2, 2, 2)): [("transformer.blocks.0.attn1", 0), ("transformer.blocks.1.attn1", 2)],
        ("cross", (2, 2, 2)): [("transformer.blocks.0.attn2", 1), ("transformer.blocks.1.attn2", 3)],
    },
    # one softmax over text and video, as in CogVideoX
    "joint": {
        ("joint", (2, 2, 2)): [("transformer.transformer_blocks.0.attn1", 0), ("transformer.transformer_blocks.1.attn1", 1)]
    },
}
CONCEPTS = {"red circle": (1, 2), "blue square": (4, 5)}
