"""The exported model and the built site, made once for all tests of this folder: `make test-site`."""

import pytest

from gen_affect_lib.export import export_onnx
from gen_affect_lib.paths import CHECKPOINTS
from gen_affect_lib.pipeline import GenAffectPipeline


@pytest.fixture(scope="session")
def pipeline():
    pipeline = GenAffectPipeline.from_pretrained(CHECKPOINTS / "gen_affect")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="session")
def onnx_files(pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    export_onnx(pipeline, folder)
    return folder
