"""Compare records with a baseline and with each other, and merge the shards of a run."""
