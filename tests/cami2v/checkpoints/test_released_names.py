from __future__ import annotations

import pytest
import torch

from cami2v.checkpoints.released_names import (
    our_names,
    released_names,
    to_our_shape,
    to_released_shape,
)


def test_old_spelling_of_the_frame_rate_embedding() -> None:
    translation = our_names(["model.diffusion_model.framestride_embed.0.weight"])
    assert translation.ours == {
        "model.diffusion_model.framestride_embed.0.weight": "backbone.frame_rate_embedding.0.weight"
    }
    ours = "backbone.frame_rate_embedding.0.weight"
    assert released_names([ours]) == {ours: "model.diffusion_model.fps_embedding.0.weight"}


def test_unused_and_unknown_names_are_told_apart() -> None:
    translation = our_names(
        [
            "betas",
            "embedder.model.visual.proj",
            "cond_stage_model.model.transformer.resblocks.0.ln_1.weight",
            "cond_stage_model.model.transformer.resblocks.1.ln_1.weight",
            "model.diffusion_model.input_blocks.1.0.in_layers.9.weight",
        ]
    )
    assert set(translation.unused) == {
        "betas",
        "embedder.model.visual.proj",
        "cond_stage_model.model.transformer.resblocks.1.ln_1.weight",
    }
    assert list(translation.ours.values()) == ["text_encoder.tower.transformer.resblocks.0.ln_1.weight"]
    assert translation.unknown == ("model.diffusion_model.input_blocks.1.0.in_layers.9.weight",)


def test_released_index_of_upsampling_counts_the_transformers() -> None:
    ours = [
        "backbone.decoder.2.upsample.convolution.weight",
        "backbone.decoder.5.upsample.convolution.weight",
        "backbone.decoder.5.temporal.norm.weight",
    ]
    released = released_names(ours)
    assert released[ours[0]] == "model.diffusion_model.output_blocks.2.1.conv.weight"
    assert released[ours[1]] == "model.diffusion_model.output_blocks.5.3.conv.weight"


def test_name_without_counterpart() -> None:
    with pytest.raises(ValueError, match=r"backbone\.decoder\.0\.novelty\.weight: no released checkpoint"):
        released_names(["backbone.decoder.0.novelty.weight"])


def test_pointwise_attention_of_the_autoencoder_changes_shape_and_back() -> None:
    name = "first_stage.autoencoder.encoder.mid_block.attentions.0.to_out.0.weight"
    kernel = torch.randn(4, 4, 1, 1)
    linear = to_our_shape(name, kernel)
    assert linear.shape == (4, 4)
    assert torch.equal(to_released_shape(name, linear), kernel)
    other = "first_stage.autoencoder.encoder.conv_in.weight"
    assert to_our_shape(other, kernel) is kernel


@pytest.mark.parametrize("levels", [2, 3, 4, 5])
def test_decoder_of_any_depth_is_numbered_the_other_way_round(levels: int) -> None:
    released = [f"first_stage_model.decoder.up.{level}.block.0.conv1.weight" for level in range(levels)]
    ours = our_names(released).ours
    numbers = [int(ours[name].split(".")[4]) for name in released]
    assert numbers == list(reversed(range(levels)))
    assert released_names(ours.values()) == {our: name for name, our in ours.items()}
