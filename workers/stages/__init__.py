"""The durable steps of an item, by name."""

from workers.stages.base import Stage
from workers.stages.generate import generate
from workers.stages.ingest import ingest
from workers.stages.score import score

STAGES: dict[str, Stage] = {"ingest": ingest, "generate": generate, "score": score}
