"""Serve a boosted folder and call it with the official OpenAI client.

    python examples/serve_and_call.py FOLDER ["a question"]

The server picks a free port on this machine, asks for a token, and ends with the script.
"""

import os
import re
import secrets
import subprocess
import sys

from openai import OpenAI


def start(folder: str, token: str) -> tuple[subprocess.Popen[str], str]:
    """A server in a process of its own, and its address."""
    server = subprocess.Popen(
        [sys.executable, "-m", "springback.cli", "serve", folder, "--port", "0", "--name", "mine"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "SPRINGBACK_TOKEN": token},  # not on the command line, where ps shows it
    )
    assert server.stderr is not None
    for line in server.stderr:
        if found := re.search(r"serving mine at (\S+)", line):
            return server, found.group(1)
    raise SystemExit(f"the server ended with status {server.wait()}")


def main(folder: str, question: str = "What is 2 + 3?") -> None:
    token = secrets.token_hex(16)
    server, address = start(folder, token)
    try:
        with OpenAI(base_url=address, api_key=token) as client:
            stream = client.chat.completions.create(
                model="mine",
                messages=[{"role": "user", "content": question}],
                max_tokens=32,
                stream=True,
            )
            for chunk in stream:
                print(chunk.choices[0].delta.content or "", end="", flush=True)
            print()
    finally:
        server.terminate()
        print("server ended with status", server.wait())
        assert server.stderr is not None
        server.stderr.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
