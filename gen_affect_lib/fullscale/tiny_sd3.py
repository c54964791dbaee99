"""A tiny Stable Diffusion 3.5 with random weights, in the real formats: every folder of a published pipeline.

For tests and notebook 12. What runs on it runs on the published weights as well; its pictures are noise.
"""

# diffusers and transformers export these names lazily, and the sizes are passed on by name.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false, reportAttributeAccessIssue=false

from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

TRANSFORMER = dict(
    sample_size=16,
    patch_size=2,
    in_channels=16,
    num_layers=4,
    attention_head_dim=8,
    num_attention_heads=4,
    joint_attention_dim=64,
    caption_projection_dim=32,
    pooled_projection_dim=40,
    out_channels=16,
    pos_embed_max_size=24,
    dual_attention_layers=(0, 1),
    qk_norm="rms_norm",
)
SHIFT = 3.0  # of the scheduler, as published
SCALE = 8  # pixels of a picture for each of a latent


def transformer(**sizes) -> SD3Transformer2DModel:
    """A transformer in which every weight is random, so that no part can be left out unnoticed."""
    torch.manual_seed(0)
    model = SD3Transformer2DModel(**(TRANSFORMER | sizes))
    for name, parameter in model.named_parameters():
        if "norm_" in name and parameter.ndim == 1 and "linear" not in name:
            nn.init.uniform_(parameter, 0.5, 1.5)
        else:
            nn.init.normal_(parameter, std=0.1)
    return model.eval()


def vae() -> AutoencoderKL:
    """Eight pixels to one latent of 16 channels, with the published shift and scale."""
    torch.manual_seed(1)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=4,
        sample_size=128,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()


def text_encoders() -> dict:
    """Two CLIPs and a T5, with tokenizers that spell their words in letters."""
    letters = [chr(letter) for letter in range(33, 127)]
    clip_words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    t5_words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("▁", -2.0), *((letter, -3.0) for letter in letters)]
    parts = {}
    for number, width in (("", 24), ("_2", 16)):
        torch.manual_seed(2)
        config = CLIPTextConfig(
            vocab_size=len(clip_words),
            hidden_size=width,
            intermediate_size=32,
            num_hidden_layers=3,
            num_attention_heads=2,
            projection_dim=width,
            bos_token_id=len(clip_words) - 2,
            eos_token_id=len(clip_words) - 1,
            pad_token_id=1,
        )
        parts[f"text_encoder{number}"] = CLIPTextModelWithProjection(config).eval()
        vocabulary = {word: index for index, word in enumerate(clip_words)}
        parts[f"tokenizer{number}"] = CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)
    torch.manual_seed(3)
    config = T5Config(
        vocab_size=len(t5_words),
        d_model=TRANSFORMER["joint_attention_dim"],
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    parts["text_encoder_3"] = T5EncoderModel(config).eval()
    parts["tokenizer_3"] = T5TokenizerFast(vocab=t5_words, extra_ids=0)
    return parts


def pipeline(**sizes) -> StableDiffusion3Pipeline:
    """The whole pipeline; `sizes` of the transformer."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=SHIFT)
    return StableDiffusion3Pipeline(transformer=transformer(**sizes), scheduler=scheduler, vae=vae(), **text_encoders())


def save(folder: Path, **sizes) -> Path:
    """Write the pipeline's folder."""
    pipeline(**sizes).save_pretrained(folder)
    return folder
