"""What this room raises; it knows nothing of queues, so it only says what was got and what was wanted.

ModelError
├── WeightsError      a file is missing, altered, of an unknown layout, or for another base
├── PresetError       preset.json cannot be read as a preset
├── EmbeddingError    a face embedding of the wrong width, or not finite
├── PlacementError    a person without a place, or a mask or keypoints of the wrong shape
├── RequestError      sizes, steps, numbers of people outside what the preset offers
├── PlanError         a training plan cannot be read, or is not the one that this folder was begun with
├── DataError         training data is missing, unreadable, or not of the preset's shape
├── DivergedError     the loss of a training is not finite any more
└── LandmarksError    the landmarks are not five finite points
"""

from __future__ import annotations


class ModelError(Exception):
    """A network cannot do what was asked of it."""

    code = "model_error"


class WeightsError(ModelError):
    """A weight file is missing, altered, of an unknown layout, or for another base."""

    code = "weights_invalid"


class PresetError(ModelError):
    """preset.json cannot be read as a preset."""

    code = "preset_invalid"


class EmbeddingError(ModelError):
    """A face embedding has the wrong width or is not finite."""

    code = "embedding_invalid"


class PlacementError(ModelError):
    """A person has no place, or a mask or keypoints have the wrong shape."""

    code = "placement_invalid"


class RequestError(ModelError):
    """A request lies outside what the preset offers."""

    code = "request_invalid"


class PlanError(ModelError):
    """A training plan cannot be read, or is not the one that this folder was begun with."""

    code = "plan_invalid"


class DataError(ModelError):
    """Training data is missing, unreadable, or not of the preset's shape."""

    code = "data_invalid"


class DivergedError(ModelError):
    """The loss of a training is not finite any more."""

    code = "training_diverged"


class LandmarksError(ModelError):
    """The landmarks are not five finite points."""

    code = "landmarks_invalid"
