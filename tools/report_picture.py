"""README's picture: the first screen of the committed demo's report, by a headless Chromium.

The page is built anew from docs/results/demo/result.json, so the picture shows what stands there.

    python tools/report_picture.py
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from springback.report import build

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--result", type=Path, default=ROOT / "docs" / "results" / "demo")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "report.png")
    parser.add_argument("--size", default="1280,1180", help="width,height in pixels")
    args = parser.parse_args()
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        raise SystemExit("chromium is needed: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(args.result / "result.json", folder)
        page = build(Path(folder))
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--user-data-dir={folder}/profile", f"--window-size={args.size}"]
        command += [f"--screenshot={args.out}", page.resolve().as_uri()]
        subprocess.run(command, check=True, timeout=120, stderr=subprocess.DEVNULL)
    print(f"written: {args.out}")


if __name__ == "__main__":
    main()
