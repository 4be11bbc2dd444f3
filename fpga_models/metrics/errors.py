"""Errors of the measurements.

ModelError
├── EvaluatorError   the evaluation encoder is missing or has another tensor contract
└── HeldOutError     no usable reference picture could be rendered for a person
"""

from fpga_models.errors import ModelError


class EvaluatorError(ModelError):
    """The evaluation encoder is missing or has another tensor contract."""

    code = "evaluator_invalid"


class HeldOutError(ModelError):
    """No usable reference picture could be rendered for a person."""

    code = "held_out_unusable"
