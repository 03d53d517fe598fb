"""Models behind an API: jobs that survive anything, workers, and the HTTP that reaches them."""
