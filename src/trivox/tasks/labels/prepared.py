"""Labelled images ready to train on."""

from trivox.planning.plan import Plan
from trivox.preparation.store import Store
from trivox.tasks.task import Prepared

PreparedImages = Prepared[Plan, Store]
