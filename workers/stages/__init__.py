"""The durable steps of an item, by name."""

from workers.stages.annotate import annotate
from workers.stages.arrange import arrange_data_set
from workers.stages.base import Stage
from workers.stages.evaluate import evaluate
from workers.stages.generate import generate
from workers.stages.ingest import ingest
from workers.stages.score import score
from workers.stages.train import train

STAGES: dict[str, Stage] = {
    "ingest": ingest,
    "generate": generate,
    "score": score,
    "annotate": annotate,
    "arrange": arrange_data_set,
    "train": train,
    "evaluate": evaluate,
}
