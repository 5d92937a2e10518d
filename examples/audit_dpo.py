"""Audit a model that DPO aligns: how far do opposite examples take it back?

    python examples/audit_dpo.py MODEL PREFERENCES.jsonl [OUT]

PREFERENCES has rows with chosen and rejected. The audit aligns MODEL on chosen over rejected texts,
then trains it the other way, and measures the margin and the KL to MODEL on the way. The texts
count as answers to one neutral prompt, since the audit draws each side's rows by itself.
"""

import json
import sys
from pathlib import Path

import springback
from springback.report import build


def sides(preferences: Path, folder: Path) -> tuple[Path, Path]:
    """Chosen and rejected texts as two files."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in preferences.read_text().splitlines()]
    paths = folder / "wanted.jsonl", folder / "unwanted.jsonl"
    for path, side in zip(paths, ("chosen", "rejected"), strict=True):
        path.write_text("".join(json.dumps({"text": row[side]}) + "\n" for row in rows))
    return paths


def main(model: str, preferences: str, out: str = "audit-of-dpo") -> None:
    wanted, unwanted = sides(Path(preferences), Path(out) / "data")
    settings = springback.AuditSettings(
        model=model,
        align=str(wanted),
        perturb=str(unwanted),
        algorithm="dpo",
        prompt="Answer:",
        experiments=("rebound",),
        probes=("margin", "kl"),
        n_pos=(8, 16),
        doses=(4, 8),
        batch_size=4,
        seeds=(0,),
        holdout=4,
        prompts=4,
    )
    result = springback.audit(settings, out)
    print(result.verdict)
    print("report:", build(result.folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
