"""What came out: records of a run, benchmarks, and what people read of them."""
