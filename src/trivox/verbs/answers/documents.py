"""From what a verb returned to the document that programs read."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from trivox.verbs.answers.base import Answer, content_of

ANSWERS = {
    "check": "data.CheckAnswer",
    "deidentify": "data.DeidentifyAnswer",
    "demo": "models.DemoAnswer",
    "distill": "models.TrainAnswer",
    "doctor": "machine.DoctorAnswer",
    "drr": "data.DrrAnswer",
    "evaluate": "measures.EvaluateAnswer",
    "explain": "results.ExplainAnswer",
    "export": "models.ExportAnswer",
    "import brats": "data.ImportBratsAnswer",
    "import class-folders": "data.ImportClassFoldersAnswer",
    "import nnunet": "models.ImportNnunetAnswer",
    "info": "models.InfoAnswer",
    "models": "models.ModelsAnswer",
    "models fetch": "models.ModelsAnswer",
    "package": "models.PackageAnswer",
    "pacs echo": "archives.EchoAnswer",
    "pacs fetch": "archives.FetchAnswer",
    "pacs find": "archives.FindAnswer",
    "pacs send": "archives.SendAnswer",
    "plan": "data.PlanAnswer",
    "predict": "results.PredictAnswer",
    "preprocess": "data.PreprocessAnswer",
    "pretrain": "models.PretrainAnswer",
    "rank": "results.RankAnswer",
    "report": "results.ReportAnswer",
    "train": "models.TrainAnswer",
    "verify": "measures.VerifyAnswer",
}
"""Module and class by the name of the command: a model is imported when it is asked
for, since some take seconds.
"""


def answer_of(verb: str) -> type[Answer]:
    """The model of a command's answer."""
    module, _, name = ANSWERS[verb].partition(".")
    kind: type[Answer] = getattr(import_module(f"{__package__}.{module}"), name)
    return kind


def document(
    verb: str | None, result: object, failure: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The answer of a verb, as JSON.

    result: what it returned, None where nothing came of it; failure: kind and message of
    the error that it ended with.
    """
    answer = Answer()
    if verb is not None and result is not None:
        answer = answer_of(verb).model_validate(result)
    ending = {"verb": verb, "error": failure}
    return {**content_of(answer), **ending}
