"""Series on their way through a model: the queue, and what is done at each step."""
