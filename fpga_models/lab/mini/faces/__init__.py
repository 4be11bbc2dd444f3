"""The mini face pack's own networks: a detector, the product's encoder A and the judge, encoder B.

Knows rendered pictures on disk and ONNX, nothing of portraits being generated.
Run: `python -m fpga_models.lab.mini.faces PART --data var/mini --out var/mini/faces`; `--help` names the parts.
"""
