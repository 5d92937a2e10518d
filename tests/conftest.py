"""What tests share.  Nothing here imports torch until a test asks for it."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from tiny_model import make_llama, make_tokenizer

# Set before any test imports transformers: no test may reach for a network or draw a window.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# A loaded machine is slow now and then: deadlines would only make tests flaky.  Derandomised,
# so that a red run can be repeated.
settings.register_profile("springback", deadline=None, derandomize=True)
settings.load_profile("springback")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything below tests/e2e, tests/integrations and tests/vllm_engine is marked so."""
    for item in items:
        folders = item.path.relative_to(Path(__file__).parent).parts
        for kind in {"e2e", "integrations", "vllm_engine"} & {*folders}:
            item.add_marker(getattr(pytest.mark, kind))


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> None:
    """Tiny tensors gain nothing from threads, and sums are then taken in one order."""
    if "torch" in sys.modules:  # loaded while collecting, by a test module that needs it
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def _set_aside(request: pytest.FixtureRequest) -> None:
    """Every training run has garbage collected, twice: what imports and earlier files have left
    is passed over.  Not that of other people's software, which may leave sockets open."""
    if not {"integrations", "vllm_engine"} & {*request.path.parts}:
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True)
def _own_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees which test sets another one opened, nor those of the user."""
    monkeypatch.setenv("SPRINGBACK_STATE", str(tmp_path_factory.mktemp("state")))


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a byte-level tokenizer with chat template, eos and pad; made offline."""
    return make_tokenizer(tmp_path_factory.mktemp("tiny-tokenizer"))


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Path:
    """Folder of a random two-layer Llama (tied embeddings, about 90,000 weights) and tokenizer.

    Read-only by agreement: a test that changes weights saves them into its own ``tmp_path``.
    """
    return make_llama(tmp_path_factory.mktemp("tiny-llama"), tiny_tokenizer)
