"""``springback serve`` in a process of its own, with the official client."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import openai


class Served:
    """A server in a process, and what it said on its standard error."""

    #: Seconds the client waits.
    timeout = 120.0
    #: What of the test's environment the server is not to see.
    unset: tuple[str, ...] = ("SPRINGBACK_TOKEN",)

    def __init__(self, *words: str, token: str | None = None) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        for name in self.unset:
            environment.pop(name, None)
        if token:
            environment["SPRINGBACK_TOKEN"] = token
        self.process = subprocess.Popen(
            [sys.executable, "-m", "springback.cli", "serve", *words, "--port", "0"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self.process.stderr is not None
        self.said: list[str] = []
        for line in self.process.stderr:
            self.said.append(line)
            if found := re.search(r"serving (\S+) at (http://\S+)/v1", line):
                self.name, self.url = found.groups()
                break
        else:
            raise AssertionError("".join(self.said))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.client = openai.OpenAI(
            base_url=self.url + "/v1", api_key=token or "none", max_retries=0, timeout=self.timeout
        )

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.said.extend(self.process.stderr)

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        request = urllib.request.Request(self.url + path, headers=headers)
        return _open(request)

    def post(self, path: str, body: bytes, **headers: str) -> tuple[int, str]:
        held = {"Content-Type": "application/json", **headers}
        return _open(urllib.request.Request(self.url + path, data=body, headers=held))

    def value(self, name: str) -> float:
        """A number of /metrics; 0 where it was never counted."""
        found = re.search(rf"^springback_{re.escape(name)} (\S+)$", self.get("/metrics")[1], re.M)
        return float(found.group(1)) if found else 0.0

    def close(self) -> None:
        """Kill it if it still runs, and leave nothing open."""
        self.process.kill()
        self.process.wait()
        self._reader.join(10)
        assert self.process.stderr is not None
        self.process.stderr.close()
        self.client.close()


def _open(request: urllib.request.Request) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
