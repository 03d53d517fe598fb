"""What the headers of files say, read strictly before anything is done with the data."""
