"""The durable steps of an item, by name."""

from workers.stages.annotate import annotate
from workers.stages.arrange import arrange_data_set
from workers.stages.base import Stage
from workers.stages.cluster import cluster
from workers.stages.evaluate import evaluate
from workers.stages.generate import generate
from workers.stages.ingest import ingest
from workers.stages.ingest_photo import ingest_photo
from workers.stages.probe import probe
from workers.stages.publish_photo import publish_photo
from workers.stages.restore import restore
from workers.stages.score import score
from workers.stages.score_photo import score_photo
from workers.stages.train import train

STAGES: dict[str, Stage] = {
    "ingest": ingest,
    "generate": generate,
    "score": score,
    "annotate": annotate,
    "arrange": arrange_data_set,
    "train": train,
    "evaluate": evaluate,
    "ingest_photo": ingest_photo,
    "cluster": cluster,
    "restore": restore,
    "score_photo": score_photo,
    "publish_photo": publish_photo,
    "probe": probe,
}
