"""Expected and actual → findings; works on numpy arrays and ONNX files, knows neither torch nor transformers."""
