"""Files of other exporters: written, judged by `parity check`, and compared with the truth, which `truth.py` finds."""
