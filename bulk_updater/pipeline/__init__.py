"""The whole path of a row: `run` sends, `plan` does everything but."""

from bulk_updater.pipeline.plan import InvalidGroup, OperationPlan, Plan, plan
from bulk_updater.pipeline.run import run

__all__ = ["InvalidGroup", "OperationPlan", "Plan", "plan", "run"]
