"""Renders an archive."""

from fpga_models.lab.synthetic.archive.album import main

main()
