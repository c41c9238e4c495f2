"""Expected and actual → verdict rows; works on numpy arrays and ONNX files, knows neither torch nor transformers."""
