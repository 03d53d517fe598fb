"""How well lesions are found."""
