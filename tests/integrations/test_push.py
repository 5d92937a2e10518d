"""Uploads by the real Hub client, to a server on this machine that speaks the Hub's protocol."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

import springback
from boosted_fixture import boosted, checkpoints
from springback.errors import ModelError, SpringbackError
from springback.integrations.hub_upload import check_card, push


class Hub(ThreadingHTTPServer):
    """Takes what the client sends: creations, and commits of files as the protocol has them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.created: list[dict[str, Any]] = []
        self.cards: list[str] = []
        self.files: dict[str, bytes] = {}
        self.tokens: set[str | None] = set()
        self.unknown: list[str] = []


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        hub = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        hub.tokens.add(self.headers.get("Authorization"))
        if self.path == "/api/repos/create":
            hub.created.append(json.loads(body))
            self._answer({"url": f"{hub.url}/org/name"})
        elif self.path == "/api/validate-yaml":  # the client asks about a card before it goes up
            hub.cards.append(json.loads(body)["content"])
            self._answer({"errors": [], "warnings": []})
        elif self.path == "/api/models/org/name/preupload/main":
            asked = [f["path"] for f in json.loads(body)["files"]]
            each = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            self._answer({"files": [{"path": path, **each} for path in asked]})
        elif self.path == "/api/models/org/name/commit/main":
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    value = entry["value"]
                    hub.files[value["path"]] = base64.b64decode(value["content"])
            oid = "0" * 40
            self._answer({"commitOid": oid, "commitUrl": f"{hub.url}/org/name/commit/{oid}"})
        else:
            self._unknown()

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/org/name"):
            self._answer({"id": "org/name", "sha": "1" * 40, "siblings": []})
        else:
            self._unknown()

    def _unknown(self) -> None:
        self.server.unknown.append(f"{self.command} {self.path}")
        self._answer({"error": "not here"}, 404)

    def _answer(self, data: Any, status: int = 200) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Nothing on standard error."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def command(hub: Hub, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_test"}
    environment |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment |= {"HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, "-m", "springback.cli", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        env=environment,
    )


def test_a_boosted_folder_arrives_whole(hub: Hub, tiny_llama: Path, tmp_path: Path) -> None:
    folder = boosted(tiny_llama, tmp_path)
    (folder / "training_args.bin").write_bytes(b"a pickle")
    done = command(hub, "push", str(folder), "org/name")
    assert done.returncode == 0, (done.stderr, hub.unknown)
    assert done.stdout.strip().startswith(f"{hub.url}/org/name/commit/")
    assert hub.tokens == {"Bearer hf_test"}
    assert hub.created[0]["name"] == "name"
    assert hub.cards[0] == (folder / "README.md").read_text()
    assert hub.created[0].get("private") is True or hub.created[0].get("visibility") == "private"
    sent = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert {*hub.files} == sent - {"training_args.bin"}
    assert {"amateur/model.safetensors", "custom_generate/generate.py"} <= {*hub.files}
    # What came down again decodes as what went up.
    copy = tmp_path / "copy"
    for name, data in hub.files.items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(data)
    prompts = ["the thing", "a"]
    assert springback.generate(copy, prompts, max_new_tokens=8) == springback.generate(
        folder, prompts, max_new_tokens=8
    )


def test_extrapolate_pushes_what_it_wrote(hub: Hub, tiny_llama: Path, tmp_path: Path) -> None:
    early, ft = checkpoints(tiny_llama, tmp_path)
    out = tmp_path / "out"
    words = ["extrapolate", str(early), str(ft), "--mu", "0.5", "--out", str(out)]
    done = command(hub, *words, "--push", "org/name")
    assert done.returncode == 0, (done.stderr, hub.unknown)
    assert f"pushed: {hub.url}/org/name/commit/" in done.stdout
    assert {"model.safetensors", "springback.json", "README.md"} <= {*hub.files}
    assert hub.files["model.safetensors"] == (out / "model.safetensors").read_bytes()


def test_a_name_that_cannot_be_is_refused_before_anything_is_written(
    hub: Hub, tiny_llama: Path, tmp_path: Path
) -> None:
    early, ft = checkpoints(tiny_llama, tmp_path)
    words = ["extrapolate", str(early), str(ft), "--mu", "0.5", "--out", str(tmp_path / "out")]
    done = command(hub, *words, "--push", "name")
    assert done.returncode == 2
    assert "given: repository 'name'; allowed: org/name" in done.stderr
    assert not (tmp_path / "out").exists()
    done = command(hub, "extrapolate", str(early), str(ft), "--check", "--push", "org/name")
    assert done.returncode == 2
    assert "--check writes nothing" in done.stderr


def test_what_the_hub_says_is_said(hub: Hub, tiny_llama: Path, tmp_path: Path) -> None:
    folder = boosted(tiny_llama, tmp_path)
    done = command(hub, "push", str(folder), "other/name")
    assert done.returncode == 2
    assert done.stderr.startswith("error: the Hub did not take other/name")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base_model": "/home/me/model"}, "with base_model"),
        ({"base_model": ["org/fine", "fine"]}, "with base_model"),
        ({"tags": "springback"}, "with tags"),
        ({"library_name": 3}, "with library_name"),
    ],
)
def test_a_card_that_the_hub_would_refuse_is_refused_here(
    tiny_llama: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    folder = boosted(tiny_llama, tmp_path)
    check_card(folder)
    path = folder / "README.md"
    lines = path.read_text().split("---\n")
    kept = [x for x in lines[1].splitlines() if not x.startswith((*change, "- "))]
    block = "\n".join([*kept, *(f"{k}: {json.dumps(v)}" for k, v in change.items())])
    path.write_text(f"---\n{block}\n---\n{lines[2]}")
    with pytest.raises(ModelError, match=message):
        push(folder, "org/name")


def test_only_models_go_up_and_only_to_a_name(tiny_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="allowed: a folder with safetensors and a config"):
        push(tmp_path, "org/name")
    with pytest.raises(SpringbackError, match="given: repository 'name'; allowed: org/name"):
        push(tiny_llama, "name")
    plain = tmp_path / "plain"
    shutil.copytree(tiny_llama, plain)
    with pytest.raises(ModelError, match=r"no README\.md"):
        push(plain, "org/name")
    (plain / "README.md").write_text("no block")
    with pytest.raises(ModelError, match="no metadata block"):
        push(plain, "org/name")


def test_the_boosted_folders_card_is_whole(tiny_llama: Path, tmp_path: Path) -> None:
    card = ModelCard.load(boosted(tiny_llama, tmp_path) / "README.md")
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "text-generation"
    assert set(card.data.tags) >= {"springback", "custom_generate", "model-extrapolation"}
