"""Synthetic portraits with ground truth: the world in which the mini preset is trained and measured."""

from fpga_models.synthetic.captions import VOCABULARY, words
from fpga_models.synthetic.identity import Identity
from fpga_models.synthetic.layouts import Slot, layouts
from fpga_models.synthetic.render import PersonTruth, Rendered, reference_crop, render
from fpga_models.synthetic.sampling import random_scene
from fpga_models.synthetic.scene import KINDS, Person, Pose, Scene

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
