"""Training settings of papers that several attacks share."""

from auditor.attacks.settings import Settings

MARGIN_TRAINING: Settings = {
    "epochs": 200,
    "batch_size": 128,
    "learning_rate": 0.1,
    "momentum": 0.0,
    "weight_decay": 1e-4,
    "label_smoothing": 0.0,
    "shift": 4,
    "flip": True,
    "drops": [100, 150],
}
"""Kim et al., ICML 2023: SGD without momentum, batches of 128, the rate divided by ten after 100 and 150 epochs, mirror
images and crops after a border of 4 pixels."""

MAT_TRAINING: Settings = {
    "epochs": 100,
    "batch_size": 128,
    "learning_rate": 0.1,
    "momentum": 0.0,
    "weight_decay": 1e-4,
    "label_smoothing": 0.0,
}
"""The fine-tuning of MAT: 100 epochs at rate 0.1. *Differences:* one-cycle schedule in place of a constant rate."""

ADI_TRAINING: Settings = {
    "epochs": 20,
    "batch_size": 100,
    "learning_rate": 0.001,
    "label_smoothing": 0.0,
}
"""Adi et al., 2018: 20 epochs at rate 0.001. *Differences:* one-cycle schedule in place of a constant rate."""
