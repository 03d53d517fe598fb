"""Write docs/reference/schemas from the models of answers, files and the service; a test
holds them current.

    python scripts/schemas.py
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from trivox.config.recipe import Recipe
from trivox.datasets.checks.findings import CheckFile
from trivox.datasets.dataset import Dataset
from trivox.datasets.layouts.manifest import Manifest
from trivox.datasets.splits import SplitsFile
from trivox.evaluation.folders.ranking import RankingFile
from trivox.evaluation.metrics.content import MetricsFile
from trivox.exporting.card import ExportCard
from trivox.exporting.contract import Contract
from trivox.importing.staging import ImportFile
from trivox.inference.descriptions import LabelDescription, VolumeDescription
from trivox.inference.zoo.release import FetchedFile, Index
from trivox.learning.tracking import Record
from trivox.learning.transfer import TransferFile
from trivox.planning.cost import CostFile, ForecastFile
from trivox.planning.fingerprint import Fingerprint
from trivox.planning.plan import ImagePlan, Plan
from trivox.planning.volumes import VolumePlan
from trivox.privacy.folder import DeidentifiedFile
from trivox.projection.geometry_files import GeometryRecord
from trivox.results.codes import CodesFile
from trivox.results.measuring.rows import StatisticsFile
from trivox.schema import FORMAT_VERSION
from trivox.service.serve.api import review_schemas, schemas
from trivox.service.serve.api.archives import schemas as archives
from trivox.service.serve.api.review_schemas import ProvenanceFile
from trivox.tasks.labels.explanation import ExplainFile
from trivox.tasks.origin import RunOrigin
from trivox.tasks.pretraining import PretrainingFile
from trivox.tasks.reconstruction.prediction import ReconstructedFile
from trivox.tasks.reconstruction.rendered import RenderedFile
from trivox.tasks.stages import RunFile
from trivox.tasks.verification.record import VerifiedFile
from trivox.verbs.answers.base import ErrorAnswer
from trivox.verbs.answers.documents import ANSWERS, answer_of
from trivox.verbs.answers.results import PredictionsFile
from trivox.verbs.demo import DemoFile

FOLDER = Path(__file__).parents[1] / "docs" / "reference" / "schemas"
ENDING = ".schema.json"
DIALECT = "https://json-schema.org/draft/2020-12/schema"

FILES: dict[str, Any] = {
    "bundle": LabelDescription | VolumeDescription,
    "codes": CodesFile,
    "contract": Contract,
    "dataset": Dataset,
    "explain": ExplainFile,
    "export": ExportCard,
    "fingerprint": Fingerprint,
    "geometry": GeometryRecord,
    "index": Index,
    "manifest": Manifest,
    "metrics": MetricsFile,
    "plan": Plan | ImagePlan | VolumePlan,
    "predictions": PredictionsFile,
    "ranking": RankingFile,
    "run": RunFile,
    "sources": RunOrigin,
    "splits": SplitsFile,
}
"""By the name of the file, without its ending."""
STAMPED: dict[str, Any] = {
    "case": ReconstructedFile,
    "check": CheckFile,
    "cost": CostFile,
    "deidentified": DeidentifiedFile,
    "demo": DemoFile,
    "fetched": FetchedFile,
    "forecast": ForecastFile,
    "import": ImportFile,
    "pretraining": PretrainingFile,
    "provenance": ProvenanceFile,
    "recipe": Recipe,
    "rendered": RenderedFile,
    "statistics": StatisticsFile,
    "transfer": TransferFile,
    "verified": VerifiedFile,
}
"""Likewise, of those whose model does not say their task and version."""
SERVICE: dict[str, Any] = {
    "accepted": schemas.Accepted,
    "archives": archives.ArchiveList,
    "health": schemas.Health,
    "job": schemas.JobView,
    "jobs": schemas.JobList,
    "models": schemas.ModelList,
    "problem": schemas.Problem,
    "review": review_schemas.ReviewView,
    "reviews": review_schemas.ReviewList,
    "series": archives.SeriesList,
    "studies": archives.StudyList,
}
"""What the service answers with."""


class Plain(GenerateJsonSchema):
    """Schemas of fields, without titles that only repeat their names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Never."""
        return False

    def field_is_required(self, field: Any, total: bool) -> bool:
        """Those of a dictionary as it declares them."""
        if field["type"] == "typed-dict-field":
            return bool(field.get("required", total))
        return super().field_is_required(field, total)

    def ser_schema(self, schema: Any) -> Any:
        """What wraps the writing of a value changes nothing but which fields there are."""
        return None if schema["type"] == "function-wrap" else super().ser_schema(schema)


def all_schemas() -> dict[str, dict[str, Any]]:
    """All schemas by name: of the answer of each command, of errors, of files, of a line
    of metrics.jsonl, and of the service.
    """
    made = {"error": schema_of(ErrorAnswer)}
    for verb in ANSWERS:
        schema = schema_of(answer_of(verb))
        schema["properties"]["verb"] = {"const": verb}
        made[verb.replace(" ", "-")] = schema
    made |= {f"{name}-file": schema_of(kind) for name, kind in FILES.items()}
    made |= {f"{name}-file": with_stamp(kind) for name, kind in STAMPED.items()}
    made["metrics-line"] = schema_of(Record)
    made |= {f"service-{name}": schema_of(kind) for name, kind in SERVICE.items()}
    return {name: named(name, made[name]) for name in sorted(made)}


def schema_of(kind: Any) -> dict[str, Any]:
    """The schema of what is written: it lets fields pass that later versions add."""
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    schema = adapter.json_schema(mode="serialization", schema_generator=Plain)
    opened: dict[str, Any] = open_to_more(schema)
    return opened


def open_to_more(schema: Any) -> Any:
    """A schema in which no object is closed."""
    if isinstance(schema, list):
        return [open_to_more(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: open_to_more(part)
        for name, part in schema.items()
        if (name, part) != ("additionalProperties", False)
    }


def with_stamp(kind: Any) -> dict[str, Any]:
    """The schema of a file that says of itself what `trivox.schema.stamped` adds."""
    schema = schema_of(kind)
    stamp = {
        "task": {"type": ["string", "null"]},
        "format_version": {"const": FORMAT_VERSION},
    }
    schema["properties"] = {**stamp, **schema["properties"]}
    schema["required"] = [*stamp, *schema.get("required", [])]
    return schema


def named(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema that says what it is called."""
    return {"$schema": DIALECT, "$id": f"urn:trivox:schema:{name}", **schema}


def text_of(schema: Mapping[str, Any]) -> str:
    """A schema as it is written."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    texts = {name: text_of(schema) for name, schema in all_schemas().items()}
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.glob(f"*{ENDING}"):
        old.unlink()
    for name, text in texts.items():
        (FOLDER / f"{name}{ENDING}").write_text(text, encoding="utf-8")
