"""What the kinds of containers differ in, what their entry points share, and their trials."""
