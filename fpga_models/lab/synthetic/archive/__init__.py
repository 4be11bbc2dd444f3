"""Photo archives with ground truth, rendered and damaged: `python -m fpga_models.lab.synthetic.archive`."""

from fpga_models.lab.synthetic.archive.album import PEOPLE, Truth, worn, write_archive

__all__ = ["PEOPLE", "Truth", "worn", "write_archive"]
