"""Synthetic portraits with ground truth: the world in which the mini preset is trained and measured."""

from fpga_models.idzoom.scenes import KINDS
from fpga_models.lab.synthetic.captions import VOCABULARY, words
from fpga_models.lab.synthetic.identity import Identity
from fpga_models.lab.synthetic.layouts import Slot, layouts
from fpga_models.lab.synthetic.render import PersonTruth, Rendered, reference_crop, render
from fpga_models.lab.synthetic.sampling import random_scene
from fpga_models.lab.synthetic.scene import Person, Pose, Scene

__all__ = [
    "KINDS",
    "VOCABULARY",
    "Identity",
    "Person",
    "PersonTruth",
    "Pose",
    "Rendered",
    "Scene",
    "Slot",
    "layouts",
    "random_scene",
    "reference_crop",
    "render",
    "words",
]
