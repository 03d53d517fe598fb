"""The routes of archives. What is looked for stands in the body, not in the address,
which proxies keep in their logs.
"""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter
from fastapi import Path as InPath

from trivox.service.serve.api.archives.schemas import (
    ArchiveList,
    SeriesList,
    SeriesQuery,
    StudyList,
    StudyQuery,
)
from trivox.service.serve.api.archives.search import Searches, archive_names
from trivox.service.serve.api.schemas import problems

Name = Annotated[str, InPath(max_length=64, description="of the archive")]


def archive_routes(profiles: Path | None) -> APIRouter:
    """Archives that scans may be fetched from. profiles: their file; None: there are
    none.
    """
    router = APIRouter(prefix="/v1/archives")
    searches = Searches(profiles)

    @router.get("", responses=problems(503))
    def list_archives() -> ArchiveList:
        """The archives that may be searched."""
        return ArchiveList(archives=archive_names(profiles))

    @router.post("/{name}/studies", responses=problems(404, 422, 502, 503))
    def find_studies(name: Name, query: StudyQuery) -> StudyList:
        """Studies that match, of the patients of the archive."""
        return searches.studies(name, query)

    @router.post("/{name}/series", responses=problems(404, 422, 502, 503))
    def find_series(name: Name, query: SeriesQuery) -> SeriesList:
        """The series of a study, with the reference that a job names each by."""
        return searches.series(name, query.study)

    return router
