"""What is known of a case beside its images, from the columns of a table."""
