"""Results: records of runs, benchmarks, and the reports made from them."""
