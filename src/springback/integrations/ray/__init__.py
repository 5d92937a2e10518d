"""Where runs are made: in this process, or spread over machines by Ray.  Light to import."""

from springback.integrations.ray.settings import EXECUTORS, ExecutorSettings, on_ray
from springback.integrations.ray.tasks import Outcome, Task, check_tasks

__all__ = ["EXECUTORS", "ExecutorSettings", "Outcome", "Task", "check_tasks", "on_ray"]
