"""Evaluate a boosted folder with lm-eval: the pair, and each half for comparison.

python examples/evaluate.py FOLDER TASK[,TASK...] [DIRECTORY_WITH_TASK_FILES]
"""

import sys

import lm_eval
from lm_eval.tasks import TaskManager

import springback.integrations.lm_eval  # noqa: F401  (registers the model "springback")


def main(folder: str, tasks: str, include: str | None = None) -> None:
    manager = TaskManager(include_path=include)
    for part in ("pair", "expert", "amateur"):
        found = lm_eval.simple_evaluate(
            model="springback",
            model_args={"pretrained": folder, "part": part},
            tasks=tasks.split(","),
            task_manager=manager,
            batch_size="auto",
            bootstrap_iters=0,
        )
        for task, numbers in found["results"].items():
            shown = {k: v for k, v in numbers.items() if isinstance(v, float)}
            print(part, task, shown)


if __name__ == "__main__":
    main(*sys.argv[1:])
