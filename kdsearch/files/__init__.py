"""Files that appear whole or not at all, locally or in a bucket, and the user's cache."""
