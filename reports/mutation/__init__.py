"""Faults that are seeded into files and traces, decided visible apart from the judge, and held against its verdicts."""
