"""The HTTP interface of the jobs."""
