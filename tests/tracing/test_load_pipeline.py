"""Loading: folders, precision, and one clear line for everything that is not a pipeline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vico_lens.errors import ModelError
from vico_lens.testing.pipelines import tiny_pipeline
from vico_lens.tracing.pipelines import load_pipeline

pytestmark = pytest.mark.filterwarnings("ignore:.*torch_dtype.*", "ignore:There are modules")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    path = tmp_path_factory.mktemp("model") / "latte"
    tiny_pipeline("latte-t2v").pipe.save_pretrained(path)
    return path


def test_a_folder_comes_back_as_its_stock_class_and_makes_the_same_video(folder: Path) -> None:
    tiny = tiny_pipeline("latte-t2v")
    pipe = load_pipeline(folder)
    assert type(pipe).__name__ == "LattePipeline"
    pipe.set_progress_bar_config(disable=True)
    frames = pipe(**tiny.kwargs, generator=torch.Generator().manual_seed(0)).frames
    np.testing.assert_allclose(np.asarray(frames), tiny.run(seed=0), atol=1e-6)  # loaded weights are aligned differently


def test_a_text_encoder_stored_in_half_precision_agrees_with_its_denoiser(folder: Path, tmp_path: Path) -> None:
    tiny = tiny_pipeline("latte-t2v")
    tiny.pipe.to(torch.float16)
    tiny.pipe.save_pretrained(tmp_path / "half")
    pipe = load_pipeline(tmp_path / "half")
    pipe.set_progress_bar_config(disable=True)
    assert pipe.text_encoder.dtype == pipe.transformer.dtype == torch.float32
    pipe(**tiny.kwargs)
    assert load_pipeline(folder, dtype="bfloat16").transformer.dtype == torch.bfloat16


def test_what_is_no_pipeline_is_one_clear_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"expected a pipeline folder or a hub name.*'nowhere/at/all'"):
        load_pipeline("nowhere/at/all")
    with pytest.raises(ModelError, match=r"model_index\.json"):
        load_pipeline(tmp_path)
    with pytest.raises(ModelError, match="Nothing is downloaded unless you say local_files_only=False"):
        load_pipeline("owner/a-model-that-is-not-cached")
    with pytest.raises(ModelError, match="torch dtype"):
        load_pipeline(folder, dtype="half-a-float")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "model_index.json").write_text(json.dumps({"_class_name": "NoSuchPipeline", "_diffusers_version": "0.42.1"}))
    with pytest.raises(ModelError, match="expected to load the pipeline"):
        load_pipeline(broken)
    (broken / "model_index.json").write_text("{")
    with pytest.raises(ModelError, match="expected to load the pipeline"):
        load_pipeline(broken)


@pytest.mark.parametrize("device", ["gpu", "meta:nonsense"])
def test_a_device_that_torch_does_not_have_is_one_clear_line(folder: Path, device: str) -> None:
    with pytest.raises(ModelError, match=f"expected device to be one that this torch can use, got '{device}'.*Use 'cpu'"):
        load_pipeline(folder, device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without CUDA")
def test_cuda_without_cuda_says_what_to_do(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"got 'cuda': .* Use 'cpu', or install a build of torch"):
        load_pipeline(folder, device="cuda")


QUIET = """
import logging
from diffusers.utils import logging as diffusers_logging
from huggingface_hub.utils import are_progress_bars_disabled
from transformers.utils import logging as transformers_logging

def settings():
    chatters = (diffusers_logging, transformers_logging)
    own = [(chatter.get_verbosity(), chatter.is_progress_bar_enabled()) for chatter in chatters]
    return own, are_progress_bars_disabled(), logging.getLogger().level, logging.getLogger().handlers

diffusers_logging.set_verbosity_info()
before = settings()
assert before[0] == [(logging.INFO, True), (logging.WARNING, True)], before
import vico_lens as vl
vl.load_pipeline()
assert settings() == before, (before, settings())
print("loaded")
"""


def test_the_bundled_model_loads_without_a_word_and_leaves_every_setting_as_it_was() -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("TQDM_DISABLE", "DIFFUSERS_VERBOSITY")}
    told = subprocess.run([sys.executable, "-c", QUIET], env=environment, check=False, capture_output=True, text=True)
    assert (told.stdout, told.stderr) == ("loaded\n", "")
