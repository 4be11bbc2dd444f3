import numpy as np
import torch

from fpga_models.lab.mini.faces.detector import DetectorConfig, detection_loss
from fpga_models.lab.mini.faces.encoders import contrastive_loss, cosface_loss
from fpga_models.lab.mini.faces.targets import assign

CONFIG = DetectorConfig()


def test_cosface_without_margin_is_a_scaled_softmax_over_cosines() -> None:
    torch.manual_seed(0)
    embeddings, centres = torch.randn(4, 8), torch.randn(3, 8)
    people = torch.tensor([0, 1, 2, 0])
    cosines = torch.nn.functional.cosine_similarity(embeddings[:, None], centres[None], dim=2)

    loss = cosface_loss(embeddings, centres, people, scale=10.0, margin=0.0)

    assert torch.allclose(loss, torch.nn.functional.cross_entropy(10 * cosines, people), atol=1e-5)


def test_a_margin_makes_cosface_stricter() -> None:
    embeddings = torch.eye(3)

    losses = [
        cosface_loss(embeddings, torch.eye(3), torch.arange(3), scale=10.0, margin=margin) for margin in (0.0, 0.3)
    ]

    assert losses[1] > losses[0]


def test_the_contrastive_loss_prefers_people_kept_together() -> None:
    together = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    people = torch.tensor([0, 0, 1, 1])

    good = contrastive_loss(together, people, temperature=0.1)
    bad = contrastive_loss(together, torch.tensor([0, 1, 0, 1]), temperature=0.1)

    assert good < 0.01
    assert bad > 5


def test_a_detector_that_answers_exactly_right_has_almost_no_loss() -> None:
    points = np.array([[[40, 40], [60, 40], [50, 52], [42, 62], [58, 62]]], np.float32)
    targets = assign(np.array([[25, 25, 75, 75]], np.float32), points, 96)
    right = torch.from_numpy(targets.face >= 0)
    logits = torch.where(right, 12.0, -12.0)[None]
    perfect = (logits, torch.from_numpy(targets.boxes)[None], torch.from_numpy(targets.points)[None])

    assert detection_loss(perfect, [targets], CONFIG) < 1e-3
    assert detection_loss((-logits, perfect[1], perfect[2]), [targets], CONFIG) > 1
    assert detection_loss((logits, perfect[1] * 1.5, perfect[2]), [targets], CONFIG) > 0.5
    assert detection_loss((logits, perfect[1], perfect[2] + 1), [targets], CONFIG) > 0.05
